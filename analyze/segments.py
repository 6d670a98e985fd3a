"""Firing bits -> counts: every statistic is a sum of the bit matrix's rows, segment by segment, under some order of the rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8

ROWS_AT_ONCE = 16_384  # unpacked at a time: 16,384 x 3,072 neurons are 50 MB


@dataclass
class Segments:
    """An order of some rows of the bit matrix, cut into segments: segment s is rows `order[offsets[s]:offsets[s + 1]]`."""

    order: Int64[np.ndarray, " row"]
    offsets: Int64[np.ndarray, " segment_and_end"]

    @property
    def sizes(self) -> Int64[np.ndarray, " segment"]:
        """Rows in every segment."""
        return np.diff(self.offsets)


def segments_of(keys: Int[np.ndarray, " row"], counted: Bool[np.ndarray, " row"], segments: int) -> Segments:
    """Rows with the same key form a segment; rows that are not counted are left out."""
    rows = np.flatnonzero(counted)
    order = rows[np.argsort(keys[rows], kind="stable")]
    sizes = np.bincount(keys[rows], minlength=segments)
    return Segments(order, np.concatenate([[0], np.cumsum(sizes)]))


def segment_counts(
    bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments
) -> Int32[np.ndarray, "segment neuron"]:
    """How often every neuron fires in every segment. Rows are unpacked some thousands at a time."""
    counts = np.zeros((len(segments.offsets) - 1, neurons), np.int32)
    owner = np.repeat(np.arange(len(counts)), segments.sizes)
    for begin in range(0, len(segments.order), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        fires = np.unpackbits(bits[segments.order[rows]], axis=1, count=neurons, bitorder="little")
        owners, starts = np.unique(owner[rows], return_index=True)
        counts[owners] += np.add.reduceat(fires, starts, axis=0, dtype=np.int32)
    return counts
