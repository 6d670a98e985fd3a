"""Firing bits -> tallies: of every neuron, how many n-grams it fires on how often. Answers any threshold, for a few numbers a neuron.

An n-gram that occurs up to `RARE` times has a cell for each pair (occurrences, firings). One that occurs more often is counted
twice: by firings (below `MANY` in a histogram, else in a list), and by the share of its occurrences at which the neuron fires.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8, UInt64

from analyze.counts.ngrams import RARE, Ngrams
from analyze.firing.bit_sliced import Planes, Words, add_plane, add_rows, counts, planes_for, spill
from analyze.firing.device_sums import DeviceSums
from analyze.firing.segment_sum import HostSums, as_words
from analyze.jit import compiled, on_all_cores, shares

MANY = 256
CELLS = RARE * (RARE + 1) // 2
BLOCK = 6  # planes of counters that are spilled every 63 n-grams
SQUARE = 32  # rows and columns that are transposed together


@dataclass
class Tally:
    """How many n-grams of one n every neuron fires on, and how often."""

    rare: Int32[np.ndarray, "cell neuron"]  # n-grams that occur o times and make it fire f times stand in cell(o, f)
    common: Int32[np.ndarray, "firings neuron"]  # common n-grams on which it fires so often, below MANY
    many_offsets: Int64[np.ndarray, " neuron_and_end"]
    many: Int32[np.ndarray, " entry"]  # firings on each of its other common n-grams, ascending
    levels: Int64[np.ndarray, "percent neuron"]  # firings on common n-grams at which it fires (rounded down) so many percent

    @property
    def n_fired(self) -> Int64[np.ndarray, " neuron"]:
        """Firings on all n-grams."""
        total: Int64[np.ndarray, " neuron"] = self.levels.sum(0) + (FIRED[:, None] * self.rare).sum(0)
        return total


OCCURS = np.repeat(np.arange(1, RARE + 1), np.arange(1, RARE + 1))  # by cell
FIRED: np.ndarray = np.concatenate([np.arange(1, o + 1) for o in range(1, RARE + 1)])  # by cell


def cell(occurs: Int[np.ndarray, " ngram"], fired: Int[np.ndarray, " ngram"]) -> Int[np.ndarray, " ngram"]:
    """The row of `rare` for n-grams that occur, and make a neuron fire, so often."""
    return np.asarray(occurs * (occurs - 1) // 2 + fired - 1)


def tally(
    bits: UInt8[np.ndarray, "token byte"], neurons: int, ngrams: Ngrams, sums: HostSums | DeviceSums | None = None
) -> Tally:
    """Tally every neuron of a layer over one kind of n-grams; `sums` of the same bits count the common ones, if given."""
    words = as_words(bits)
    width = 64 * words.shape[1]
    rare = np.zeros((CELLS, width), np.int32)
    once = ngrams.rare[0][:, 0]  # most n-grams by far; together they are one segment
    rare[0] = counts(words, once, np.array([0, len(once)], np.int32))[0]
    for size, rows in enumerate(ngrams.rare[1:], start=2):
        first = size * (size - 1) // 2
        tasks = [(words, rows[a:b]) for a, b in shares(np.ones(len(rows)))] if len(rows) > 500 else [(words, rows)]
        for found in on_all_cores(_tally_rare, tasks):
            rare[first : first + size] += found
    common, levels = np.zeros((neurons, MANY), np.int32), np.zeros((neurons, 101), np.int64)
    owners, many = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    sizes = ngrams.common.sizes
    for begin, chunk in (sums or HostSums(bits, neurons)).in_chunks(ngrams.common):
        occurs = sizes[begin : begin + len(chunk)]
        on_all_cores(_tally_common, [(chunk, occurs, common, levels, a, b) for a, b in shares(np.ones(neurons))])
        where, neuron = np.nonzero(chunk[occurs >= MANY] >= MANY)
        owners.append(neuron)
        many.append(chunk[occurs >= MANY][where, neuron])
    owner, fired = np.concatenate(owners), np.concatenate(many)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=neurons))])
    ascending = np.sort(owner << 32 | fired).astype(np.int32)  # the lower half: by neuron, then by firings
    return Tally(rare[:, :neurons].copy(), turned(common), offsets, ascending, turned(levels))


@compiled
def _tally_rare(words: Words, rows: Int32[np.ndarray, "ngram occurrence"]) -> Int32[np.ndarray, "firings neuron"]:
    """Of n-grams that occur equally often: on how many does each neuron fire once, twice, ... ."""
    size, width = rows.shape[1], words.shape[1]
    depth = planes_for(size)
    planes, carry = np.empty((depth, width), np.uint64), np.empty(width, np.uint64)
    counters = np.zeros((size, BLOCK, width), np.uint64)
    found = np.zeros((size, 64 * width), np.int32)
    for g in range(rows.shape[0]):
        planes[:] = 0
        add_rows(words, rows[g], 0, size, planes, carry)
        for fired in range(1, size + 1):
            equal_to(planes, fired, carry)
            add_plane(counters[fired - 1], carry)
        if (g + 1) % (2**BLOCK - 1) == 0 or g + 1 == rows.shape[0]:
            for fired in range(size):
                spill(counters[fired], found[fired])
            counters[:] = 0
    return found


@compiled
def equal_to(planes: Planes, value: int, which: UInt64[np.ndarray, " word"]) -> None:
    """Set the bits of neurons whose bit-sliced count is `value`."""
    which[:] = ~np.uint64(0)
    for d in range(planes.shape[0]):
        differs = ~np.uint64(0) if not (value >> d) & 1 else np.uint64(0)
        for w in range(planes.shape[1]):
            which[w] &= planes[d, w] ^ differs


@compiled
def _tally_common(
    counts: Int32[np.ndarray, "ngram neuron"], occurs: Int64[np.ndarray, " ngram"],
    common: Int32[np.ndarray, "neuron firings"], levels: Int64[np.ndarray, "neuron percent"], first: int, last: int,
) -> None:  # fmt: skip
    for g in range(counts.shape[0]):
        size = occurs[g]
        for neuron in range(first, last):
            fired = np.int64(counts[g, neuron])
            if fired:
                levels[neuron, 100 * fired // size] += fired
                if fired < MANY:
                    common[neuron, fired] += 1


def turned(array: Int[np.ndarray, "row column"]) -> Int[np.ndarray, "column row"]:
    """The transpose, contiguous; square by square, since numpy's way takes a line of the cache for every number."""
    found = np.empty(array.shape[::-1], array.dtype)
    on_all_cores(_turn, [(array, found, a, b) for a, b in shares(np.ones(len(array)))])
    return found


