"""Histories of neurons -> what changed between each census and the next: types, position types, detected tokens."""

import polars as pl

from analyze.tables.history import before

KEPT = 0.5  # a detector keeps its tokens if at least this share of all that it detected before or after, it detected both times
PAIR = ["from_step", "to_step", "layer"]


def transitions(told: pl.DataFrame) -> pl.DataFrame:
    """Neurons by type before and after: from_step, to_step, layer, from_type, to_type, neurons."""
    return _moves(told, "type", "type")


def positional_transitions(told: pl.DataFrame) -> pl.DataFrame:
    """The same of position types with their strength, "none" among them; neurons that never were positional are left out."""
    moved = _moves(told, "position", "position")
    return moved.filter((pl.col("from_position") != "none") | (pl.col("to_position") != "none"))


def _moves(told: pl.DataFrame, column: str, word: str) -> pl.DataFrame:
    kinds = [*PAIR, f"from_{word}", f"to_{word}"]
    moved = told.select(
        before("step").alias("from_step"),
        pl.col("step").alias("to_step"),
        "layer",
        before(column).alias(f"from_{word}"),
        pl.col(column).alias(f"to_{word}"),
    )
    return moved.drop_nulls("from_step").group_by(kinds).agg(pl.len().alias("neurons")).sort(kinds)


def detectors_kept(told: pl.DataFrame) -> pl.DataFrame:
    """What becomes of token detectors from one census to the next: from_step, to_step, layer and

    `detectors` (at the first of the two), `still` (of them, detectors at the second), `kept` (of them, with `KEPT` of their tokens)
    and `jaccard`, the mean over `detectors` of tokens detected both times over tokens detected either time; 0 for one that is no
    detector any more.
    """
    both = pl.col("was").list.set_intersection("detected_tokens").list.len()
    either = pl.col("was").list.set_union("detected_tokens").list.len()
    followed = (
        told.with_columns(
            before("step").alias("from_step"),
            pl.col("step").alias("to_step"),
            before("detects").alias("did"),
            before("detected_tokens").alias("was"),
        )
        .filter("did")
        .with_columns(pl.when("detects").then(both / either).otherwise(0.0).alias("jaccard"))
    )
    return (
        followed.group_by(PAIR)
        .agg(
            pl.len().alias("detectors"),
            pl.col("detects").sum().alias("still"),
            (pl.col("jaccard") >= KEPT).sum().alias("kept"),
            pl.col("jaccard").mean(),
        )
        .sort(PAIR)
    )
