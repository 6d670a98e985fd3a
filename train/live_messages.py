"""What is said of live censuses: how many, of how much text, and which settings give more."""

import math
from collections.abc import Sequence


def chosen_words(
    tokens: int, steps: Sequence[int], asked: int, share: float, of_training: float, each: float, needed: float
) -> str:
    """What a trial found: so many tokens at these of the steps asked for. `each` census takes so many seconds; all need this share."""
    listed = f"steps {', '.join(f'{step:,}' for step in steps)}" if steps else "none"
    said = f"live censuses of {tokens:,} tokens at {len(steps)} of {asked} steps, in {100 * share:g} % of {of_training:.0f} s: {listed}"
    if len(steps) == asked:
        return said
    larger = f"live.share={math.ceil(100 * needed) / 100:g} takes all, and so does " if needed <= 1 else "all are taken by "
    return f"{said}; one takes {each:.2f} s: {larger}live.tokens={tokens}, whatever the time"


def missed_words(steps: Sequence[int]) -> str:
    """That censuses are missing for good."""
    return f"no live census at steps {', '.join(f'{step:,}' for step in steps)}: no weights are kept of them to take it from"
