"""Firing bits -> counts: every statistic is a sum of the bit matrix's rows, segment by segment, under some order of the rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8, UInt64

from analyze.firing import bit_sliced as carry_save

COUNTS_AT_ONCE = 4_194_304  # integers of a chunk: 16 MB


@dataclass
class Segments:
    """An order of some rows of the bit matrix, cut into segments: segment s is rows `order[offsets[s]:offsets[s + 1]]`."""

    order: Int32[np.ndarray, " row"]
    offsets: Int32[np.ndarray, " segment_and_end"]

    @property
    def sizes(self) -> Int64[np.ndarray, " segment"]:
        """Rows in every segment."""
        return np.diff(self.offsets).astype(np.int64)

    def __len__(self) -> int:
        """How many segments."""
        return len(self.offsets) - 1

    def part(self, first: int, last: int) -> "Segments":
        """Segments `first` to `last`, without `last`."""
        offsets = self.offsets[first : last + 1]
        return Segments(self.order[offsets[0] : offsets[-1]], offsets - offsets[0])


def segments_of(keys: Int[np.ndarray, " row"], counted: Bool[np.ndarray, " row"], segments: int) -> Segments:
    """Rows with the same key form a segment; rows that are not counted are left out."""
    rows = np.flatnonzero(counted)
    order = rows[np.argsort(keys[rows], kind="stable")]
    return ordered(order, np.bincount(keys[rows], minlength=segments))


def ordered(order: Int[np.ndarray, " row"], sizes: Int[np.ndarray, " segment"]) -> Segments:
    """Neighbouring segments of these sizes."""
    assert len(order) < 2**31, "the bits of so many rows fit into no memory"
    return Segments(order.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


def as_words(bits: UInt8[np.ndarray, "token byte"]) -> UInt64[np.ndarray, "token word"]:
    """The same bits, 64 neurons a word. Nothing is copied if rows are whole words, as `packed` makes them."""
    missing = -bits.shape[1] % 8
    whole = np.pad(bits, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(bits)
    return whole.view(np.uint64)


@dataclass
class HostSums:
    """Sums of the rows of a bit matrix in main memory: carry-save adders on words of 64 neurons, on all cores."""

    bits: UInt8[np.ndarray, "token byte"]
    neurons: int

    def whole(self, segments: Segments) -> Int32[np.ndarray, "segment neuron"]:
        """How often every neuron fires in every segment."""
        return carry_save.counts(as_words(self.bits), segments.order, segments.offsets)[:, : self.neurons]

    def in_chunks(self, segments: Segments) -> Iterator[tuple[int, Int32[np.ndarray, "segment neuron"]]]:
        """The same, some whole segments at a time: the number of the first one, and their counts."""
        at_once = max(1, COUNTS_AT_ONCE // self.neurons)
        for first in range(0, len(segments), at_once):
            yield first, self.whole(segments.part(first, min(first + at_once, len(segments))))
