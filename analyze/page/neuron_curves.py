"""counts by position -> curves coarse enough for a page: a byte a point, fine for the neurons that matter, coarser for the others."""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, UInt8

from analyze.tables.census import Census

MOST_FINE, MOST_COARSE = 6_000, 40_000  # neurons
FINE, COARSE = 128, 32  # points of a curve


class Curves(NamedTuple):
    """Curves of some rows of the page's table."""

    rows: np.ndarray  # in the table, ascending
    places: list[float]  # mean position of each point
    greatest: Float[np.ndarray, " row"]  # frequency that byte 255 stands for
    points: UInt8[np.ndarray, "row point"]


def curves(census: Census, table: pl.DataFrame) -> dict[str, Curves]:
    """Fine curves of positional neurons and detectors, the most positional first if there are too many; coarse ones of the others."""
    telling = pl.col("position_type").is_not_null() | pl.col("token_detector")
    order = table.sort(~telling, -pl.col("position_mi_corrected"))
    n_fine = min(order.select(telling.sum()).item(), MOST_FINE)
    chosen = {"fine": (order.head(n_fine), FINE), "coarse": (order.slice(n_fine, MOST_COARSE), COARSE)}
    return {name: _curves(census, rows.filter(~pl.col("dead")).sort("row"), points) for name, (rows, points) in chosen.items()}


def _curves(census: Census, rows: pl.DataFrame, points: int) -> Curves:
    bins = _bins(census, points)
    means = np.zeros((rows.height, len(bins)))
    for (layer,), part in rows.with_row_index("at").group_by("layer", maintain_order=True):
        means[part["at"].to_numpy()] = _means(census.position_curves(int(layer), part["neuron"].to_list()), bins)
    greatest = means.max(axis=1, initial=0)
    shares = np.divide(means, greatest[:, None], out=np.zeros_like(means), where=greatest[:, None] > 0)
    return Curves(
        rows=rows["row"].to_numpy(),
        places=[round(float(places.mean()), 1) for places in bins],
        greatest=greatest,
        points=np.rint(255 * shares).astype(np.uint8),
    )


def _bins(census: Census, points: int) -> list[np.ndarray]:
    places = np.flatnonzero(census.seen_at)
    return np.array_split(places, min(points, len(places))) if len(places) else []


def _means(fine: Float[np.ndarray, "neuron position"], bins: list[np.ndarray]) -> Float[np.ndarray, "neuron point"]:
    return np.stack([fine[:, places].mean(axis=1) for places in bins], axis=1) if bins else np.zeros((len(fine), 0))
