"""The types of neurons and the patterns of positional ones: name, meaning, colour, and which neurons are of a type.

Types follow the paper's sections 3 (dead), 4 (n-grams) and 5 (positional); patterns its Figure 7. A new type is one entry here.
Colours are those of Okabe and Ito, told apart by the colour-blind and in grey print, with the paper's meaning: oscillatory purple,
both extremes red, one extreme green, other yellow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from analyze.config import Thresholds

Colour = tuple[str, str]  # on paper, on a dark page


@dataclass(frozen=True)
class NeuronType:
    """One type. Of the types that hold of a neuron, the first in `NEURON_TYPES` is its `type`."""

    name: str  # in the column `type`
    label: str  # in figures and pages
    meaning: str  # a sentence; `{asked}` are the thresholds
    colour: Colour
    holds: Callable[[Thresholds], pl.Expr]  # over the other columns of neurons.parquet


@dataclass(frozen=True)
class PositionPattern:
    """How the frequency of a positional neuron depends on position (section 5.2)."""

    name: str  # in the column `position_type`
    label: str
    meaning: str
    strong: Colour
    weak: Colour


def _detector(n: str) -> Callable[[Thresholds], pl.Expr]:
    return lambda asked: pl.col(f"{n}_detector") & (pl.col(f"{n}_support") >= asked.support)


NEURON_TYPES = (
    NeuronType(
        "dead",
        "dead",
        "Never fired on any counted token. On more text it might: the dead bound says how rarely, with 95% confidence.",
        ("#4A4A4A", "#A3A9B2"),
        lambda asked: pl.col("dead"),
    ),
    NeuronType(
        "token",
        "token detector",
        "At most {asked.unigrams} tokens make up {asked.coverage}% of its firings, and those at which it fires "
        "{asked.detection}% or more of the times that they occur do so too.",
        ("#0072B2", "#4DB2EC"),
        _detector("token"),
    ),
    NeuronType(
        "bigram",
        "bigram detector",
        "The same for at most {asked.bigrams} pairs of tokens.",
        ("#56B4E9", "#2C7CAE"),
        _detector("bigram"),
    ),
    NeuronType(
        "trigram",
        "trigram detector",
        "The same for at most {asked.trigrams} triples of tokens.",
        ("#009E73", "#23C797"),
        _detector("trigram"),
    ),
    NeuronType(
        "positional",
        "positional",
        "Its firing tells more than {asked.position_mi:g} nats about position.",
        ("#D55E01", "#FF8A4C"),
        lambda asked: pl.col("position_type").is_not_null(),
    ),
    NeuronType(
        "other",
        "other",
        "Of a pattern: none of these. Of a type: none of the types.",
        ("#DADADA", "#3F454E"),
        lambda asked: pl.lit(True),
    ),
)
POSITION_PATTERNS = (
    PositionPattern(
        "oscillatory",
        "oscillatory",
        "Its frequency rises and falls at least {asked.positions.changes} times between its lowest and its "
        "highest {asked.positions.outer:.0%}.",
        ("#5B2A86", "#B78CFF"),
        ("#B999DC", "#6B509A"),
    ),
    PositionPattern(
        "both",
        "both extremes",
        "It nearly never fires in some range of positions and nearly always in another.",
        ("#B83200", "#FF7A3D"),
        ("#F0986E", "#74331A"),
    ),
    PositionPattern(
        "one",
        "one extreme",
        "It nearly never fires, or nearly always, in some range of positions, but not both.",
        ("#00694F", "#2BD4A2"),
        ("#6FC9AB", "#227A64"),
    ),
    PositionPattern(
        "other",
        "other",
        "Of a pattern: none of these. Of a type: none of the types.",
        ("#C99700", "#F7DC4B"),
        ("#F0DC78", "#7C6C20"),
    ),
)
TYPES = tuple(kind.name for kind in NEURON_TYPES)
TYPE_LABELS = {kind.name: kind.label for kind in NEURON_TYPES}
PATTERNS = tuple(pattern.name for pattern in POSITION_PATTERNS)
PATTERN_LABELS = {pattern.name: pattern.label for pattern in POSITION_PATTERNS}
STRENGTHS = ("strong", "weak")
DETECTED = {1: "token", 2: "bigram", 3: "trigram"}  # length of an n-gram: what a detector of it is called


def neuron_type(asked: Thresholds) -> pl.Expr:
    """The column `type`: the first type that holds."""
    kinds = [pl.when(kind.holds(asked)).then(pl.lit(kind.name)) for kind in NEURON_TYPES]
    return pl.coalesce(kinds).alias("type")
