"""What a checkpoint is known by: the bytes of its files, whichever version reads them; a flipped bit in one is named."""

import hashlib
import json
import shutil
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rich.console import Console

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.recompute import redraw
from analyze.storage.formats import FORMAT
from analyze.tables.census import open_census
from checksums import write_object
from corpora.sequences import census_sequences
from errors import UserError
from models import open_checkpoint as opening
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint


def flipped(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


def test_a_field_that_a_later_version_adds_leaves_identities_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.saved(tmp_path / "m", tiny.random_model())
    torch.save({"model": vars(tiny.random_model().config), "state_dict": tiny.random_model().state_dict()}, tmp_path / "x.ckpt")
    before = [open_checkpoint(str(path)).sha256 for path in (folder, tmp_path / "x.ckpt")]
    later = make_dataclass("Later", [("more", int, 7)], bases=(OPTConfig,))
    monkeypatch.setattr(opening, "OPTConfig", later)
    monkeypatch.setattr("models.huggingface.OPTConfig", later)
    assert [open_checkpoint(str(path)).sha256 for path in (folder, tmp_path / "x.ckpt")] == before


def test_another_config_json_and_other_weights_are_another_checkpoint(tmp_path: Path) -> None:
    folders = {name: tiny.saved(tmp_path / name, tiny.random_model()) for name in ("one", "same")}
    folders["weights"] = tiny.saved(tmp_path / "weights", tiny.random_model(seed=1))
    folders["config"] = tiny.saved(tmp_path / "config", tiny.random_model())
    (folders["config"] / "training_state.json").unlink()  # it would say that the next line is damage
    config = folders["config"] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 8}))
    found = {name: open_checkpoint(str(folder)).sha256 for name, folder in folders.items()}
    assert found["one"] == found["same"] and len(set(found.values())) == 3


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_flipped_bit_of_a_milestone_is_named(share: float, tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "m", tiny.random_model(), step=3)
    assert open_checkpoint(str(folder)).sha256
    file = folder / "model.safetensors"
    flipped(file, int(share * file.stat().st_size))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: its sha256 is not the one written down for it; copy it"):
        _ = open_checkpoint(str(folder)).sha256


def test_a_flipped_bit_of_a_ckpt_is_named(tmp_path: Path) -> None:
    model = tiny.random_model()
    torch.save({"model": vars(model.config), "state_dict": model.state_dict()}, tmp_path / "x.ckpt")
    checkpoint = open_checkpoint(str(tmp_path / "x.ckpt"))
    assert checkpoint.sha256
    flipped(tmp_path / "x.ckpt", checkpoint.tensors["decoder.layers.1.fc1.weight"].offset + 7)
    with pytest.raises(UserError, match=r"x\.ckpt is damaged: the checksum of x/data/\d+ in it is another"):
        _ = open_checkpoint(str(tmp_path / "x.ckpt")).sha256


def test_a_flipped_bit_in_the_hub_s_cache_is_named(tmp_path: Path) -> None:
    """Its blobs are called by their sha256."""
    folder = tiny.saved(tmp_path / "m", tiny.random_model())
    (folder / "training_state.json").unlink()
    blob = tmp_path / hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    shutil.move(folder / "model.safetensors", blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert open_checkpoint(str(folder)).sha256
    flipped(blob, 9000)
    with pytest.raises(UserError, match=r"is damaged: its sha256 is not the one written down for it; download it again"):
        _ = open_checkpoint(str(folder)).sha256


def census(tmp_path: Path) -> CensusTask:
    checkpoint = open_checkpoint(str(tiny.saved(tmp_path / "m", tiny.random_model())))
    config = tiny.analysis(tmp_path / "m", tiny.tokens_corpus(tmp_path / "ids.npy", tiny.random_ids()), tmp_path / "c")
    return CensusTask(checkpoint, census_sequences(config.corpus, config.tokens, 24, None), tmp_path / "c", config)


def changed(file: Path, **entries: Any) -> None:
    meta = json.loads(file.read_text()) | entries
    write_object(file, {name: value for name, value in meta.items() if value is not None})


def test_a_census_of_another_format_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    task, quiet = census(tmp_path), Console(quiet=True)
    take(task, quiet)
    meta = tmp_path / "c" / "meta.json"
    assert json.loads(meta.read_text())["format"] == FORMAT
    take(task, quiet)
    changed(meta, format=None)  # of the versions that had no number
    assert len(open_census(tmp_path / "c").neurons) == 3 * 44
    with pytest.raises(UserError, match=r"a census of format 1, which can be read and drawn but not gone on with.*another out="):
        take(task, quiet)
    changed(meta, format=99)
    for act in (lambda: take(task, quiet), lambda: open_census(task.out), lambda: redraw(task.out, {}, None, quiet)):
        with pytest.raises(UserError, match=r"of format 99; this version reads 1, 2 and 3\. Take it anew"):
            act()
    for damage in ("", "[]", "{"):
        meta.write_text(damage)
        with pytest.raises(UserError, match=r"meta\.json is damaged \(.*\): the analyze/run\.py command .* keeps its counts"):
            open_census(task.out)
