"""A run's folder of live censuses: what is in it, and what is lacking."""

import json
import shutil
from pathlib import Path

from checksums import read_object

SAMPLE = "sample.json"  # tokens and steps of the censuses, and what they took
PASSING = ".passing-"  # a folder of this name is no census


def census_name(step: int) -> str:
    """The folder of the census of a step."""
    return f"step_{step:09d}"


def is_finished(census: Path, damaged: bool = False) -> bool:
    """Whether a census is whole: its meta.json is complete at the very end. `damaged`: what to answer of one that is not to be read."""
    try:
        return "title" in read_object(census / "meta.json", without=True)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return damaged


def lacks_census(run: Path, step: int) -> bool:
    """Whether a run was to have a live census of this step, and ended in it."""
    file = run / "live" / SAMPLE
    if not file.is_file():
        return False
    sample = json.loads(file.read_text())
    return step in set(sample["steps"]) - set(sample.get("left_out", [])) and not is_finished(run / "live" / census_name(step))


def forget_after(live: Path, step: int) -> None:
    """Remove censuses of steps that will be made again, and what a run left that was killed in one."""
    for folder in live.glob("step_*"):
        if int(folder.name.removeprefix("step_")) > step:
            shutil.rmtree(folder)
    for left in live.glob(f"{PASSING}*"):
        shutil.rmtree(left)
