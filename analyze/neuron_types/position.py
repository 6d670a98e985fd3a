"""Counts -> what a neuron's firing says about position: mutual information and the paper's types (section 5, Figure 7).

Curves hold only places where something was counted; position 0, where BOS stands, drops out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from analyze.config import PositionRules

SLACK = 1e-9  # a moving average that is 0.05 exactly may come out 1e-17 beside it

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


def bias(seen: Int[np.ndarray, " place"]) -> float:
    """Nats that a neuron which knows nothing of position seems to tell, because sequences are few: (places - 1) / (2 N).

    Miller and Madow's; about 1 / (2 sequences).
    """
    return max(0, int((seen > 0).sum()) - 1) / (2 * max(1, int(seen.sum())))


def corrected(information: Float[np.ndarray, " neuron"], seen: Int[np.ndarray, " place"]) -> Float[np.ndarray, " neuron"]:
    """Less the bias; never below 0."""
    return np.maximum(0.0, information - bias(seen))


def last_position(fired: Int[np.ndarray, "place neuron"], coverage: int) -> Int[np.ndarray, " neuron"]:
    """Least place by which `coverage` percent of a neuron's firings have happened; -1 for a neuron that never fires."""
    reached = 100 * np.cumsum(fired, axis=0, dtype=np.int64) >= coverage * fired.sum(0, dtype=np.int64)
    return np.where(fired.any(0), reached.argmax(0), -1)


@dataclass(frozen=True)
class PositionTypes:
    """Type of every curve, as an index into `PATTERNS`, and whether it is the strong version."""

    kind: Int[np.ndarray, " neuron"]
    strong: Bool[np.ndarray, " neuron"]


def position_types(curves: Curves, positions: int, rules: PositionRules) -> PositionTypes:
    """Sort position curves (firing frequency at each place) into the paper's types; `positions` is the length of a sequence.

    The paper draws the types. With `g` the smoothed curve and a run enough consecutive places (both as `rules` have it),

    * oscillatory: g spans at least 0.5 and changes at least 3 times between a run in its lowest and one in its highest quarter;
    * both: not that, with a run at most 0.05 and a run of at least 0.95; one: exactly one of the two; other: neither.

    Strong: the runs are at most 0.001 and at least 0.999; for `other`, neighbouring places predict 90 % of the variance.
    """
    run, g = run_length(positions, rules), smoothed(curves, positions, rules)
    low, high = has_run(g <= rules.zero + SLACK, run), has_run(g >= rules.one - SLACK, run)
    very_low, very_high = has_run(g <= rules.strong_zero + SLACK, run), has_run(g >= rules.strong_one - SLACK, run)
    kinds = (oscillates(g, run, rules), low & high, low ^ high)
    thin = thinness(curves) >= rules.thin - SLACK
    strengths = (very_low & very_high, very_low & very_high, very_low | very_high, thin)
    kind = np.select(kinds, (0, 1, 2), default=3)
    return PositionTypes(kind, np.choose(kind, strengths).astype(bool))


def run_length(positions: int, rules: PositionRules) -> int:
    """Consecutive places that make a run."""
    return max(rules.least_run, positions // rules.run)


def smoothed(curves: Curves, positions: int, rules: PositionRules) -> Curves:
    """Centered moving average of `2 * (positions // smoothing) + 1` places, fewer at the ends."""
    reach = positions // rules.smoothing
    return curves if reach == 0 else window_means(curves, reach, reach)


def window_means(curves: Curves, before: int, after: int) -> Curves:
    """Mean over every place, `before` places before it and `after` places after it; fewer at the ends."""
    places = len(curves)
    sums = np.concatenate([np.zeros((1, curves.shape[1])), np.cumsum(curves, axis=0)])
    first = np.maximum(np.arange(places) - before, 0)
    last = np.minimum(np.arange(places) + after + 1, places)
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def oscillates(g: Curves, run: int, rules: PositionRules) -> Bool[np.ndarray, " neuron"]:
    """Whether a smoothed curve spans enough and crosses often enough between its lowest and its highest part."""
    least, span = g.min(0), np.ptp(g, axis=0)
    highest = ends_run(g >= g.max(0) - rules.outer * span - SLACK, run).astype(np.int8)
    side = highest - ends_run(g <= least + rules.outer * span + SLACK, run)
    latest = np.maximum.accumulate(np.where(side != 0, np.arange(len(side))[:, None], -1), axis=0)
    held = np.where(latest >= 0, np.take_along_axis(side, np.maximum(latest, 0), axis=0), 0)
    changes = ((held[1:] != held[:-1]) & (held[:-1] != 0)).sum(0)
    return np.asarray((span >= rules.span - SLACK) & (changes >= rules.changes))


def thinness(curves: Curves) -> Float[np.ndarray, " neuron"]:
    """Share of a curve's variance over places that the mean of its two neighbours predicts ("thin" against "thick" graphs)."""
    residual = ((curves[1:-1] - (curves[:-2] + curves[2:]) / 2) ** 2).sum(0)
    variance = ((curves - curves.mean(0)) ** 2).sum(0)
    return np.asarray(1 - (2 / 3) * np.divide(residual, variance, out=np.full_like(variance, np.inf), where=variance > 0))


def ends_run(inside: Bool[np.ndarray, "place neuron"], run: int) -> Bool[np.ndarray, "place neuron"]:
    """Places that are, with the run - 1 places before them, all inside."""
    ends = np.zeros_like(inside)
    sums = np.concatenate([np.zeros((1, inside.shape[1]), np.int64), np.cumsum(inside, axis=0)])
    ends[run - 1 :] = sums[run:] - sums[:-run] == run
    return ends


def has_run(inside: Bool[np.ndarray, "place neuron"], run: int) -> Bool[np.ndarray, " neuron"]:
    """Whether that many consecutive places are inside."""
    return np.asarray(ends_run(inside, run).any(0))


def domain_difference(
    fired: Int[np.ndarray, "domain place neuron"], seen: Int[np.ndarray, "domain place"], run: int
) -> Float[np.ndarray, " neuron"]:
    """Greatest difference between two domains' curves, each averaged over a run of places; NaN with fewer than two domains.

    A pattern that position alone decides is the same in every domain. Over places counted in all domains that were read; averaging
    keeps the noise of few sequences down.
    """
    here = seen.any(1)
    shared = (seen[here] > 0).all(0)
    if here.sum() < 2 or not shared.any():
        return np.full(fired.shape[2], np.nan)
    curves = (of_domain[shared] / stood[shared, None] for of_domain, stood in zip(fired[here], seen[here], strict=True))
    means = np.stack([window_means(curve, 0, run - 1) for curve in curves])
    whole = max(1, int(shared.sum()) - run + 1)  # windows at the end are shorter
    return np.asarray(np.ptp(means[:, :whole], axis=0).max(0))
