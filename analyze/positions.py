"""Counts -> what a neuron's firing says about position: mutual information and the paper's types (section 5, Figure 7).

Curves hold only places where something was counted; position 0, where BOS stands, drops out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

TYPES = ("oscillatory", "both", "one", "other")

Curves = Float[np.ndarray, "place neuron"]


def position_information(fired: Int[np.ndarray, "place neuron"], seen: Int[np.ndarray, " place"]) -> Float[np.ndarray, " neuron"]:
    """Mutual information, in nats, between a neuron's firing and its place (section 5.1).

    Zero for neurons that never or always fire. Places nobody stood at are left out.
    """
    fired, seen = fired[seen > 0], seen[seen > 0]
    total = seen.sum()
    if not total:
        return np.zeros(fired.shape[1])
    weight, rate, overall = (seen / total)[:, None], fired / seen[:, None], fired.sum(0) / total
    information = (weight * (_terms(rate, overall) + _terms(1 - rate, 1 - overall))).sum(0)
    return np.asarray(np.maximum(information, 0.0))  # rounding may leave -1e-17


def _terms(p: Curves, q: Float[np.ndarray, " neuron"]) -> Curves:
    """p log(p / q), and 0 where p is 0."""
    q = np.broadcast_to(q, p.shape)
    some = p > 0
    return np.where(some, p * np.log(np.divide(p, q, out=np.ones_like(p), where=some), out=np.zeros_like(p), where=some), 0.0)


def corrected(information: Float[np.ndarray, " neuron"], seen: Int[np.ndarray, " place"]) -> Float[np.ndarray, " neuron"]:
    """Less the bias of estimating it from few sequences, (places - 1) / (2 N); never below 0 (Miller and Madow)."""
    total = max(1, int(seen.sum()))
    return np.maximum(0.0, information - (int((seen > 0).sum()) - 1) / (2 * total))


def last_position(fired: Int[np.ndarray, "place neuron"], coverage: int) -> Int[np.ndarray, " neuron"]:
    """Least place by which `coverage` percent of a neuron's firings have happened; -1 for a neuron that never fires."""
    reached = 100 * np.cumsum(fired, axis=0, dtype=np.int64) >= coverage * fired.sum(0, dtype=np.int64)
    return np.where(fired.any(0), reached.argmax(0), -1)


@dataclass(frozen=True)
class PositionTypes:
    """Type of every curve, as an index into `TYPES`, and whether it is the strong version."""

    kind: Int[np.ndarray, " neuron"]
    strong: Bool[np.ndarray, " neuron"]


def position_types(curves: Curves, positions: int) -> PositionTypes:
    """Sort position curves (firing frequency at each place) into the paper's types; `positions` is the length of a sequence.

    The paper draws the types; DEFINITIONS in the README's words: with `g` the curve after a centered moving average of
    `2 * (positions // 256) + 1` places (shorter at the ends) and a run `max(2, positions // 64)` consecutive places,

    * oscillatory: g spans at least 0.5 and changes at least 3 times between a run in its lowest and one in its highest quarter;
    * both: not that, with a run at most 0.05 and a run of at least 0.95; one: exactly one of the two; other: neither.

    Strong: the runs are at most 0.001 and at least 0.999; for `other`, neighbouring places predict 90 % of the variance.
    """
    run = max(2, positions // 64)
    g = smoothed(curves, positions // 256)
    low, high = _has_run(g <= 0.05, run), _has_run(g >= 0.95, run)
    very_low, very_high = _has_run(g <= 0.001, run), _has_run(g >= 0.999, run)
    kinds = (oscillates(g, run), low & high, low ^ high)
    strengths = (very_low & very_high, very_low & very_high, very_low | very_high, thinness(curves) >= 0.9)
    kind = np.select(kinds, (0, 1, 2), default=3)
    return PositionTypes(kind, np.choose(kind, strengths).astype(bool))


def smoothed(curves: Curves, reach: int) -> Curves:
    """Centered moving average over `reach` places on either side, fewer at the ends."""
    places = len(curves)
    sums = np.concatenate([np.zeros((1, curves.shape[1])), np.cumsum(curves, axis=0)])
    first = np.maximum(np.arange(places) - reach, 0)
    last = np.minimum(np.arange(places) + reach + 1, places)
    return curves if reach == 0 else (sums[last] - sums[first]) / (last - first)[:, None]


def oscillates(g: Curves, run: int) -> Bool[np.ndarray, " neuron"]:
    """Whether a smoothed curve spans at least 0.5 and crosses at least 3 times between its lowest and its highest quarter."""
    least, span = g.min(0), np.ptp(g, axis=0)
    side = _ends_run(g >= g.max(0) - 0.25 * span, run).astype(np.int8) - _ends_run(g <= least + 0.25 * span, run)
    latest = np.maximum.accumulate(np.where(side != 0, np.arange(len(side))[:, None], -1), axis=0)
    held = np.where(latest >= 0, np.take_along_axis(side, np.maximum(latest, 0), axis=0), 0)
    changes = ((held[1:] != held[:-1]) & (held[:-1] != 0)).sum(0)
    return np.asarray((span >= 0.5) & (changes >= 3))


def thinness(curves: Curves) -> Float[np.ndarray, " neuron"]:
    """Share of a curve's variance over places that the mean of its two neighbours predicts ("thin" against "thick" graphs)."""
    residual = ((curves[1:-1] - (curves[:-2] + curves[2:]) / 2) ** 2).sum(0)
    variance = ((curves - curves.mean(0)) ** 2).sum(0)
    return np.asarray(1 - (2 / 3) * np.divide(residual, variance, out=np.full_like(variance, np.inf), where=variance > 0))


def _ends_run(inside: Bool[np.ndarray, "place neuron"], run: int) -> Bool[np.ndarray, "place neuron"]:
    """Places that are, with the run - 1 places before them, all inside."""
    ends = np.zeros_like(inside)
    sums = np.concatenate([np.zeros((1, inside.shape[1]), np.int64), np.cumsum(inside, axis=0)])
    ends[run - 1 :] = sums[run:] - sums[:-run] == run
    return ends


def _has_run(inside: Bool[np.ndarray, "place neuron"], run: int) -> Bool[np.ndarray, " neuron"]:
    return np.asarray(_ends_run(inside, run).any(0))
