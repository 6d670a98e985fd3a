"""Programs that die by kill -9 at random moments go on to the same bytes; all fifty moments of each are tests/kills.py."""

from pathlib import Path

import pytest
from kills import content, jobs, kill

SECONDS = 150  # that the long proof takes of each program at most


def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    found = kill(jobs(tmp_path)["preparing"], tmp_path / "preparing", kills=2, seed=0, seconds=20)
    assert found.ends >= 1 and found.differing == 0


@pytest.mark.long
def test_programs_that_are_killed_at_fifty_moments_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    """For lack of time at fewer moments, whose number is printed."""
    for name, job in jobs(tmp_path).items():
        found = kill(job, tmp_path / name, kills=50, seed=0, seconds=SECONDS)
        print(name, found)
        assert found.kills and found.ends and found.differing == 0, (name, found)
        job.hand_on(tmp_path / name, tmp_path)


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
