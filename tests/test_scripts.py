"""Scripts that make checkpoints and censuses: what is given them is looked at before anything is written; a mistake ends in a sentence."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import layouts
import pytest
import tiny
import torch
from rich.console import Console

from errors import UserError
from models.open_checkpoint import open_checkpoint

SCRIPTS = str(Path(__file__).parents[1] / "scripts")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open one of our scripts, which puts the repository into the place of its own folder in sys.path."""

    def opened(name: str) -> ModuleType:
        monkeypatch.setattr(sys, "path", [SCRIPTS, *sys.path])
        return importlib.import_module(f"scripts.{name}")

    return opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("scripts") / "model", tiny.random_model())


NO_FOLDERS = {
    "a file": ("x.txt", "exists already"),
    "in a file": ("x.txt/y", "cannot be looked into|would lie in a file"),
    "not empty": ("full", "exists already"),
    "too long": ("x" * 300, "is no path"),
}


@pytest.mark.parametrize("name", ["untrained", "merge_censuses", "synthesize_checkpoint"])
@pytest.mark.parametrize(("out", "said"), NO_FOLDERS.values(), ids=NO_FOLDERS)
def test_a_folder_that_cannot_be_made_is_refused_first(name: str, out: str, said: str, script: Any, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    for file in ("x.txt", "full/y"):
        (tmp_path / file).write_text("x")
    module, place = script(name), tmp_path / out
    for census in ("a", "b"):
        (tmp_path / census).mkdir()
        meta = {"identity": {"keep_ngrams": 100}, "corpus": {"bos_id": 2, "domains": []}, "thresholds": {}}
        (tmp_path / census / "meta.json").write_text(json.dumps(meta))
    arguments = argparse.Namespace(dtype="float16", one_layer=False, layout="safetensors", shard_gb=1.0, seed=0)
    with pytest.raises(UserError, match=said):
        match name:
            case "untrained":
                module.untrained("nowhere", place, 0, None)
            case "merge_censuses":
                module.merge(tmp_path / "a", tmp_path / "b", place)
            case _:
                module.synthesize(module.opt("125m", 1), place, arguments, Console(quiet=True))


@pytest.mark.parametrize(
    ("seed", "std", "said"),
    [
        (-1, None, "--seed=-1"),
        (2**70, None, "--seed="),
        (0, float("nan"), "--std=nan must"),
        (0, -1.0, "--std=-1"),
        (0, 0.0, "--std"),
    ],
)
def test_numbers_of_an_untrained_model_are_looked_at(
    seed: int, std: float | None, said: str, script: Any, tmp_path: Path, model: Path
) -> None:
    with pytest.raises(UserError, match=said):
        script("untrained").untrained(str(model), tmp_path / "out", seed, std)


def test_a_disk_that_takes_no_model_is_said_and_nothing_is_left(
    script: Any, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UserError, match=r"out cannot be written .*Read-only file system.*; make room, or choose another place"):
        script("untrained").untrained(str(model), tmp_path / "out", 0, None)
    assert not list(tmp_path.iterdir())


def test_what_an_untrained_model_leaves_out_is_said(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = layouts.weights_of(tiny.random_model()) | {"v_head.summary.weight": torch.zeros(1, 32)}
    layouts.write(tmp_path / "headed", tiny.random_model(), heads, "safetensors")
    script("untrained").untrained(str(tmp_path / "headed"), tmp_path / "out", 0, 0.5)
    assert capsys.readouterr().err.count("v_head.summary.weight is passed over") == 1
    assert open_checkpoint(str(tmp_path / "out")).config.init_std == 0.5


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("{", "is damaged"),
        (json.dumps({"format": 7}), "of format 7"),
        (json.dumps({"format": 2}), "no finished census"),
        (json.dumps({"identity": [], "corpus": {}}), "identity=.* is no object"),
        (json.dumps({"identity": {}, "corpus": {}, "thresholds": {}}), "lacks keep_ngrams"),
    ],
)
def test_a_shard_s_meta_is_read_as_that_of_any_census(meta: str, said: str, script: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "meta.json").write_text(meta)
    with pytest.raises(UserError, match=said):
        script("merge_censuses").merge(tmp_path / "a", tmp_path / "a", tmp_path / "out")


def test_a_model_without_layers_is_refused(script: Any) -> None:
    with pytest.raises(UserError, match=r"model\.layers=0"):
        script("synthesize_checkpoint").opt("125m", 0)
