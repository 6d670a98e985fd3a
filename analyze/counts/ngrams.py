"""Token ids -> the corpus' n-grams: which there are, and the rows of the bit matrix at which each one ends."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32, Int64

from analyze.firing.segment_sum import Segments, ordered

NAMES = {1: "unigrams", 2: "bigrams", 3: "trigrams"}
RARE = 15  # an n-gram that occurs more often is common


@dataclass
class Ngrams:
    """The n-grams that end at counted positions, in lexicographic order; segment i is where n-gram i ends.

    For n = 1 every id of the vocabulary has a segment, if an empty one: n-gram i is token i.
    """

    ids: Int32[np.ndarray, "ngram n"]  # -1 stands before the start of a sequence
    segments: Segments

    @property
    def occurrences(self) -> Int64[np.ndarray, " ngram"]:
        """How often each occurs at counted positions."""
        return self.segments.sizes

    @cached_property
    def rare(self) -> list[Int32[np.ndarray, "ngram occurrence"]]:
        """Rows of the n-grams that occur once, twice, ... `RARE` times."""
        sizes, starts = self.segments.sizes, self.segments.offsets[:-1]
        return [self.segments.order[starts[sizes == size][:, None] + np.arange(size)] for size in range(1, RARE + 1)]

    @cached_property
    def common(self) -> Segments:
        """The segments of those that occur more often."""
        sizes = self.segments.sizes
        chosen = sizes > RARE
        return ordered(self.segments.order[np.repeat(chosen, sizes)], sizes[chosen])


def ngrams(
    ids: Int32[np.ndarray, "sequence position"], counted: Bool[np.ndarray, "sequence position"], n: int, vocabulary: int
) -> Ngrams:
    """Find the n-grams of sequences, none of them across two sequences, and order the rows by them.

    An n-gram is one 64-bit key, its ids as digits of a number; so lexicographic order is that of keys.
    """
    base = vocabulary + 1
    assert base**n < 2**63, f"{vocabulary} ids are too many for 64-bit keys"
    keys = np.zeros(ids.shape, np.int64)
    for back in reversed(range(n)):
        keys *= base
        keys[:, back:] += ids[:, : ids.shape[1] - back] + 1  # the sentinel is digit 0
    rows = np.flatnonzero(counted)
    order = np.argsort(keys.ravel()[rows], kind="stable")
    in_order = keys.ravel()[rows[order]]
    if n == 1:
        found, sizes = np.arange(1, base), np.bincount(in_order - 1, minlength=vocabulary)
    else:
        found, sizes = np.unique(in_order, return_counts=True)
    digits = found[:, None] // base ** np.arange(n - 1, -1, -1) % base - 1
    return Ngrams(digits.astype(np.int32), ordered(rows[order], sizes))