@compiled
def _turn(array: Int[np.ndarray, "row column"], found: Int[np.ndarray, "column row"], first: int, last: int) -> None:
    for top in range(first, last, SQUARE):
        for left in range(0, array.shape[1], SQUARE):
            for column in range(left, min(left + SQUARE, array.shape[1])):
                for row in range(top, min(top + SQUARE, last)):
                    found[column, row] = array[row, column]


def covering(tally: Tally, coverage: int) -> Int64[np.ndarray, " neuron"]:
    """k_n: the least number of n-grams that together make up `coverage` percent of a neuron's firings; 0 for a dead neuron."""
    few = tally.common[: RARE + 1].astype(np.int64)
    for fired in range(1, RARE + 1):
        few[fired] += tally.rare[fired == FIRED].sum(0)
    asked, taken = coverage * tally.n_fired, np.zeros(tally.common.shape[1], np.int64)
    of_all = (few, tally.common, tally.many_offsets, tally.many, asked, taken)
    on_all_cores(_cover, [(*of_all, a, b) for a, b in shares(np.ones(len(asked)))])
    return taken


@compiled
def _cover(
    few: Int64[np.ndarray, "firings_up_to_rare neuron"], common: Int32[np.ndarray, "firings neuron"],
    many_offsets: Int64[np.ndarray, " end"], many: Int32[np.ndarray, " entry"], asked: Int64[np.ndarray, " neuron"],
    taken: Int64[np.ndarray, " neuron"], first: int, last: int,
) -> None:  # fmt: skip
    """Take n-grams by most firings until a hundred times what they cover is what is asked."""
    missing = asked[first:last].copy()
    for neuron in range(first, last):
        for entry in range(many_offsets[neuron + 1] - 1, many_offsets[neuron] - 1, -1):
            if missing[neuron - first] > 0:
                missing[neuron - first] -= 100 * many[entry]
                taken[neuron] += 1
    for firings in range(len(common) - 1, 0, -1):
        for neuron in range(first, last):
            ngrams = few[firings, neuron] if firings < len(few) else np.int64(common[firings, neuron])
            if ngrams and missing[neuron - first] > 0:
                needed = -(-missing[neuron - first] // (100 * firings))
                more = min(needed, ngrams)
                missing[neuron - first] -= 100 * more * firings
                taken[neuron] += more


def on_detected(
    tally: Tally, detection: int, min_occurrences: int, support_occurrences: int
) -> tuple[Int64[np.ndarray, " neuron"], Int64[np.ndarray, " neuron"]]:
    """Firings on n-grams at which a neuron fires `detection` percent of the times they occur; and on those that occur often enough.

    Both kinds of occurrences must be at most `RARE + 1`.
    """
    assert max(min_occurrences, support_occurrences) <= RARE + 1
    detects = (detection * OCCURS <= 100 * FIRED) & (min_occurrences <= OCCURS)
    common = tally.levels[detection:].sum(0)
    often = detects & (support_occurrences <= OCCURS)
    firings = FIRED[:, None] * tally.rare
    return common + firings[detects].sum(0), common + firings[often].sum(0)
