"""Counts -> the neuron table: one row per neuron, every column a pure function of counts and thresholds."""

import numpy as np
import polars as pl

from analyze.config import Thresholds
from analyze.counts.layer import CorpusCounts, LayerCounts
from analyze.neuron_types.ngram_detectors import LayerDetectors
from analyze.neuron_types.taxonomy import neuron_type
from analyze.tables.positions import COLUMNS, position_columns

SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "neuron": pl.Int32(),
    "n_tokens": pl.Int64(),
    "n_fired": pl.Int64(),
    "n_fired_bos": pl.Int64(),
    "frequency": pl.Float64(),
    "max_pre": pl.Float32(),
    "first_fired": pl.Int64(),
    "dead": pl.Boolean(),
    "unigrams_95": pl.Int64(),
    "token_detector": pl.Boolean(),
    "detected_tokens": pl.List(pl.Int32()),
    "token_support": pl.Float64(),
    "bigrams_95": pl.Int64(),
    "bigram_detector": pl.Boolean(),
    "n_detected_bigrams": pl.Int64(),
    "bigram_support": pl.Float64(),
    "trigrams_95": pl.Int64(),
    "trigram_detector": pl.Boolean(),
    "n_detected_trigrams": pl.Int64(),
    "trigram_support": pl.Float64(),
    **COLUMNS,
    "type": pl.String(),
}


def neuron_table(
    layer: int, counts: LayerCounts, corpus: CorpusCounts, found: LayerDetectors, thresholds: Thresholds
) -> pl.DataFrame:
    """The rows of one layer; `SCHEMA` names the columns, docs/definitions.md says what each means.

    What needs weights, `analyze/neuron_types/trigger_suppression.py` adds.
    """
    n_fired, n_tokens = counts.n_fired, corpus.n_tokens
    dead = n_fired == 0
    tokens, bigrams, trigrams = found.unigrams, found.bigrams, found.trigrams
    position = position_columns(counts.fired_at, corpus.seen_at, thresholds)
    table = pl.DataFrame(
        {
            "layer": np.full(len(n_fired), layer),
            "neuron": np.arange(len(n_fired)),
            "n_tokens": np.full(len(n_fired), n_tokens),
            "n_fired": n_fired,
            "n_fired_bos": counts.fired_bos,
            "frequency": n_fired / max(1, n_tokens),
            "max_pre": counts.max_pre,
            "first_fired": pl.Series(counts.first_fired).replace(-1, None),
            "dead": dead,
            "unigrams_95": tokens.covering,
            "token_detector": tokens.detector,
            "detected_tokens": tokens.detected.lists(len(n_fired)),
            "token_support": tokens.support,
            "bigrams_95": bigrams.covering,
            "bigram_detector": bigrams.detector,
            "n_detected_bigrams": bigrams.detected.per_neuron(len(n_fired)),
            "bigram_support": bigrams.support,
            "trigrams_95": trigrams.covering,
            "trigram_detector": trigrams.detector,
            "n_detected_trigrams": trigrams.detected.per_neuron(len(n_fired)),
            "trigram_support": trigrams.support,
            **position.to_dict(),
        },
        schema_overrides={name: dtype for name, dtype in SCHEMA.items() if name != "type"},
    )
    return table.with_columns(neuron_type(thresholds)).select(list(SCHEMA))
