"""Counts -> neurons.parquet: one row per neuron, every column a pure function of counts, weights and thresholds.

A new column is one entry of `COLUMNS`, or of a recorder's (docs/extending.md): the file, docs/definitions.md and the page have it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from analyze.config import Thresholds
from analyze.counts.column import Column
from analyze.counts.layer import CorpusCounts, LayerCounts
from analyze.counts.recorder import Arrays, Recorder
from analyze.counts.recorders import recorders
from analyze.neuron_types.logit_attribution import LayerWrites
from analyze.neuron_types.ngram_detectors import LayerDetectors
from analyze.neuron_types.taxonomy import neuron_type
from analyze.neuron_types.trigger_suppression import Projections, projections
from analyze.tables.positions import position_columns


@dataclass(frozen=True)
class LayerFindings:
    """All that is known of the neurons of one layer."""

    layer: int
    counts: LayerCounts
    corpus: CorpusCounts
    detectors: LayerDetectors
    thresholds: Thresholds
    writes: LayerWrites | None = None  # None in a folder added up from shards: its columns are left out

    @property
    def dead(self) -> Bool[np.ndarray, " neuron"]:
        """Which never fired."""
        return np.asarray(self.counts.n_fired == 0)

    @property
    def neurons(self) -> int:
        """How many there are."""
        return len(self.counts.n_fired)

    @cached_property
    def position(self) -> pl.DataFrame:
        """What their firing says about position."""
        return position_columns(self.counts.fired_at, self.corpus.seen_at, self.thresholds)

    @cached_property
    def projections(self) -> Projections:
        """What detectors do to the logits of the tokens they detect."""
        assert self.writes is not None
        tokens = self.detectors.unigrams
        known = {"token_detector": tokens.detector, "detected_tokens": tokens.detected.lists(self.neurons)}
        of = pl.DataFrame(known, schema_overrides={"detected_tokens": pl.List(pl.Int32())}).with_row_index("neuron")
        return projections(of, self.writes, self.thresholds)

    @cached_property
    def table(self) -> pl.DataFrame:
        """All columns but the type, which is made of them, and those of weights."""
        return _made((*COLUMNS, *RECORDED), self)

    @property
    def top(self) -> LayerWrites:
        """What every neuron does to the logits of the vocabulary."""
        assert self.writes is not None
        return self.writes


NeuronColumn = Column[LayerFindings]
COLUMNS: tuple[NeuronColumn, ...] = (
    NeuronColumn("layer", pl.Int32(), "which layer, from 0", lambda of: np.full(of.neurons, of.layer)),
    NeuronColumn("neuron", pl.Int32(), "which neuron of the layer, from 0", lambda of: np.arange(of.neurons)),
    NeuronColumn(
        "n_tokens", pl.Int64(), "`N`, the same in every row", lambda of: np.full(of.neurons, of.corpus.n_tokens), "positions"
    ),
    NeuronColumn("n_fired", pl.Int64(), "counted positions at which it fires", lambda of: of.counts.n_fired, "positions"),
    NeuronColumn(
        "n_fired_bos",
        pl.Int64(),
        "BOS positions at which it fires",
        lambda of: of.counts.fired_bos,
        "positions",
        "fired at BOS",
        "Times it fires at the beginning-of-sequence token, which is not counted elsewhere.",
    ),
    NeuronColumn(
        "frequency", pl.Float64(), "`n_fired / n_tokens`", lambda of: of.counts.n_fired / max(1, of.corpus.n_tokens), "share"
    ),
    NeuronColumn(
        "max_pre",
        pl.Float32(),
        "greatest pre-activation over counted positions: how far a dead neuron is from living",
        lambda of: of.counts.max_pre,
        "",
        "greatest pre-activation",
        "The greatest value before the activation over counted tokens: how far a dead neuron is from living.",
    ),
    NeuronColumn(
        "first_fired",
        pl.Int64(),
        "index, in corpus order over counted positions, of its first firing; null if there is none",
        lambda of: pl.Series(of.counts.first_fired).replace(-1, None),
        "position",
        "first fired at",
        "Index, in the order of the text, of the first counted token at which it fires.",
    ),
    NeuronColumn("dead", pl.Boolean(), "`n_fired == 0`", lambda of: of.dead),
    NeuronColumn(
        "unigrams_95",
        pl.Int64(),
        "least number of distinct tokens that make up 95 % of its firings; 0 if dead",
        lambda of: of.detectors.unigrams.covering,
        "tokens",
        "tokens that cover it",
        "The least number of distinct tokens that make up {asked.coverage}% of its firings. Few: the neuron follows the current token.",
    ),
    NeuronColumn(
        "token_detector",
        pl.Boolean(),
        "alive, `unigrams_95 <= 5`, and its detected tokens make up 95 % of its firings",
        lambda of: of.detectors.unigrams.detector,
    ),
    NeuronColumn(
        "detected_tokens",
        pl.List(pl.Int32()),
        "of a token detector: ids on which it fires at least 95 % of the times they occur, most firings first, then by id",
        lambda of: of.detectors.unigrams.detected.lists(of.neurons),
        "ids",
    ),
    NeuronColumn(
        "token_support",
        pl.Float64(),
        "share of its firings on such tokens that occur at least 5 times; 0 if dead. A token seen once is trivially detected",
        lambda of: of.detectors.unigrams.support,
        "share",
        "token support",
        "Share of its firings on detected n-grams that occur at least {asked.support_occurrences} times. A token seen once is "
        "detected too easily.",
    ),
    NeuronColumn(
        "bigrams_95",
        pl.Int64(),
        "the same for the two ids that end at the counted position; places before the sequence are id -1, BOS may stand inside, no n-gram "
        "ends on BOS. `unigrams_95 <= bigrams_95 <= trigrams_95` always",
        lambda of: of.detectors.bigrams.covering,
        "bigrams",
        "bigrams that cover it",
        "The least number of distinct pairs of tokens, ending at the current one, that make up {asked.coverage}% of its firings.",
    ),
    NeuronColumn(
        "bigram_detector",
        pl.Boolean(),
        "alive, at most 50 of them cover 95 % of its firings, and the detected ones (it fires at least 95 % of the times they occur) do "
        "so too",
        lambda of: of.detectors.bigrams.detector,
    ),
    NeuronColumn(
        "n_detected_bigrams",
        pl.Int64(),
        "how many a detector detects; 0 for others. `ngrams.parquet` names them",
        lambda of: of.detectors.bigrams.detected.per_neuron(of.neurons),
        "bigrams",
    ),
    NeuronColumn(
        "bigram_support",
        pl.Float64(),
        "as `token_support`",
        lambda of: of.detectors.bigrams.support,
        "share",
        "bigram support",
        "The same for detected bigrams.",
    ),
    NeuronColumn(
        "trigrams_95",
        pl.Int64(),
        "as `bigrams_95`, for three ids",
        lambda of: of.detectors.trigrams.covering,
        "trigrams",
        "trigrams that cover it",
        "The same for three tokens in a row.",
    ),
    NeuronColumn("trigram_detector", pl.Boolean(), "as `bigram_detector`", lambda of: of.detectors.trigrams.detector),
    NeuronColumn(
        "n_detected_trigrams",
        pl.Int64(),
        "as `n_detected_bigrams`",
        lambda of: of.detectors.trigrams.detected.per_neuron(of.neurons),
        "trigrams",
    ),
    NeuronColumn(
        "trigram_support",
        pl.Float64(),
        "as `token_support`",
        lambda of: of.detectors.trigrams.support,
        "share",
        "trigram support",
        "The same for detected trigrams.",
    ),
    NeuronColumn(
        "position_mi",
        pl.Float64(),
        "mutual information of firing and place: `sum_p n(p)/N [fr log(fr/f) + (1-fr) log((1-fr)/(1-f))]`, `fr = c(p)/n(p)`, `f` the "
        "frequency; 0 if dead or always on",
        lambda of: of.position["position_mi"],
        "nats",
        "uncorrected",
        "Mutual information between firing and position, before chance is taken off.",
    ),
    NeuronColumn(
        "position_mi_corrected",
        pl.Float64(),
        "`max(0, position_mi - (P-1)/(2N))` for `P` places used (Miller and Madow): with few sequences bias alone passes the threshold",
        lambda of: of.position["position_mi_corrected"],
        "nats",
        "position, nats",
        "Mutual information between firing and position, less what chance alone gives. ln 2 = 0.69 is the most possible.",
    ),
    NeuronColumn(
        "position_type",
        pl.String(),
        "null unless `position_mi_corrected > 0.05`; else `oscillatory`, `both`, `one` or `other`",
        lambda of: of.position["position_type"],
    ),
    NeuronColumn(
        "position_strong",
        pl.Boolean(),
        "whether it is the strong version of that type; null without a type",
        lambda of: of.position["position_strong"],
    ),
    NeuronColumn(
        "last_position_95",
        pl.Int64(),
        "least place by which 95 % of its firings have happened; null if dead",
        lambda of: of.position["last_position_95"],
        "position",
        "most firings up to",
        "The position by which {asked.coverage}% of its firings have happened. Small: it serves the first few positions only.",
    ),
    NeuronColumn(
        "position_domain_difference",
        pl.Float64(),
        "of a neuron with a type: greatest difference between two domains' curves `fr`, each averaged over a run of places, over the "
        "places that all domains read have; null with fewer than two",
        lambda of: of.position["position_domain_difference"],
        "share",
        "changes across domains",
        "The greatest difference, in frequency, between its position curves in two domains of the text.",
    ),
)


def _of_recorder(recorder: Recorder, column: Column[Arrays]) -> NeuronColumn:
    """A recorder's column; null of layers that were counted without it."""

    def make(of: LayerFindings) -> Any:
        kept = of.counts.of(recorder.name)
        return column.make(kept) if kept else pl.Series([None] * of.neurons, dtype=column.dtype)

    return NeuronColumn(column.name, column.dtype, column.meaning, make, column.unit, column.label, column.hint)


