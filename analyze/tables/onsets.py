"""Histories of neurons -> when each became, and stayed, what it is at the end, and how often it died and came back."""

import polars as pl

from analyze.tables.history import NEURON, before


def births(told: pl.DataFrame) -> pl.DataFrame:
    """One row per neuron: layer, neuron, `type` at the last census, and

    `born_step`, `born_tokens`: the first census from which on it is of that type (at the first census of all: then or before);
    `changes`: times its type is another than at the census before;
    `deaths`, `returns`: times it is dead after it was not, and alive after it was dead;
    `first_dead_step`, `first_return_step`: null for one that never was dead, or never came back.
    """
    dead, was = pl.col("type") == "dead", before("type")
    told = told.with_columns(
        pl.col("type").rle_id().over(NEURON).cast(pl.Int64).alias("changes"),
        (dead & (was != "dead")).fill_null(False).alias("dies"),
        (~dead & (was == "dead")).fill_null(False).alias("returns"),
    )
    last = pl.col("changes") == pl.col("changes").max()
    return (
        told.group_by(NEURON, maintain_order=True)
        .agg(
            pl.col("type").last(),
            pl.col("step").filter(last).first().alias("born_step"),
            pl.col("tokens").filter(last).first().alias("born_tokens"),
            pl.col("changes").max(),
            pl.col("dies").sum().alias("deaths"),
            pl.col("returns").sum(),
            pl.col("step").filter(dead).first().alias("first_dead_step"),
            pl.col("step").filter(pl.col("returns")).first().alias("first_return_step"),
        )
        .sort(NEURON)
    )
