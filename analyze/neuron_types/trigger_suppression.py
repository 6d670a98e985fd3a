"""What neurons write, and detectors -> do detectors suppress the tokens that trigger them (section 4.4)? Needs no weights."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from analyze.config import Thresholds
from analyze.neuron_types.logit_attribution import DRAWS, LOOSEST, LayerWrites

CONVENTIONS = ("raw", "centered", "gain")
SHARES = [f"{of}suppressing_share_{convention}" for of in ("", "random_") for convention in CONVENTIONS]
TOO_LOOSE = (
    f"Whether detectors suppress their triggers is left out: projections are kept for thresholds.coverage={LOOSEST.coverage}, "
    f"detection={LOOSEST.detection}, unigrams={LOOSEST.unigrams} and stricter ones; looser ones need the model."
)


def answerable(thresholds: Thresholds) -> bool:
    """Whether every detector of these thresholds, and all it detects, is among the candidates."""
    strict = thresholds.coverage >= LOOSEST.coverage and thresholds.detection >= LOOSEST.detection
    return strict and thresholds.unigrams <= LOOSEST.unigrams


@dataclass(frozen=True)
class Projections:
    """Mean of `E @ u` over what each detector detects; NaN for neurons that are none, and where thresholds are too loose to say."""

    raw: Float[np.ndarray, " neuron"]
    centered: Float[np.ndarray, " neuron"]  # less the mean over the vocabulary


def projections(neurons: pl.DataFrame, writes: LayerWrites, thresholds: Thresholds) -> Projections:
    """Those of one layer, of whose neurons `token_detector` and `detected_tokens` are known."""
    raw, centered = np.full((2, neurons.height), np.nan)
    if answerable(thresholds):
        detectors = neurons["token_detector"].to_numpy()
        raw[detectors], centered[detectors] = group_means(neurons, writes)[:2, :, 0]
    return Projections(raw, centered)


def group_means(neurons: pl.DataFrame, writes: LayerWrites) -> Float[np.ndarray, "convention detector group"]:
    """Mean of `E @ u` over every detector's detected tokens (group 0) and over as many random ones (the other groups).

    Conventions are raw, centered and, given a final LayerNorm, gain.
    """
    detectors = neurons.filter("token_detector").select("neuron", "detected_tokens")
    means = np.empty((len(writes.projections), detectors.height, 1 + DRAWS))
    for row, (neuron, detected) in enumerate(detectors.iter_rows()):
        own = slice(writes.candidate_offsets[neuron], writes.candidate_offsets[neuron + 1])
        chosen = np.isin(writes.candidate_ids[own], detected)
        assert chosen.sum() == len(detected), "a detected token is no candidate"
        means[:, row] = writes.projections[:, own][:, chosen].mean(1, dtype=np.float64)
    centered = means[0] - writes.mean[detectors["neuron"].to_numpy(), None]
    return np.insert(means, 1, centered, axis=0)


def suppressing_shares(neurons: pl.DataFrame, writes: LayerWrites, thresholds: Thresholds) -> dict[str, float | None]:
    """`SHARES` of one layer: how many of its detectors write against their triggers, and against random groups as large.

    None where the layer has no detector, the model no final LayerNorm (gain), or the corpus no token to draw.
    """
    shares: dict[str, float | None] = dict.fromkeys(SHARES)
    if answerable(thresholds):
        for convention, means in zip(CONVENTIONS, group_means(neurons, writes), strict=False):
            shares[f"suppressing_share_{convention}"] = _below_zero(means[:, :1])
            shares[f"random_suppressing_share_{convention}"] = _below_zero(means[:, 1:])
    return shares


def _below_zero(means: Float[np.ndarray, "detector group"]) -> float | None:
    known = means[~np.isnan(means)]
    return float((known < 0).mean()) if len(known) else None
