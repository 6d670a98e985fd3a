"""Censuses of one run's milestones -> how many neurons of every type there are at each step, and which types they came from."""

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from analyze.folder import Census

TRANSITIONS = {
    "from_step": pl.Int64,
    "to_step": pl.Int64,
    "layer": pl.Int32,
    "from_type": pl.String,
    "to_type": pl.String,
    "neurons": pl.UInt32,
}


def evolution(censuses: Sequence[Census]) -> pl.DataFrame:
    """Neurons by step, layer and type: columns step, tokens (trained on so far), layer, type, neurons."""
    return pl.concat(
        census.neurons.group_by("layer", "type")
        .agg(pl.len().alias("neurons"))
        .sort("layer", "type")
        .select(
            pl.lit(census.step, pl.Int64).alias("step"),
            pl.lit(census.meta["checkpoint"]["tokens_trained"], pl.Int64).alias("tokens"),
            "layer",
            "type",
            "neurons",
        )
        for census in censuses
    )


def transitions(censuses: Sequence[Census]) -> pl.DataFrame:
    """Neurons by type before and after, for every two censuses in a row: each neuron is followed by its layer and number."""
    kept = ["layer", "neuron", "type"]
    pairs = [
        earlier.neurons.select(kept)
        .join(later.neurons.select(kept), on=["layer", "neuron"], suffix="_after")
        .group_by("layer", "type", "type_after")
        .agg(pl.len().alias("neurons"))
        .select(
            pl.lit(earlier.step, pl.Int64).alias("from_step"),
            pl.lit(later.step, pl.Int64).alias("to_step"),
            "layer",
            pl.col("type").alias("from_type"),
            pl.col("type_after").alias("to_type"),
            "neurons",
        )
        .sort("layer", "from_type", "to_type")
        for earlier, later in pairwise(censuses)
    ]
    schema = {
        "from_step": pl.Int64,
        "to_step": pl.Int64,
        "layer": pl.Int32,
        "from_type": pl.String,
        "to_type": pl.String,
        "neurons": pl.UInt32,
    }
    return pl.concat(pairs) if pairs else pl.DataFrame(schema=schema)
