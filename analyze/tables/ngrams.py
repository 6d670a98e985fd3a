"""Detectors -> the table of what they detect: one row per neuron and n-gram."""

import polars as pl

from analyze.counts.layer import Index
from analyze.counts.ngrams import NAMES
from analyze.neuron_types.ngram_detectors import LayerDetectors

SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "neuron": pl.Int32(),
    "n": pl.Int8(),
    "ids": pl.List(pl.Int32()),
    "fires": pl.Int64(),
    "occurrences": pl.Int64(),
}


def ngram_table(layer: int, found: LayerDetectors, index: Index) -> pl.DataFrame:
    """The rows of one layer: tokens, then bigrams, then trigrams; by neuron, most fired first, then by ids.

    An id of -1 stands before the start of a sequence.
    """
    tables = []
    for n, name in NAMES.items():
        detected, ngrams = getattr(found, name).detected, getattr(index, name)
        columns = {
            "neuron": detected.neuron,
            "ids": pl.Series(ngrams.ids[detected.ngram], dtype=pl.Array(pl.Int32, n)).cast(pl.List(pl.Int32)),
            "fires": detected.fired,
            "occurrences": ngrams.occurrences[detected.ngram],
        }
        tables.append(pl.DataFrame(columns).with_columns(layer=layer, n=n).select(list(SCHEMA)).cast(SCHEMA))  # type: ignore[arg-type]
    return pl.concat(tables)
