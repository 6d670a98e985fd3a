"""Neuron table -> layer table: one row per layer, the numbers behind the paper's Figures 1 to 4 and 8."""

import itertools

import polars as pl

from analyze.positions import TYPES

UNIGRAM_BUCKETS = (0, 5, 10, 20, 50, 200, 1000, 2000)  # a bucket is over one and up to the next; the last has no end


def layer_table(neurons: pl.DataFrame) -> pl.DataFrame:
    """Summarise the neurons of every layer present."""
    rows = neurons.group_by("layer", maintain_order=True).agg(
        pl.len().alias("neurons"),
        pl.col("dead").sum(),
        pl.col("dead").mean().alias("dead_share"),
        pl.col("frequency").filter(~pl.col("dead")).mean().alias("mean_frequency_alive"),
        pl.col("token_detector").sum().alias("token_detectors"),
        *_buckets("unigrams_95", "unigrams", UNIGRAM_BUCKETS),
        pl.col("position_type").count().alias("positional"),
        *(
            ((pl.col("position_type") == kind) & (pl.col("position_strong") == strong)).sum().alias(f"positional_{kind}_{word}")
            for kind in TYPES
            for strong, word in ((True, "strong"), (False, "weak"))
        ),
    )
    return rows.join(detected_over_layers(neurons), on="layer", maintain_order="left")


def _buckets(column: str, name: str, bounds: tuple[int, ...]) -> list[pl.Expr]:
    within = [
        ((pl.col(column) > low) & (pl.col(column) <= high), f"{name}_{low + 1}_{high}")
        for low, high in itertools.pairwise(bounds)
    ]
    within.append((pl.col(column) > bounds[-1], f"{name}_over_{bounds[-1]}"))
    return [inside.sum().alias(label) for inside, label in within]


def detected_over_layers(neurons: pl.DataFrame) -> pl.DataFrame:
    """Distinct detected tokens in each layer, cumulatively, in no layer below, and not in the layer before (Figures 3b and 4)."""
    below: set[int] = set()
    before: set[int] = set()
    rows = []
    for (layer,), table in neurons.group_by("layer", maintain_order=True):
        found = set(table["detected_tokens"].explode(empty_as_null=False, keep_nulls=False).to_list())
        rows.append((layer, len(found), len(below | found), len(found - below), len(found - before)))
        below |= found
        before = found
    names = ("layer", "detected_tokens", "detected_tokens_cumulative", "detected_tokens_new", "detected_tokens_new_vs_previous")
    return pl.DataFrame(rows, schema={name: pl.Int32 if name == "layer" else pl.UInt32 for name in names}, orient="row")
