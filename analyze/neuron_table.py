"""neuron table -> the JSON that a page's searchable table reads: numbers by column, curves in a few bytes each."""

import json
from base64 import b64encode
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from analyze.folder import Census
from analyze.palette import POSITION_TYPES, STRENGTHS, TYPES

MOST_ROWS = 100_000  # more would make a page of over 10 MB
MOST_CURVES = 6_000
POINTS = 128
NUMBERS = {  # columns of a neuron's own panel, where the census has them
    "n_fired_bos": "fired at BOS, times",
    "max_pre": "greatest pre-activation",
    "first_fired": "first fired at counted token",
    "unigrams_95": "tokens for 95% of firings",
    "bigrams_95": "bigrams for 95%",
    "trigrams_95": "trigrams for 95%",
    "token_support": "firings on well-seen detected tokens",
    "n_detected_bigrams": "detected bigrams",
    "n_detected_trigrams": "detected trigrams",
    "position_mi": "mutual information with position, nats",
    "position_mi_corrected": "the same, bias corrected",
    "last_position_95": "95% of firings up to place",
    "trigger_projection": "projection on its triggers",
    "trigger_projection_centered": "the same, centered",
    "suppresses_trigger": "writes against its triggers",
}
LISTS = {"detected": "detected tokens", "promoted": "promotes most", "suppressed": "suppresses most"}
LIST_COLUMNS = {"detected": "detected_tokens", "promoted": "top_promoted", "suppressed": "top_suppressed"}


def table_rows(census: Census) -> pl.DataFrame:
    """The neurons in the page's table: all, or of a very large model those with a type first."""
    if census.neurons.height <= MOST_ROWS:
        return census.neurons
    telling = pl.col("token_detector") | pl.col("position_type").is_not_null()
    rank = (
        pl.when(telling).then(0).when(~pl.col("type").is_in(["dead", "other"])).then(1).when(~pl.col("dead")).then(2).otherwise(3)
    )
    return census.neurons.sort(rank, "layer", "neuron").head(MOST_ROWS).sort("layer", "neuron")


def table_json(census: Census) -> str:
    """Everything `report.js` draws from, safe inside a <script> element whatever the tokens are."""
    rows = table_rows(census).with_row_index("row")
    numbers = [name for name in NUMBERS if name in rows.columns]
    patterns = [f"{kind} {strength}" for kind in POSITION_TYPES for strength in STRENGTHS]
    strength = pl.when("position_strong").then(pl.lit(" strong")).otherwise(pl.lit(" weak"))
    codes = rows.select(
        pl.col("type").replace_strict(list(TYPES), range(len(TYPES)), return_dtype=pl.Int8),
        (pl.col("position_type") + strength)
        .replace_strict(patterns, range(8), default=-1, return_dtype=pl.Int8)
        .alias("position"),
    )
    lists = {key: _lists(rows, column) for key, column in LIST_COLUMNS.items()}
    used = sorted({token for ids in lists.values() for row in ids.values() for token in row})
    places, curves = _curves(census, rows)
    content: dict[str, Any] = {
        "n_tokens": census.n_tokens,
        "types": TYPES,
        "positions": patterns,
        "columns": {name: _values(rows[name]) for name in dict.fromkeys(["layer", "neuron", "n_fired", *numbers])}
        | {name: codes[name].to_list() for name in codes.columns},
        "numbers": [(name, NUMBERS[name]) for name in numbers],
        "lists": list(LISTS.items()),
        "tokens": {token: census.token_text(token) for token in used},
        "places": places,
        "curves": curves,
        **lists,
    }
    return for_script(content)


def for_script(content: object) -> str:
    """JSON that no token text can break out of: `<`, `>` and `&` stand as escapes."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _values(column: pl.Series) -> list[Any]:
    return (column.cast(pl.Float64).fill_nan(None).round_sig_figs(4) if column.dtype.is_float() else column).to_list()


def _lists(rows: pl.DataFrame, column: str) -> dict[int, list[int]]:
    if column not in rows.columns:
        return {}
    return dict(rows.filter(pl.col("token_detector") & (pl.col(column).list.len() > 0)).select("row", column).iter_rows())


def _curves(census: Census, rows: pl.DataFrame) -> tuple[list[int], dict[int, str]]:
    """Curves of the positional neurons and of the detectors, the most positional first, a byte per point (255 is always)."""
    wanted = rows.filter(pl.col("position_type").is_not_null() | pl.col("token_detector"))
    wanted = wanted.sort("position_mi_corrected", descending=True).head(MOST_CURVES).sort("row")
    places = np.flatnonzero(census.seen_at)
    bins = np.array_split(places, min(POINTS, max(len(places), 1)))
    curves: dict[int, str] = {}
    for (layer,), part in wanted.group_by("layer", maintain_order=True):
        coarse = _coarse(census.position_curves(int(layer), part["neuron"].to_list()), bins)
        curves |= {row: b64encode(curve.tobytes()).decode() for row, curve in zip(part["row"], coarse, strict=True)}
    return [round(float(part.mean())) if len(part) else 0 for part in bins], curves


def _coarse(curves: Float[np.ndarray, "neuron position"], bins: list[np.ndarray]) -> np.ndarray:
    means = np.stack([curves[:, part].mean(axis=1) if len(part) else np.zeros(len(curves)) for part in bins], axis=1)
    return np.asarray(np.rint(255 * means), dtype=np.uint8)
