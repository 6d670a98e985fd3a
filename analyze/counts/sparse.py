"""Firing bits -> tables: the n-grams on which a neuron fires and how often, for those neurons whose tables are kept."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64
from numba.cpython.unsafe.numbers import trailing_zeros

from analyze.counts.ngrams import Ngrams
from analyze.firing.bit_sliced import Planes, Words, add_rows, planes_for
from analyze.firing.segment_sum import as_words
from analyze.jit import compiled, on_all_cores, shares


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
    """One pass over the bits finds the entries, n-gram by n-gram; then they are put in the order of neurons."""
    segments = ngrams.segments
    mask = np.zeros(8 * words.shape[1], np.uint8)
    mask[: -(-len(kept) // 8)] = np.packbits(kept, bitorder="little")
    parts = shares(segments.sizes + 1) if kept.any() else []
    found = on_all_cores(_entries, [(words, segments.order, segments.offsets, mask.view(np.uint64), a, b) for a, b in parts])
    nothing = (np.zeros(0, np.int32),) * 3
    owner, number, fired = (np.concatenate(column) for column in zip(nothing, *found, strict=True))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(kept)))])
    return Table(kept, offsets, *_by_neuron(owner, number, fired, offsets[:-1].copy()))


@compiled
def _entries(
    words: Words, order: Int32[np.ndarray, " row"], offsets: Int32[np.ndarray, " end"], keep: UInt64[np.ndarray, " word"],
    first: int, last: int,
) -> tuple[Int32[np.ndarray, " entry"], Int32[np.ndarray, " entry"], Int32[np.ndarray, " entry"]]:  # fmt: skip
    """Neuron, n-gram and firings, for the n-grams `first` to `last` and every kept neuron that fires on them."""
    most = 0
    for g in range(first, last):
        most = max(most, offsets[g + 1] - offsets[g])
    planes, carry = np.empty((planes_for(most), words.shape[1]), np.uint64), np.empty(words.shape[1], np.uint64)
    entries, room = 0, 4096
    found = np.empty((3, room), np.int32)
    for g in range(first, last):
        if not _any_fires(words, order[offsets[g] : offsets[g + 1]], keep):
            continue
        if entries + 64 * words.shape[1] > room:
            room = 2 * room + 64 * words.shape[1]
            more = np.empty((3, room), np.int32)
            more[:, :entries] = found[:, :entries]
            found = more
        depth = planes_for(offsets[g + 1] - offsets[g])
        counted = planes[:depth]
        if depth == 1:  # most n-grams occur once
            counted[0] = words[order[offsets[g]]]
        else:
            counted[:] = 0
            add_rows(words, order, offsets[g], offsets[g + 1], counted, carry)
        for w in range(words.shape[1]):
            ever = np.uint64(0)
            for d in range(depth):
                ever |= counted[d, w]
            ever &= keep[w]
            while ever:
                n = np.int64(trailing_zeros(ever))  # type: ignore[call-arg]
                ever &= ever - np.uint64(1)
                found[0, entries], found[1, entries], found[2, entries] = 64 * w + n, g, value_of(counted, w, n)
                entries += 1
    return found[0, :entries].copy(), found[1, :entries].copy(), found[2, :entries].copy()


@compiled
def _any_fires(words: Words, rows: Int32[np.ndarray, " row"], keep: UInt64[np.ndarray, " word"]) -> bool:
    """Whether a kept neuron fires in some row: in most there is none."""
    for row in rows:
        fires = np.uint64(0)
        for w in range(words.shape[1]):
            fires |= words[row, w] & keep[w]
        if fires:
            return True
    return False


@compiled
def _by_neuron(
    owner: Int32[np.ndarray, " entry"], number: Int32[np.ndarray, " entry"], fired: Int32[np.ndarray, " entry"],
    cursor: Int64[np.ndarray, " neuron"],
) -> tuple[Int32[np.ndarray, " entry"], Int32[np.ndarray, " entry"]]:  # fmt: skip
    """The entries of every neuron together, from where its cursor stands; those of one neuron stay in order."""
    numbers, firings = np.empty_like(number), np.empty_like(fired)
    for i in range(len(owner)):
        at = cursor[owner[i]]
        cursor[owner[i]] += 1
        numbers[at], firings[at] = number[i], fired[i]
    return numbers, firings


@compiled
def value_of(planes: Planes, w: int, n: int) -> np.int64:
    """The count of bit n of word w."""
    value = np.int64(0)
    for d in range(planes.shape[0]):
        value |= np.int64((planes[d, w] >> np.uint64(n)) & np.uint64(1)) << d
    return value
