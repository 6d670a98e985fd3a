"""A run's folder of live censuses: what is in it, and what is lacking."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from checksums import read_object
from files import remove_unfinished
from locks import only_writer

SAMPLE = "sample.json"  # tokens and steps of the censuses, and what they took
DRAWING = 600.0  # seconds that a run waits for analyze/draw.py out=RUN/live to end
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


def finished(live: Path) -> list[Path]:
    """The censuses that are whole, or were, in order of their steps."""
    return sorted(folder for folder in live.glob("step_*") if is_finished(folder, damaged=True))


def lacks_census(run: Path, step: int) -> bool:
    """Whether a run was to have a live census of this step, and ended in it; or ended before what changed between them was written."""
    live = run / "live"
    try:
        sample = read_sample(live)
    except (OSError, ValueError):  # what is damaged is nobody's who has finished
        return False
    if sample is None:
        return False
    due = step in set(sample["steps"]) - set(sample.get("left_out", []))
    return (due and not is_finished(live / census_name(step))) or sample.get("compared", []) != [f.name for f in finished(live)]


def read_sample(live: Path) -> dict[str, Any] | None:
    """What is recorded of the sample; None where nothing is.

    Raises:
        ValueError: it is not what was written.
    """
    if not (live / SAMPLE).is_file():
        return None
    sample = read_object(live / SAMPLE, without=True)
    kinds = {"tokens": int, "steps": list, "asked": list, "trained": float, "seconds": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(sample.get(name), kind)]:
        raise ValueError(f"{wrong[0]} is missing")
    return sample


def recorded(live: Path, steps: list[int], tokens: int | None, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The run's sample. A damaged record is set aside, which is said: then `tokens`, else those of the censuses there, at all `steps`."""
    try:
        return read_sample(live)
    except ValueError as damage:
        (live / SAMPLE).replace(live / f"{SAMPLE}.damaged")
        tokens = tokens or _tokens_of_last(live)
        begins = f"goes on with {tokens:,} tokens" if tokens else "is chosen anew"
        say(f"{live / SAMPLE} is damaged ({damage}): it is set aside, and the sample {begins}")
    return {"asked": steps, "steps": steps, "tokens": tokens, "trained": 0.0, "seconds": {}} if tokens else None


def _tokens_of_last(live: Path) -> int | None:
    whole = [folder for folder in sorted(live.glob("step_*")) if is_finished(folder)]
    if not whole:
        return None
    corpus = json.loads((whole[-1] / "meta.json").read_text())["corpus"]
    return int(corpus["sequences"] * corpus["context"])


@contextmanager
def passing_folder(live: Path) -> Iterator[Path]:
    """A folder for what a census needs while it is taken, and nobody draws what is there: who does is waited for, within reason."""
    with only_writer(live, "out=", DRAWING), TemporaryDirectory(dir=live, prefix=PASSING) as folder:
        yield Path(folder)


def missing(live: Path, sample: dict[str, Any], before: int) -> list[int]:
    """Steps before this one that were to have a census and have none, those left out as too dear aside."""
    due = set(sample.get("steps", [])) - set(sample.get("left_out", []))
    return sorted(step for step in due if step < before and not is_finished(live / census_name(step), damaged=True))


def forget_after(live: Path, step: int) -> None:
    """Remove censuses of steps that will be made again, and what a run left that was killed in one."""
    with only_writer(live, "out=", DRAWING):
        remove_unfinished(live)
        for folder in live.glob("step_*"):
            if int(folder.name.removeprefix("step_")) > step:
                shutil.rmtree(folder)
        for left in live.glob(f"{PASSING}*"):
            shutil.rmtree(left)
