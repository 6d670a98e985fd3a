"""Everything drawn anew from counts: a run as a whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.pipeline import sequences_for
from analyze.recompute import redraw
from analyze.storage.formats import write_meta
from errors import UserError
from models.open_checkpoint import open_checkpoint

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a random model, not drawn."""
    folder = tmp_path_factory.mktemp("redrawing")
    model = tiny.saved(folder / "model", tiny.random_model(layers=1), step=0)
    corpus = tiny.tokens_corpus(folder / "ids.npy", tiny.random_ids())
    config = tiny.analysis(model, corpus, folder / "out")
    checkpoint = open_checkpoint(str(model))
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), folder / "out", config), QUIET)
    return folder / "out"


@pytest.fixture
def run(census: Path, tmp_path: Path) -> Path:
    """A run of two milestones."""
    for step in (0, 100):
        folder = tmp_path / "run" / "census" / f"step_{step:09d}"
        shutil.copytree(census, folder)
        meta = json.loads((folder / "meta.json").read_text())
        meta["checkpoint"]["step"] = step
        write_meta(folder, meta)
    return tmp_path / "run"


def written(run: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(run.rglob("*")) if file.suffix in (".json", ".parquet", ".html")}


def test_a_run_is_drawn_anew_whole_or_not_at_all(run: Path) -> None:
    before = written(run)
    damaged = run / "census" / "step_000000100" / "layers" / "layer_000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(UserError, match="step_000000100"):
        redraw(run / "census", {"support": 0.8}, None, QUIET)
    assert written(run) == before


def test_an_untrained_model_of_another_shape_is_refused_before_anything_is_written(
    run: Path, census: Path, tmp_path: Path
) -> None:
    shutil.copytree(census, tmp_path / "other")
    meta = json.loads((tmp_path / "other" / "meta.json").read_text())
    meta["checkpoint"]["model"]["neurons"] = 16
    write_meta(tmp_path / "other", meta)
    before = written(run)
    for folder in (run / "census", run / "census" / "step_000000000"):
        with pytest.raises(UserError, match="1 layers of 16 neurons, not 1 of 44"):
            redraw(folder, {"support": 0.8}, tmp_path / "other", QUIET)
    assert written(run) == before
