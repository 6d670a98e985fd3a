"""Counts of neighbouring neurons -> counts of all: what the ranks counted becomes one layer's file."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist

from analyze.census.distributed import Ranks, connected, received, sent
from analyze.counts.layer import LayerCounts
from analyze.storage.stored import arrays_of, narrow

SENT_AT_ONCE = 1 << 26  # bytes


def joined_array(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array of all neurons. Neurons, and what each has several of, stand along the last axis; offsets go on from part to part."""
    if not name.endswith("offsets"):
        return np.concatenate(parts, axis=-1)
    before = np.cumsum([0, *(int(part[-1]) for part in parts)])
    return np.concatenate(
        [parts[0][:1], *(part[1:].astype(np.int64) + start for part, start in zip(parts, before, strict=False))]
    )


def collected(counts: LayerCounts | None, ranks: Ranks) -> Mapping[str, np.ndarray] | None:
    """On the first rank the narrow arrays of all neurons, from every rank's (None: it has none to count); elsewhere None.

    One array after another goes to the first rank, so that it never holds more than its own, one of the others' and what is to be stored.
    """
    mine = {} if counts is None else {name: narrow(array) for name, array in arrays_of(counts).items()}
    del counts
    all_said: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}] * ranks.world
    with connected():
        said = {name: (array.dtype.str, array.shape) for name, array in mine.items()}
        dist.gather_object(said, all_said if ranks.first else None, group=ranks.counting)
    if not ranks.first:
        for array in mine.values():
            sent(_as_bytes(array), 0, ranks, SENT_AT_ONCE)
        return None
    return {name: narrow(joined_array(name, [mine.pop(name), *_theirs(name, all_said, ranks)])) for name in list(mine)}


def _theirs(name: str, said: list[dict[str, tuple[str, tuple[int, ...]]]], ranks: Ranks) -> list[np.ndarray]:
    found = []
    for rank in range(1, ranks.world):
        if name in said[rank]:
            kind, shape = said[rank][name]
            found.append(np.empty(shape, kind))
            received(_as_bytes(found[-1]), rank, ranks, SENT_AT_ONCE)
    return found


def _as_bytes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.reshape(-1).view(np.uint8))
