"""Counts -> what triggers a neuron: how many n-grams cover it, and which it detects (sections 4.1 and 4.2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from analyze.config import Thresholds
from analyze.counts.layer import KEPT_COVERAGE, Index, LayerCounts, NgramCounts
from analyze.counts.ngram_histograms import covering, on_detected
from analyze.counts.sparse import Table
from errors import UserError


@dataclass(frozen=True)
class Detectors:
    """Answers about the n-grams of one n for every neuron of a layer. Integers are compared with integers, never a rounded share."""

    covering: Int[np.ndarray, " neuron"]  # k_n: least number of n-grams that make up `coverage` percent of its firings; 0: dead
    detector: Bool[np.ndarray, " neuron"]  # alive, k_n small, and its detected n-grams make up `coverage` percent of its firings
    support: Float[np.ndarray, " neuron"]  # share of firings on detected n-grams that occur often enough to mean something
    detected: "Detected"


@dataclass(frozen=True)
class Detected:
    """The n-grams that detectors detect; every neuron's most fired first, then in lexicographic order."""

    neuron: Int64[np.ndarray, " entry"]  # ascending
    ngram: Int32[np.ndarray, " entry"]  # number in the corpus
    fired: Int32[np.ndarray, " entry"]

    def per_neuron(self, neurons: int) -> Int64[np.ndarray, " neuron"]:
        """How many each neuron detects; 0 for a neuron that is no detector."""
        return np.bincount(self.neuron, minlength=neurons)

    def lists(self, neurons: int) -> list[list[int]]:
        """Their numbers, one list per neuron."""
        ends = np.cumsum(self.per_neuron(neurons))
        return [part.tolist() for part in np.split(self.ngram, ends[:-1])]


@dataclass(frozen=True)
class LayerDetectors:
    """Detectors of tokens, bigrams and trigrams."""

    unigrams: Detectors
    bigrams: Detectors
    trigrams: Detectors


def layer_detectors(counts: LayerCounts, index: Index, thresholds: Thresholds) -> LayerDetectors:
    """Find the detectors of a layer.

    Raises:
        UserError: see `detectors`.
    """
    return LayerDetectors(
        detectors(counts.unigrams, index.unigrams.occurrences, thresholds.unigrams, thresholds),
        detectors(counts.bigrams, index.bigrams.occurrences, thresholds.bigrams, thresholds),
        detectors(counts.trigrams, index.trigrams.occurrences, thresholds.trigrams, thresholds),
    )


def detectors(counts: NgramCounts, occurrences: Int64[np.ndarray, " ngram"], limit: int, thresholds: Thresholds) -> Detectors:
    """Find the detectors of a layer: neurons that at most `limit` n-grams cover, and that detect them.

    Raises:
        UserError: these thresholds make a detector of a neuron whose table was not kept.
    """
    n_fired = counts.tally.n_fired
    k = covering(counts.tally, thresholds.coverage)
    on_all, on_supported = on_detected(
        counts.tally, thresholds.detection, thresholds.min_occurrences, thresholds.support_occurrences
    )
    detector = (n_fired > 0) & (k <= limit) & (100 * on_all >= thresholds.coverage * n_fired)
    if missing := int((detector & ~counts.table.kept).sum()):
        raise UserError(
            f"with these thresholds {missing} neurons of a layer are detectors whose n-grams were not kept (they need more than "
            f"keep_ngrams of them for {KEPT_COVERAGE} % of their firings); take the census with keep_ngrams=null into another out=."
        )
    support = np.divide(on_supported, n_fired, out=np.zeros(len(n_fired)), where=n_fired > 0)
    return Detectors(k, detector, support, _detected(counts.table, occurrences, detector, thresholds))


def _detected(
    table: Table, occurrences: Int64[np.ndarray, " ngram"], of: Bool[np.ndarray, " neuron"], thresholds: Thresholds
) -> Detected:
    entries = [np.arange(table.offsets[n], table.offsets[n + 1]) for n in np.flatnonzero(of)]  # detectors are few
    chosen = np.concatenate([np.zeros(0, np.int64), *entries])
    owner = np.repeat(np.flatnonzero(of), [len(part) for part in entries])
    ngram, fired = table.ngrams[chosen], table.fired[chosen]
    occurs = occurrences[ngram]
    detects = (100 * fired.astype(np.int64) >= thresholds.detection * occurs) & (occurs >= thresholds.min_occurrences)
    owner, ngram, fired = owner[detects], ngram[detects], fired[detects]
    order = np.lexsort((ngram, -fired, owner))
    return Detected(owner[order], ngram[order], fired[order])
