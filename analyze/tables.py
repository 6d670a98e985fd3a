"""Firing bits -> tables: the n-grams on which a neuron fires and how often, for those neurons whose tables are kept."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64
from numba.cpython.unsafe.numbers import trailing_zeros

from analyze.carry_save import Planes, Words, add_plane, add_rows, planes_for, spill
from analyze.compiling import compiled, on_all_cores, shares
from analyze.ngrams import Ngrams
from analyze.segments import as_words

BLOCK = 6


@dataclass
class Table:
    """What the kept neurons fire on: neuron n has entries `offsets[n]:offsets[n + 1]`, in the order of n-grams."""

    kept: Bool[np.ndarray, " neuron"]  # the others have no entries
    offsets: Int64[np.ndarray, " neuron_and_end"]
    ngrams: Int32[np.ndarray, " entry"]  # number of the n-gram in the corpus
    fired: Int32[np.ndarray, " entry"]


def table(bits: UInt8[np.ndarray, "token byte"], kept: Bool[np.ndarray, " neuron"], ngrams: Ngrams) -> Table:
    """Fill the table from the bits of the kept neurons alone, which are drawn together first if they are few."""
    words = as_words(bits)
    if not 0 < 4 * kept.sum() < len(kept):
        return _filled(words, kept, ngrams)
    few = np.flatnonzero(kept)
    drawn = np.zeros((len(words), -(-len(few) // 64)), np.uint64)
    on_all_cores(_draw_together, [(words, few, drawn, a, b) for a, b in shares(np.ones(len(words)))])
    of_few = _filled(drawn, np.ones(len(few), bool), ngrams)
    sizes = np.zeros(len(kept), np.int64)
    sizes[few] = np.diff(of_few.offsets)
    return Table(kept, np.concatenate([[0], np.cumsum(sizes)]), of_few.ngrams, of_few.fired)


@compiled
def _draw_together(
    words: Words, few: Int64[np.ndarray, " kept"], drawn: UInt64[np.ndarray, "token drawn"], first: int, last: int
) -> None:
    """Bit i of a row of `drawn` is bit `few[i]` of that row of `words`."""
    for row in range(first, last):
        for w in range(drawn.shape[1]):
            together = np.uint64(0)
            for i in range(64 * w, min(64 * w + 64, len(few))):
                bit = (words[row, few[i] >> 6] >> np.uint64(few[i] & 63)) & np.uint64(1)
                together |= bit << np.uint64(i & 63)
            drawn[row, w] = together


def _filled(words: Words, kept: Bool[np.ndarray, " neuron"], ngrams: Ngrams) -> Table:
    """Two passes over the bits: one counts entries, one writes them where they belong."""
    segments = ngrams.segments
    mask = np.zeros(8 * words.shape[1], np.uint8)
    mask[: -(-len(kept) // 8)] = np.packbits(kept, bitorder="little")
    keep = mask.view(np.uint64)
    if not kept.any():
        return Table(kept, np.zeros(len(kept) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
    parts = shares(segments.sizes + 1)
    per_part = np.stack(on_all_cores(_entries, [(words, segments.order, segments.offsets, keep, a, b) for a, b in parts]))
    per_part = per_part[:, : len(kept)].astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(per_part.sum(0))])
    cursors = offsets[:-1] + np.cumsum(per_part, axis=0) - per_part
    number, fired = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
    tasks = [(words, segments.order, segments.offsets, keep, a, b, cursors[i], number, fired) for i, (a, b) in enumerate(parts)]
    on_all_cores(_fill, tasks)
    return Table(kept, offsets, number, fired)


@compiled
def _entries(
    words: Words, order: Int64[np.ndarray, " row"], offsets: Int64[np.ndarray, " end"], keep: UInt64[np.ndarray, " word"],
    first: int, last: int,
) -> Int32[np.ndarray, " neuron"]:  # fmt: skip
    """On how many of the n-grams `first` to `last` each kept neuron fires."""
    counters = np.zeros((BLOCK, words.shape[1]), np.uint64)
    ever = np.empty(words.shape[1], np.uint64)
    found = np.zeros(64 * words.shape[1], np.int32)
    for g in range(first, last):
        ever[:] = 0
        for i in range(offsets[g], offsets[g + 1]):
            row = order[i]
            for w in range(words.shape[1]):
                ever[w] |= words[row, w]
        for w in range(words.shape[1]):
            ever[w] &= keep[w]
        add_plane(counters, ever)
        if (g - first + 1) % (2**BLOCK - 1) == 0:
            spill(counters, found)
            counters[:] = 0
    spill(counters, found)
    return found


@compiled
def _fill(
    words: Words, order: Int64[np.ndarray, " row"], offsets: Int64[np.ndarray, " end"], keep: UInt64[np.ndarray, " word"],
    first: int, last: int, cursor: Int64[np.ndarray, " neuron"], number: Int32[np.ndarray, " entry"], fired: Int32[np.ndarray, " entry"],
) -> None:  # fmt: skip
    most = 0
    for g in range(first, last):
        most = max(most, offsets[g + 1] - offsets[g])
    planes, carry = np.empty((planes_for(most), words.shape[1]), np.uint64), np.empty(words.shape[1], np.uint64)
    for g in range(first, last):
        depth = planes_for(offsets[g + 1] - offsets[g])
        planes[:depth] = 0
        add_rows(words, order, offsets[g], offsets[g + 1], planes[:depth], carry)
        for w in range(words.shape[1]):
            ever = np.uint64(0)
            for d in range(depth):
                ever |= planes[d, w]
            ever &= keep[w]
            while ever:
                n = np.int64(trailing_zeros(ever))  # type: ignore[call-arg]
                ever &= ever - np.uint64(1)
                at = cursor[64 * w + n]
                cursor[64 * w + n] += 1
                number[at] = g
                fired[at] = value_of(planes[:depth], w, n)


@compiled
def value_of(planes: Planes, w: int, n: int) -> np.int64:
    """The count of bit n of word w."""
    value = np.int64(0)
    for d in range(planes.shape[0]):
        value |= np.int64((planes[d, w] >> np.uint64(n)) & np.uint64(1)) << d
    return value
