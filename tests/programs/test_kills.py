"""Programs that die by kill -9 at random moments go on to the same bytes; all fifty moments of each are tests/kills.py."""

import os
import signal
from pathlib import Path

import pytest
import tiny
from kills import content, jobs, kill
from processes import started

from train.config import TrainConfig
from train.folder import last_checkpoint
from train.training import train

SECONDS = 90  # that the long proof takes of each program at most


def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    found = kill(jobs(tmp_path)["preparing"], tmp_path / "preparing", kills=1, seed=0)
    assert found.kills == 1 and found.ends >= 1 and found.differing == 0


@pytest.mark.long
def test_programs_that_are_killed_at_fifty_moments_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    """For lack of time at fewer moments, whose number is printed."""
    for name, job in jobs(tmp_path).items():
        found = kill(job, tmp_path / name, kills=50, seed=0, seconds=SECONDS)
        print(name, found)
        assert found.kills and found.ends and found.differing == 0, (name, found)
        job.hand_on(tmp_path / name, tmp_path)


def begin_anew(config: TrainConfig) -> None:
    """Train, and die by kill -9 when a milestone that is in the way has been moved aside, before the new one takes its place."""
    renames, rename = list[Path](), Path.rename

    def dying(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        train(config, [])


def test_a_milestone_is_made_again_where_a_run_was_killed_while_replacing_it(tmp_path: Path) -> None:
    """A run that is begun anew replaces the milestones that are there."""
    config = tiny.training(tiny.text_corpus(tmp_path / "text"), tmp_path, steps=1, milestones=[1])
    milestone = train(config, []) / "milestones" / "step_000000001"
    whole = content(milestone)
    (milestone / "model.safetensors").write_bytes(b"older")
    last_checkpoint(tmp_path / "run").unlink()
    killed = started(begin_anew, config, log=tmp_path / "said.txt")
    assert killed.code() == -signal.SIGKILL and not milestone.exists() and list(milestone.parent.glob(".*"))
    train(config, [])
    assert content(milestone) == whole and not list((tmp_path / "run").rglob(".*"))


def test_another_byte_is_seen(tmp_path: Path) -> None:
    """What is compared is every file, but for what the clock says in it."""
    (tmp_path / "live").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.5, "time": 1}\n')
    (tmp_path / "live" / "meta.json").write_text('{"seconds": {"total": 1}, "n": [{"seconds": 2, "dead": 3}]}')
    before = content(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.5, "time": 2}\n')
    (tmp_path / "live" / "meta.json").write_text('{"seconds": {"total": 2}, "n": [{"seconds": 9, "dead": 3}]}')
    assert content(tmp_path) == before
    (tmp_path / "live" / "meta.json").write_text('{"seconds": {"total": 2}, "n": [{"seconds": 9, "dead": 4}]}')
    (tmp_path / ".left").touch()
    assert {name for name, file in content(tmp_path).items() if before.get(name) != file} == {"live/meta.json", ".left"}
