"""neuron and layer tables -> the paper's Figure 5, what detectors write, and in place of its schematic Figure 6 the numbers it claims."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from analyze.figures.layout import (
    Captioned,
    in_percent,
    labels,
    layer_columns,
    legend_below,
    panels,
    printable,
    say,
    side_by_side,
    source,
)
from analyze.figures.style import FAINT, INK, PALETTE, styled
from analyze.neuron_types.trigger_suppression import TOO_LOOSE, answerable
from analyze.tables.census import Census

COLUMNS, WRITTEN = 4, 5  # detectors in the table, and tokens at either end of what they write
LINE, WIDTH = 0.17, 1.85  # inches of a line of text and of a column
LONGEST = 17  # characters of a token; longer ones are cut
PROMOTED, SUPPRESSED = PALETTE["line-0"][0], PALETTE["line-1"][0]
CONVENTIONS = {"raw": "as written", "centered": "centered", "gain": "with the final LayerNorm's gain"}


@styled
def what_detectors_write(census: Census) -> Captioned:
    """Detected, most promoted and most suppressed tokens of some token detectors (paper, Figure 5)."""
    asked = census.thresholds
    caption = (
        f"Token detectors, of each layer the one that fires most, at most {COLUMNS} layers: the tokens they detect, and those whose "
        "logits they raise and lower most each time they fire; detected ones are bold. "
        f"{source([census])} At most {asked.unigrams} tokens make up {asked.coverage}% of a detector's firings, {asked.support:.0%} of "
        f"them on tokens that occur at least {asked.support_occurrences} times."
    )
    chosen = _most_firing(census)
    if chosen.is_empty() or "top_promoted" not in chosen.columns:
        figure, ((axes,),) = panels(1, 1, 7.4, 1.2)
        weights = "The weights were not at hand when this census\nwas added up, so what detectors write is not known."
        say(axes, _no_detector(census) if chosen.is_empty() else weights)
        return Captioned(figure, caption)
    columns = [_column(census, row) for row in chosen.iter_rows(named=True)]
    tallest = max(len(detected) for _, detected, _, _ in columns)
    lines = 1.6 + tallest + 0.8 + 2 * WRITTEN + 1
    figure, ((axes,),) = panels(1, 1, 1.0 + WIDTH * len(columns), LINE * lines + 0.3)
    axes.set_axis_off()
    axes.set_xlim(-1.0, WIDTH * len(columns))
    axes.set_ylim(lines, 0)
    _heads(axes, tallest, len(columns))
    for place, column in enumerate(columns):
        _write_column(axes, place * WIDTH + 0.1, tallest, *column)
    return Captioned(figure, caption)


def _most_firing(census: Census) -> pl.DataFrame:
    """The detector that fires most of each layer, of some layers; more of a layer if there are few."""
    found = census.neurons.filter(pl.col("type") == "token").sort("n_fired", descending=True)
    rank = pl.int_range(pl.len()).over("layer")
    return found.with_columns(rank.alias("rank")).sort("rank", "layer").head(COLUMNS).sort("layer", "rank")


def _no_detector(census: Census) -> str:
    letter = int(census.neurons["token_detector"].sum())
    if not letter:
        return "There is no token detector in any layer."
    return f"None of {letter:,} token detectors fires on well-seen tokens (token_support is below {census.thresholds.support:g})."


def _no_share(census: Census) -> str:
    if census.neurons["token_detector"].any() and not answerable(census.thresholds):
        return "\n".join(wrap(TOO_LOOSE, 44))
    return _no_detector(census)


Written = tuple[str, str, bool]  # by how much, which token, whether detected


def _column(census: Census, row: dict[str, Any]) -> tuple[str, list[str], list[Written], list[Written]]:
    detected = [printable(census.token_text(token), LONGEST) for token in row["detected_tokens"]]
    by = census.written(row["layer"], row["neuron"])
    ends = {}
    for name in ("top_promoted", "top_suppressed"):
        values = [f"{value:.2f}" for value in by[name]] if name in by else [""] * len(row[name])
        texts = [(printable(census.token_text(token), LONGEST), token in row["detected_tokens"]) for token in row[name]]
        ends[name] = [(value, *text) for value, text in zip(values, texts, strict=True)][:WRITTEN]
    lines = wrap(", ".join(detected), 27, break_long_words=False)
    short = lines if len(lines) <= 4 else [*lines[:3], "…"]
    return f"L{row['layer']}N{row['neuron']}", short, ends["top_promoted"], ends["top_suppressed"][::-1]


def _heads(axes: Axes, tallest: int, columns: int) -> None:
    for line, words in ((1.6, "detected"), (2.4 + tallest, "promoted"), (3.4 + tallest + WRITTEN, "suppressed")):
        axes.text(-0.95, line, words, va="top", color=INK, fontsize=8)
        axes.plot([-0.95, WIDTH * columns], [line - 0.3] * 2, color=FAINT, linewidth=0.5)


def _write_column(
    axes: Axes,
    x: float,
    tallest: int,
    name: str,
    detected: Sequence[str],
    promoted: Sequence[Written],
    suppressed: Sequence[Written],
) -> None:
    axes.text(x, 0.1, name, va="top", weight="bold")
    for line, words in enumerate(detected):
        axes.text(x, 1.6 + line, words, va="top", fontsize=7.5)
    for start, tokens, colour in ((2.4 + tallest, promoted, PROMOTED), (3.4 + tallest + WRITTEN, suppressed, SUPPRESSED)):
        for line, (value, token, is_detected) in enumerate(tokens):
            axes.text(x + 0.36, start + line, value, va="top", ha="right", fontsize=7.5, color=colour)
            weight = "bold" if is_detected else "normal"
            axes.text(x + 0.44, start + line, token, va="top", fontsize=7.5, color=colour, weight=weight)
    axes.text(x + 0.3, 2.4 + tallest + WRITTEN, "⋮", va="top", ha="right", fontsize=8, color=FAINT)


@styled
def trigger_suppression(censuses: Sequence[Census]) -> Captioned:
    """Share of each layer's detectors that write against their triggers, beside random tokens (the claim behind the paper's Figure 6)."""
    caption = (
        "Share of each layer's token detectors whose update lowers the logits of the tokens that trigger them, in three conventions; "
        f"dashed, of random tokens as frequent as those: what chance gives. {source(censuses)}"
    )
    figure, grid = side_by_side(len(censuses), 5.2 if len(censuses) == 1 else 2.9, 2.8, sharey=True)
    drawn = [_suppressing(axes, census) for axes, census in zip(grid, censuses, strict=True)]
    for axes, label in zip(grid, labels(censuses), strict=True):
        axes.set_title(label if len(censuses) > 1 else "")
    if not any(drawn):
        figure.set_figheight(1.2)
    else:
        first = grid[drawn.index(True)]
        first.set_ylabel("share of token detectors")
        first.tick_params(labelleft=True)
        lines = [line for axes in grid for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        legend_below(figure, list({line.get_label(): line for line in lines}.values()), most=2)
    return Captioned(figure, caption)


def _suppressing(axes: Axes, census: Census) -> bool:
    known = [name for name in CONVENTIONS if f"suppressing_share_{name}" in census.layers.columns]
    if not any(census.layers[f"suppressing_share_{name}"].count() for name in known):
        say(axes, _no_share(census) if known else "The weights were not at hand\nwhen this census was added up.")
        return False
    places = np.arange(census.layers.height)
    for convention, colour in zip(CONVENTIONS, ("line-0", "line-2", "line-3"), strict=True):
        words = CONVENTIONS[convention]
        for before, style, label in (("", "o-", words), ("random_", "--", f"random tokens, {words}")):
            share = census.layers[f"{before}suppressing_share_{convention}"].cast(pl.Float64).fill_null(np.nan).to_numpy()
            if not np.isnan(share).all():
                axes.plot(places, share, style, color=PALETTE[colour][0], label=label)
    axes.set_ylim(-0.04, 1.04)
    in_percent(axes)
    axes.grid(visible=True, axis="y")
    layer_columns(axes, census.layers["layer"].to_list())
    return True
