"""A run's folder of live censuses: what is in it, and what is lacking."""

import json
import shutil
from pathlib import Path
from typing import Any

SAMPLE = "sample.json"  # tokens and steps of the censuses, and what they took
PASSING = ".passing-"  # a folder of this name is no census


def census_name(step: int) -> str:
    """The folder of the census of a step."""
    return f"step_{step:09d}"


def is_finished(census: Path) -> bool:
    """Whether a census is whole: its meta.json is complete at the very end."""
    meta = census / "meta.json"
    return meta.is_file() and "title" in json.loads(meta.read_text())


def lacks_census(run: Path, step: int) -> bool:
    """Whether a run was to have a live census of this step, and ended in it."""
    file = run / "live" / SAMPLE
    if not file.is_file():
        return False
    sample = json.loads(file.read_text())
    return step in set(sample["steps"]) - set(sample.get("left_out", [])) and not is_finished(run / "live" / census_name(step))


def missing(live: Path, sample: dict[str, Any], before: int) -> list[int]:
    """Steps before this one that were to have a census and have none, those left out as too dear aside."""
    due = set(sample.get("steps", [])) - set(sample.get("left_out", []))
    return sorted(step for step in due if step < before and not is_finished(live / census_name(step)))


def forget_after(live: Path, step: int) -> None:
    """Remove censuses of steps that will be made again, and what a run left that was killed in one."""
    for folder in live.glob("step_*"):
        if int(folder.name.removeprefix("step_")) > step:
            shutil.rmtree(folder)
    for left in live.glob(f"{PASSING}*"):
        shutil.rmtree(left)
