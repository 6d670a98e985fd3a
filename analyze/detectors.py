"""Counts -> what triggers a neuron: how many tokens cover it, and which it detects (sections 4.1 and 4.2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from analyze.config import Thresholds
from analyze.counts import CorpusCounts, LayerCounts


@dataclass(frozen=True)
class TokenDetectors:
    """Answers about tokens for every neuron of a layer. Integers are compared with integers, never a rounded share."""

    covering: Int[np.ndarray, " neuron"]  # k_1: least number of tokens that make up `coverage` percent of its firings; 0: dead
    detector: Bool[np.ndarray, " neuron"]  # alive, k_1 small, and its detected tokens make up `coverage` percent of its firings
    support: Float[np.ndarray, " neuron"]  # share of firings on detected tokens that occur often enough to mean something
    detected: list[list[int]]  # ids, most firings first; empty for a neuron that is no detector


def token_detectors(counts: LayerCounts, corpus: CorpusCounts, thresholds: Thresholds) -> TokenDetectors:
    """Find the token detectors of a layer."""
    offsets, ids, fired = counts.token_offsets, counts.token_ids, counts.token_fired.astype(np.int64)
    n_fired = counts.n_fired
    occurrences = corpus.token_occurrences[ids]
    detects = (100 * fired >= thresholds.detection * occurrences) & (occurrences >= thresholds.min_occurrences)
    on_detected = _per_neuron(np.where(detects, fired, 0), offsets)
    on_supported = _per_neuron(np.where(detects & (occurrences >= thresholds.support_occurrences), fired, 0), offsets)
    covering = _covering(fired, offsets, n_fired, thresholds.coverage)
    alive = n_fired > 0
    detector = alive & (covering <= thresholds.unigrams) & (100 * on_detected >= thresholds.coverage * n_fired)
    support = np.divide(on_supported, n_fired, out=np.zeros(len(n_fired)), where=alive)
    return TokenDetectors(covering, detector, support, _lists(ids, detects, offsets, detector))


def _covering(
    fired: Int[np.ndarray, " entry"], offsets: Int[np.ndarray, " end"], total: Int[np.ndarray, " neuron"], coverage: int
) -> Int[np.ndarray, " neuron"]:
    """Entries stand most fired first, so a neuron needs one more than those whose running sum still falls short."""
    running = np.cumsum(fired)
    before = np.concatenate([[0], running])[offsets[:-1]]
    owner = np.repeat(np.arange(len(total)), np.diff(offsets))
    short = 100 * (running - before[owner]) < coverage * total[owner]
    return _per_neuron(short, offsets) + (total > 0)


def _per_neuron(
    values: Int[np.ndarray, " entry"] | Bool[np.ndarray, " entry"], offsets: Int[np.ndarray, " end"]
) -> Int[np.ndarray, " neuron"]:
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(sums[offsets[1:]] - sums[offsets[:-1]])


def _lists(
    ids: Int32[np.ndarray, " entry"],
    detects: Bool[np.ndarray, " entry"],
    offsets: Int[np.ndarray, " end"],
    of: Bool[np.ndarray, " neuron"],
) -> list[list[int]]:
    lists: list[list[int]] = [[] for _ in of]
    for neuron in np.flatnonzero(of):  # detectors are few
        entries = slice(offsets[neuron], offsets[neuron + 1])
        lists[neuron] = ids[entries][detects[entries]].tolist()
    return lists
