"""Position curves of a layer's strong oscillatory neurons -> the ranges they indicate, and whether any is redundant (Figure 9)."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from analyze.config import PositionRules
from analyze.neuron_types.position import SLACK, Curves, smoothed

COLUMNS = {name: pl.UInt32() for name in ("team_neurons", "team_places", "team_spare", "team_left_out")}

Indicated = Bool[np.ndarray, "place neuron"]


@dataclass(frozen=True)
class Team:
    """What some neurons indicate together."""

    neurons: int
    places: int  # that at least one of them indicates
    spare: int  # neurons each of which could be left out, all others staying, without losing a place
    left_out: int  # how many were left out together without losing a place, those of the fewest places first


def members(neurons: pl.DataFrame) -> pl.DataFrame:
    """The neurons that make up teams: the strong oscillatory ones."""
    return neurons.filter((pl.col("position_type") == "oscillatory") & pl.col("position_strong"))


def indicated(curves: Curves, positions: int, rules: PositionRules) -> Indicated:
    """The places that each neuron indicates: where its smoothed curve is at least 0.5."""
    return np.asarray(smoothed(curves, positions, rules) >= rules.indicated - SLACK)


def team(places: Indicated) -> Team:
    """Describe a team by the places its neurons indicate.

    No neuron is redundant exactly if `spare` is 0, and exactly if `left_out` is 0. Two neurons with the same places are both spare,
    but only one of them can be left out.
    """
    times = places.sum(1)
    alone = (places & (times == 1)[:, None]).any(0)  # has a place of its own
    left = 0
    for neuron in np.argsort(places.sum(0), kind="stable"):
        if not (places[:, neuron] & (times == 1)).any():
            times = times - places[:, neuron]
            left += 1
    return Team(places.shape[1], int(places.any(1).sum()), int((~alone).sum()), left)


def team_columns(
    neurons: pl.DataFrame,
    fired_at: Int[np.ndarray, "domain position neuron"],
    seen_at: Int[np.ndarray, "domain position"],
    rules: PositionRules,
) -> pl.DataFrame:
    """`COLUMNS` of one layer, from the rows of its neurons and their counts; all 0 without a strong oscillatory neuron."""
    chosen, seen = members(neurons)["neuron"].to_numpy(), seen_at.sum(0)
    used = seen > 0
    curves = fired_at[:, :, chosen].sum(0, dtype=np.int64)[used] / seen[used][:, None]
    found = team(indicated(curves, len(seen), rules))
    values = (found.neurons, found.places, found.spare, found.left_out)
    return pl.DataFrame([values], schema=COLUMNS, orient="row")
