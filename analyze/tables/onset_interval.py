"""Censuses of a run -> between which two of them neurons of a kind appear: nobody knows what lies between, or follows the last."""

from collections.abc import Sequence
from pathlib import Path

from analyze.tables.census import Census, open_census
from analyze.tables.labels import step_label


def every_census(milestones: Sequence[Census]) -> list[Census]:
    """The censuses of one run's milestones, and those taken while it trained with the same thresholds, in order of their steps.

    Of two of one step it is the milestone's, which reads more.
    """
    first = milestones[0]
    places = [first.path.parent.parent, Path(str(first.meta["checkpoint"].get("path", ""))).parent.parent]
    folders = next((found for place in places if (found := sorted((place / "live").glob("step_*")))), [])
    live = [open_census(folder) for folder in folders if (folder / "neurons.parquet").is_file()]
    alike = [
        census for census in live if (census.run, census.meta.get("thresholds")) == (first.run, first.meta.get("thresholds"))
    ]
    by_step = {census.step: census for census in (*alike, *milestones)}
    return [by_step[step] for step in sorted(by_step, key=lambda step: -1 if step is None else step)]


def appearance(counts: Sequence[tuple[int | None, int]], what: str) -> str:
    """When neurons of a kind appear, from their number at the step of every census of a run, in order."""
    with_some = [place for place, (_, count) in enumerate(counts) if count]
    last = len(counts) - 1
    if not with_some:
        return f"No census up to {step_label(counts[-1][0])} has any {what}."
    first = with_some[0]
    step, count = counts[first]
    if first == 0:
        found = f"The first census, at {step_label(step)}, has {what}s already ({count:,})"
    elif first == last:
        before = step_label(counts[first - 1][0])
        return f"The last census alone, at {step_label(step)}, has {what}s ({count:,}); at {before} there was none."
    else:
        found = f"The first {what}s appear between {step_label(counts[first - 1][0])} and {step_label(step)} ({count:,})"
    if first == last:
        return f"{found}."
    without = last - first + 1 - len(with_some)
    return f"{found}; {f'{without:,} of the {last - first:,} later censuses have none' if without else 'every later census has some'}."
