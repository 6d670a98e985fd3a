"""Firing bits -> counts: every statistic is a sum of the bit matrix's rows, segment by segment, under some order of the rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8, UInt64

from analyze import carry_save, carry_save_triton

ROWS_AT_ONCE = 16_384  # unpacked at a time by the reference: 16,384 x 3,072 neurons are 50 MB
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


def by_numpy(bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments) -> Int32[np.ndarray, "segment neuron"]:
    """The reference: rows are unpacked, some thousands at a time, and added."""
    counts = np.zeros((len(segments), neurons), np.int32)
    owner = np.repeat(np.arange(len(segments)), segments.sizes)
    for begin in range(0, len(segments.order), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        fires = np.unpackbits(bits[segments.order[rows]], axis=1, count=neurons, bitorder="little")
        owners, starts = np.unique(owner[rows], return_index=True)
        counts[owners] += np.add.reduceat(fires, starts, axis=0, dtype=np.int32)
    return counts


def by_numba(bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments) -> Int32[np.ndarray, "segment neuron"]:
    """Carry-save adders on words of 64 neurons, on all cores."""
    return carry_save.counts(as_words(bits), segments.order, segments.offsets)[:, :neurons]


def by_triton(bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments) -> Int32[np.ndarray, "segment neuron"]:
    """The same on a GPU; on a CPU with TRITON_INTERPRET=1."""
    return carry_save_triton.counts(bits, neurons, segments.order, segments.offsets)


KERNELS: dict[str, Callable[[UInt8[np.ndarray, "token byte"], int, Segments], Int32[np.ndarray, "segment neuron"]]] = {
    "numpy": by_numpy,
    "numba": by_numba,
    "triton": by_triton,
}


def segment_counts(
    bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments, kernel: str = "numba"
) -> Int32[np.ndarray, "segment neuron"]:
    """How often every neuron fires in every segment."""
    return KERNELS[kernel](bits, neurons, segments)


def counts_in_chunks(
    bits: UInt8[np.ndarray, "token byte"], neurons: int, segments: Segments, kernel: str = "numba"
) -> Iterator[tuple[int, Int32[np.ndarray, "segment neuron"]]]:
    """The same, some whole segments at a time: the number of the first one, and their counts."""
    at_once = max(1, COUNTS_AT_ONCE // neurons)
    for first in range(0, len(segments), at_once):
        part = segments.part(first, min(first + at_once, len(segments)))
        yield first, segment_counts(bits, neurons, part, kernel)