TYPE = NeuronColumn(
    "type",
    pl.String(),
    "the first that holds of `dead`; `token` (detector with `token_support >= 0.5`); `bigram`, `trigram` (likewise); `positional`; "
    "else `other`",
    lambda of: of.table.select(neuron_type(of.thresholds)).to_series(),
)
WEIGHT_COLUMNS: tuple[NeuronColumn, ...] = (
    NeuronColumn(
        "trigger_projection",
        pl.Float64(),
        "mean of `E @ u` over its detected tokens; null unless it is a token detector",
        lambda of: pl.Series(of.projections.raw).fill_nan(None),
        "logits",
        "writes on its triggers",
        "Mean effect of a token detector on the logits of the tokens it detects. Below 0: it suppresses them.",
    ),
    NeuronColumn(
        "trigger_projection_centered",
        pl.Float64(),
        "that minus the mean of `E @ u` over the vocabulary: a constant added to all logits changes nothing",
        lambda of: pl.Series(of.projections.centered).fill_nan(None),
        "logits",
        "centered",
        "The effect on its triggers less its mean effect on all tokens, which changes no probability.",
    ),
    NeuronColumn(
        "suppresses_trigger",
        pl.Boolean(),
        "`trigger_projection < 0`; null unless it is a token detector",
        lambda of: pl.Series(of.projections.raw).fill_nan(None) < 0,
    ),
    NeuronColumn(
        "top_promoted",
        pl.List(pl.Int32()),
        "of every neuron: the 10 ids with the greatest `E @ u`, greatest first, equal ones by id",
        lambda of: of.top.top_promoted.tolist(),
        "ids",
    ),
    NeuronColumn(
        "top_suppressed",
        pl.List(pl.Int32()),
        "of every neuron: the 10 ids with the least `E @ u`, least first, equal ones by id",
        lambda of: of.top.top_suppressed.tolist(),
        "ids",
    ),
)
RECORDED = tuple(_of_recorder(recorder, column) for recorder in recorders() for column in recorder.columns)
ALL = (*COLUMNS, *RECORDED, TYPE, *WEIGHT_COLUMNS)
SCHEMA = {column.name: column.dtype for column in (*COLUMNS, *RECORDED, TYPE)}


def neuron_table(of: LayerFindings) -> pl.DataFrame:
    """The rows of one layer, with `ALL` columns; those of weights are left out where there were none."""
    return of.table.hstack(_made((TYPE,) if of.writes is None else (TYPE, *WEIGHT_COLUMNS), of))


def _made(columns: tuple[NeuronColumn, ...], of: LayerFindings) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(column.name, column.make(of)).cast(column.dtype) for column in columns])
