"""neuron and n-gram tables -> the block of numbers that a page's table of neurons reads."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import polars as pl

from analyze.neuron_types.taxonomy import PATTERN_LABELS, PATTERNS, STRENGTHS, TYPE_LABELS, TYPES
from analyze.page.binary_payload import Array, packed, rounded, whole
from analyze.page.neuron_curves import curves
from analyze.storage.census_files import checked
from analyze.tables.census import Census
from analyze.tables.neurons import ALL

MOST_ROWS = 100_000
MOST_NGRAMS = 30  # of each length that a neuron's panel lists
NGRAMS = {1: "tokens", 2: "bigrams", 3: "trigrams"}
PATTERN_CODES = [f"{kind} {strength}" for kind in PATTERNS for strength in STRENGTHS]
LISTS = ("top_promoted", "top_suppressed")
NUMBERS = {
    column.name: column.label for column in ALL if column.label
}  # lines of a neuron's own panel, and their words in the glossary


def table_block(census: Census, most: int | None = None) -> str:
    """Everything that the scripts of a page draw its table and its neurons from: `most` neurons, by default `MOST_ROWS`."""
    rows = table_rows(census, most).with_row_index("row")
    arrays = dict(chain(_columns(rows), _lists(rows), _ngrams(census, rows), _curves(census, rows)))
    tokens = _used(arrays)
    content = {
        "title": census.title,
        "n_tokens": census.n_tokens,
        "types": [TYPE_LABELS[kind] for kind in TYPES],
        "patterns": [f"{PATTERN_LABELS[kind]}, {strength}" for kind in PATTERNS for strength in STRENGTHS],
        "colours": [pattern.replace(" ", "-") for pattern in PATTERN_CODES],
        "lengths": list(NGRAMS.values()),
        "numbers": [(name, word) for name, word in NUMBERS.items() if name in arrays],
        "texts": [census.token_text(token) for token in tokens.tolist()],
    }
    return packed(content, arrays | {"tokens": tokens.astype("i4")})


def table_rows(census: Census, most: int | None = None) -> pl.DataFrame:
    """The neurons in the page's table: all, or of a very large model the most telling, and of equally telling ones some in every layer."""
    most = MOST_ROWS if most is None else most
    if census.neurons.height <= most:
        return census.neurons
    return census.neurons.sort(_rank(), "neuron", "layer").head(most).sort("layer", "neuron")


def left_out(census: Census, most: int | None = None) -> str:
    """Which neurons the page's table lacks, in words; empty where it holds all."""
    height, most = census.neurons.height, MOST_ROWS if most is None else most
    if height <= most:
        return ""
    kept = table_rows(census, most).select(_rank().alias("rank"))["rank"]
    every = census.neurons.select(_rank().alias("rank"))["rank"]
    names = ("token detectors and positional neurons", "bigram and trigram detectors", "other alive neurons", "dead neurons")
    shares = [
        f"{'all' if here == there else f'{here:,} of'} {there:,} {name}"
        for rank, name in enumerate(names)
        if (here := int((kept == rank).sum())) | (there := int((every == rank).sum()))
    ]
    return f"The table holds {most:,} of {height:,} neurons: {', '.join(shares)}. neurons.parquet beside this page holds all."


def _rank() -> pl.Expr:
    """How soon a neuron goes into the table of a very large model: 0 first."""
    telling = pl.col("token_detector") | pl.col("position_type").is_not_null()
    return (
        pl.when(telling)
        .then(0)
        .when(pl.col("type").is_in(["bigram", "trigram"]))
        .then(1)
        .when(~pl.col("dead"))
        .then(2)
        .otherwise(3)
    )


def _columns(rows: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    """Types and patterns as codes (-1 or 255: none), other columns as they are, under their own names."""
    yield "type", codes(rows["type"], TYPES)
    strength = pl.when("position_strong").then(pl.lit(" strong")).otherwise(pl.lit(" weak"))
    yield "pattern", codes(rows.select(pl.col("position_type") + strength).to_series(), PATTERN_CODES)
    for name, kind in rows.schema.items():
        if kind.is_integer() and name not in ("row", "n_tokens"):
            yield name, whole(rows[name])
        elif kind.is_float():
            yield name, rounded(rows[name])
        elif kind == pl.Boolean and rows[name].null_count():
            yield name, whole(rows[name].cast(pl.Int8))


def codes(words: pl.Series, known: tuple[str, ...] | list[str]) -> Array:
    return whole(words.replace_strict(list(known), range(len(known)), return_dtype=pl.Int32))


def _lists(rows: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    """Tokens that neurons promote and suppress, one list after another."""
    for name in LISTS:
        if name in rows.columns:
            yield f"{name}_first", _firsts(rows[name].list.len())
            yield name, whole(rows[name].explode(empty_as_null=False).drop_nulls())


def _ngrams(census: Census, rows: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    """Detected n-grams with their counts, most fired first, at most `MOST_NGRAMS` a neuron, and how many there are in all."""
    table = pl.scan_parquet(checked(census.path, census.meta, "ngrams.parquet"), glob=False).join(
        rows.lazy().select("layer", "neuron", "row"), on=["layer", "neuron"], maintain_order="left"
    )
    for n, name in NGRAMS.items():
        here = table.filter(pl.col("n") == n).sort("row", -pl.col("fires"), maintain_order=True)
        listed = here.group_by("row", maintain_order=True).head(MOST_NGRAMS).collect()
        if not listed.height:
            continue
        in_all, first = (rows.join(each.group_by("row").len(), "row", "left").sort("row")["len"].fill_null(0)
                         for each in (here.collect(), listed))  # fmt: skip
        yield f"{name}_in_all", whole(in_all)
        yield f"{name}_first", _firsts(first)
        yield f"{name}_ids", listed["ids"].explode(empty_as_null=False).to_numpy().astype("i4")
        yield f"{name}_fires", whole(listed["fires"])
        yield f"{name}_occurrences", whole(listed["occurrences"])


def _firsts(lengths: pl.Series) -> Array:
    """Where each row's part begins, and at last where all end."""
    return np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy(), dtype=np.int64)]).astype("i4")


def _curves(census: Census, rows: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    for name, found in curves(census, rows).items():
        yield f"{name}_rows", found.rows.astype("i4")
        yield f"{name}_places", np.array(found.places, "f4")
        yield f"{name}_greatest", found.greatest.astype("f4")
        yield f"{name}_points", found.points.reshape(-1)


def _used(arrays: dict[str, Array]) -> Array:
    """All token ids that any list names, ascending."""
    named = [arrays[name] for name in (*LISTS, *(f"{name}_ids" for name in NGRAMS.values())) if name in arrays]
    every = np.unique(np.concatenate(named)) if named else np.zeros(0, np.int64)
    return every[every >= 0]
