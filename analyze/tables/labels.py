"""Words and choices that tables, figures and pages share: the label of a step, some of many items."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def step_label(step: int | None) -> str:
    """A training step as a label."""
    return "step unknown" if step is None else f"step {step:,}"


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)] if most > 1 else [items[-1]]
