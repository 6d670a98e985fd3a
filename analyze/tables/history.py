"""Censuses of one run, in order of their steps -> the history of every neuron: one row per step, layer and neuron."""

from collections.abc import Sequence

import polars as pl

from analyze.tables.census import Census

NEURON = ["layer", "neuron"]  # a neuron keeps its layer and its number while it is trained
SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "tokens": pl.Int64(),
    "layer": pl.Int32(),
    "neuron": pl.Int32(),
    "type": pl.String(),
    "position": pl.String(),
    "detects": pl.Boolean(),
    "detected_tokens": pl.List(pl.Int32()),
}


def history(censuses: Sequence[Census]) -> pl.DataFrame:
    """What every neuron was at every step: `SCHEMA`, sorted by layer, neuron and step.

    `position` is the position type with its strength, such as "one weak", or "none"; `detects` is that of a token detector.
    """
    strength = pl.when("position_strong").then(pl.lit(" strong")).otherwise(pl.lit(" weak"))
    columns = [
        pl.col("layer"),
        pl.col("neuron"),
        pl.col("type"),
        (pl.col("position_type") + strength).fill_null("none").alias("position"),
        pl.col("token_detector").alias("detects"),
        pl.col("detected_tokens"),
    ]
    told = [
        census.neurons.select(
            pl.lit(census.step, pl.Int64).alias("step"),
            pl.lit(census.meta["checkpoint"]["tokens_trained"], pl.Int64).alias("tokens"),
            *columns,
        ).cast(SCHEMA)  # type: ignore[arg-type]
        for census in censuses
    ]
    return pl.concat(told).sort(*NEURON, "step") if told else pl.DataFrame(schema=SCHEMA)


def before(column: str) -> pl.Expr:
    """A column's value at the neuron's census before; null at its first. For tables sorted as `history` is."""
    return pl.col(column).shift(1).over(NEURON)
