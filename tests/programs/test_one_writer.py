"""Whatever program writes a folder is refused while another process writes it; what only lies in it is another folder."""

from pathlib import Path

import pytest
import tiny
from processes import start_program
from test_locks import held

import locks
from analyze.pipeline import analyze
from errors import UserError

ELSEWHERE = "error: {folder} is being written by process {pid} on "
PROGRAMS = {  # what is run, and the folder it would write
    "a census": (["analyze/run.py", "ckpt=model", "corpus=tokens", "corpus.path=ids.npy", "out=out"], "out"),
    "the censuses of a run": (["analyze/run.py", "ckpt=run"], "run/census"),
    "drawing a census": (["analyze/draw.py", "out=census"], "census"),
    "drawing the censuses of a run": (["analyze/draw.py", "out=run/live"], "run/live"),
    "drawing one of them": (["analyze/draw.py", "out=run/live"], "run/live/step_000000001"),
    "comparing": (["analyze/compare.py", "runs=[run]", "out=page"], "page"),
    "adding up": (["scripts/merge_censuses.py", "census", "census", "sum"], "sum"),
    "an untrained model": (["scripts/untrained.py", "model", "new"], "new"),
    "a model for timing": (["scripts/synthesize_checkpoint.py", "8m", "new"], "new"),
}


def impatient() -> None:
    locks.PATIENCE = 0.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and tokens; a run and a census that nobody looks into."""
    folder = tmp_path_factory.mktemp("writers")
    tiny.saved(folder / "model", tiny.random_model())
    tiny.tokens_corpus(folder / "ids.npy", tiny.random_ids())
    (folder / "run" / "milestones" / "step_000000001").mkdir(parents=True)
    for census in ("census", "run/live/step_000000001"):
        (folder / census).mkdir(parents=True)
        (folder / census / "meta.json").write_text("{}")
    return folder


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_folder_has_one_writer(what: str, place: Path) -> None:
    (name, *words), folder = PROGRAMS[what]
    with held(place / folder) as other:
        program = start_program(name, *words, cwd=place, before=impatient)
        assert program.code() == 1, program.said
    assert program.said.splitlines()[-1].startswith(ELSEWHERE.format(folder=folder, pid=other.pid)), program.said
    assert not (place / "sum").exists() and not (place / "new").exists()
    (place / "said.txt").unlink()


def test_a_run_that_trains_does_not_keep_its_censuses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    ids = tiny.tokens_corpus(place / "ids.npy", tiny.random_ids())
    with held(place / "run"), pytest.raises(UserError, match="step_000000001") as mistake:
        analyze(tiny.analysis(place / "run", ids, place / "run" / "census"))
    assert "is being written" not in str(mistake.value)
