"""Neuron table -> layer table: one row per layer, the numbers behind the paper's Figures 1 to 4 and 8."""

import itertools

import polars as pl

from analyze.config import PositionRules
from analyze.neuron_types.taxonomy import DETECTED, PATTERNS
from analyze.tables.positions import serves_first_positions

BUCKETS = {  # a bucket is over one and up to the next; the last has no end
    "unigrams": (0, 5, 10, 20, 50, 200, 1000, 2000),
    "bigrams": (0, 50, 100, 200, 500, 1000, 2000, 5000),
    "trigrams": (0, 50, 100, 200, 500, 1000, 5000, 20000),
}


def layer_table(neurons: pl.DataFrame, ngrams: pl.DataFrame, rules: PositionRules) -> pl.DataFrame:
    """Summarise the neurons of every layer present, and the n-grams that they detect."""
    rows = neurons.group_by("layer", maintain_order=True).agg(
        pl.len().alias("neurons"),
        pl.col("dead").sum(),
        pl.col("dead").mean().alias("dead_share"),
        pl.col("frequency").filter(~pl.col("dead")).mean().alias("mean_frequency_alive"),
        *(pl.col(f"{name}_detector").sum().alias(f"{name}_detectors") for name in DETECTED.values()),
        *(bucket for name, bounds in BUCKETS.items() for bucket in _buckets(f"{name}_95", name, bounds)),
        pl.col("position_type").count().alias("positional"),
        serves_first_positions(rules).sum().alias("first_positions"),
        *(
            ((pl.col("position_type") == kind) & (pl.col("position_strong") == strong)).sum().alias(f"positional_{kind}_{word}")
            for kind in PATTERNS
            for strong, word in ((True, "strong"), (False, "weak"))
        ),
    )
    for n in DETECTED:
        rows = rows.join(detected_over_layers(rows["layer"], ngrams, n), on="layer", maintain_order="left")
    return rows


def bucket_columns(name: str) -> list[str]:
    """Names of the columns of a kind of n-gram's buckets, those of the fewest n-grams first."""
    bounds = BUCKETS[name]
    return [*(f"{name}_{low + 1}_{high}" for low, high in itertools.pairwise(bounds)), f"{name}_over_{bounds[-1]}"]


def _buckets(column: str, name: str, bounds: tuple[int, ...]) -> list[pl.Expr]:
    within = [(pl.col(column) > low) & (pl.col(column) <= high) for low, high in itertools.pairwise(bounds)]
    within.append(pl.col(column) > bounds[-1])
    return [inside.sum().alias(label) for inside, label in zip(within, bucket_columns(name), strict=True)]


def detected_over_layers(layers: pl.Series, ngrams: pl.DataFrame, n: int) -> pl.DataFrame:
    """Distinct detected n-grams in each layer, cumulatively, in no layer below, and not in the layer before (Figures 3b, 4, 14, 15)."""
    below: set[tuple[int, ...]] = set()
    before: set[tuple[int, ...]] = set()
    rows = []
    for layer in layers.to_list():
        of_layer = ngrams.filter((pl.col("layer") == layer) & (pl.col("n") == n))
        found = set(map(tuple, of_layer["ids"].to_list()))
        rows.append((layer, len(found), len(below | found), len(found - below), len(found - before)))
        below |= found
        before = found
    names = [f"detected_{DETECTED[n]}s{part}" for part in ("", "_cumulative", "_new", "_new_vs_previous")]
    return pl.DataFrame(rows, schema={"layer": pl.Int32} | dict.fromkeys(names, pl.UInt32), orient="row")
