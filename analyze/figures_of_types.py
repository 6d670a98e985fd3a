"""neuron and layer tables -> the paper's Figures 1 to 4: dead neurons, and the tokens that trigger the living."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analyze.drawing import (
    Captioned,
    from_zero,
    in_percent,
    labels,
    layer_columns,
    legend_below,
    line_styles,
    of_all,
    panels,
    say,
    source,
    spread,
)
from analyze.folder import Census
from analyze.palette import FAINT, INK, PALETTE, PAPER, ramp, styled

MOST_LINES = 8
UNIGRAM_BUCKETS = {
    "unigrams_1_5": "1–5",
    "unigrams_6_10": "6–10",
    "unigrams_11_20": "11–20",
    "unigrams_21_50": "21–50",
    "unigrams_51_200": "51–200",
    "unigrams_201_1000": "201–1k",
    "unigrams_1001_2000": "1k–2k",
    "unigrams_over_2000": "over 2k",
}


@styled
def dead_and_frequency(censuses: Sequence[Census]) -> Captioned:
    """Share of dead neurons per layer (paper, Figure 1a) and mean frequency of the alive ones (Figure 1b)."""
    shown = spread(censuses, MOST_LINES)
    figure, ((dead, frequency),) = panels(1, 2, 3.7, 2.7)
    for census, style, label in zip(shown, line_styles(shown), labels(shown), strict=True):
        for axes, column in ((dead, "dead_share"), (frequency, "mean_frequency_alive")):
            axes.plot(census.layers["layer"], census.layers[column], label=label, **style)
    for axes, letter, title in ((dead, "a", "dead neurons"), (frequency, "b", "mean frequency of alive neurons")):
        _layer_lines(axes, f"({letter}) {title}")
        in_percent(axes)
    dead.set_ylabel("share of the layer's neurons")
    frequency.set_ylabel("share of counted tokens")
    if len(shown) > 1:
        legend_below(figure, dead.get_lines())
    bound = max(float(census.meta["dead_bound"]) for census in censuses)
    return Captioned(
        figure,
        f"(a) Neurons that never fired, and (b) how often the others fire, by layer. {source(censuses)}{of_all(shown, censuses)} "
        f"With 95% confidence a neuron seen dead fires on less than {bound:.1e} of tokens.",
    )


@styled
def dead_against_tokens(census: Census) -> Captioned:
    """Share of neurons not yet seen firing, by layer, against the tokens read: does the dead share still fall?"""
    figure, ((axes,),) = panels(1, 1, 5.2, 2.9)
    layers = census.layers["layer"].to_list()
    read = np.unique(np.geomspace(1, census.n_tokens, 160).round().astype(np.int64))
    lines = []
    for layer, colour in zip(layers, reversed(ramp(len(layers))), strict=True):
        here = census.neurons.filter(pl.col("layer") == layer)
        first = np.sort(here["first_fired"].drop_nulls().to_numpy())
        silent = 1 - np.searchsorted(first, read, side="left") / here.height
        lines += axes.plot(read, silent, color=colour, drawstyle="steps-post", label=f"layer {layer}")
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    in_percent(axes)
    axes.grid(visible=True)
    axes.set_xlabel("counted tokens read")
    axes.set_ylabel("neurons not yet seen firing")
    figure.legend(handles=spread(lines, MOST_LINES), loc="outside right center")
    return Captioned(
        figure,
        f"Share of each layer's neurons that have not fired yet, against the counted tokens read, in corpus order; the right end is the "
        f"dead share. {source([census])}",
    )


@styled
def unigram_buckets(censuses: Sequence[Census]) -> Captioned:
    """Alive neurons by the number of tokens that make up 95% of their firings, per layer (paper, Figure 2)."""
    figure, grid = panels(1, len(censuses), 5.2 if len(censuses) == 1 else 3.6, 2.8, sharey=True)
    colours = list(reversed(ramp(len(UNIGRAM_BUCKETS))))
    for axes, census, label in zip(grid[0], censuses, labels(censuses), strict=True):
        table = census.layers
        alive = (table["neurons"] - table["dead"]).to_numpy()
        bottom = np.zeros(table.height)
        for column, colour in zip(UNIGRAM_BUCKETS, colours, strict=True):
            share = table[column].to_numpy() / np.maximum(alive, 1)
            axes.bar(range(table.height), share, bottom=bottom, width=0.86, color=colour, edgecolor=PAPER, linewidth=0.3)
            bottom += share
        layer_columns(axes, table["layer"].to_list())
        axes.set_title(label if len(censuses) > 1 else "")
        in_percent(axes)
    grid[0, 0].set_ylabel("share of alive neurons")
    handles = [_square(colour, words) for colour, words in zip(colours, UNIGRAM_BUCKETS.values(), strict=True)]
    figure.legend(handles=handles[::-1], loc="outside right center", title="tokens")
    coverage = censuses[0].meta["thresholds"]["coverage"]
    return Captioned(
        figure, f"Alive neurons by the least number of tokens that make up {coverage}% of their firings. {source(censuses)}"
    )


@styled
def token_detectors(censuses: Sequence[Census]) -> Captioned:
    """Token detectors per layer (paper, Figure 3a) and detected tokens, per layer and cumulatively (Figure 3b)."""
    shown = spread(censuses, MOST_LINES)
    any_detector = any(census.layers["token_detectors"].sum() for census in shown)
    figure, ((detectors, tokens),) = panels(1, 2, 3.7, 2.8 if any_detector else 1.2)
    caption = (
        "(a) Neurons that fire if and only if the token is one of a few, by layer; (b) the tokens they detect: solid, in the layer; "
        f"dashed, in it or any layer below. {source(censuses)}{of_all(shown, censuses)} A detector needs at most "
        f"{censuses[0].meta['thresholds']['unigrams']} tokens for "
        f"{censuses[0].meta['thresholds']['coverage']}% of its firings."
    )
    for census, style, label in zip(shown, line_styles(shown), labels(shown), strict=True):
        table = census.layers
        detectors.plot(table["layer"], table["token_detectors"], label=label, **style)
        tokens.plot(table["layer"], table["detected_tokens"], **style)
        tokens.plot(table["layer"], table["detected_tokens_cumulative"], color=style["color"], linestyle="--")
    _layer_lines(detectors, "(a) token-detecting neurons", whole=True)
    _layer_lines(tokens, "(b) tokens that have a detecting neuron", whole=True)
    detectors.set_ylabel("neurons")
    tokens.set_ylabel("distinct tokens")
    if not any_detector:
        for axes, sentence in (
            (detectors, "There is no token detector\nin any layer."),
            (tokens, "No token has\na detecting neuron."),
        ):
            say(axes, sentence)
        return Captioned(figure, caption)
    kinds = [Line2D([], [], color=INK, label="in the layer"), Line2D([], [], color=INK, linestyle="--", label="up to the layer")]
    legend_below(figure, [*(detectors.get_lines() if len(shown) > 1 else []), *kinds])
    return Captioned(figure, caption)


@styled
def detected_tokens_new(censuses: Sequence[Census]) -> Captioned:
    """Detected tokens per layer, and how many are new overall or new against the layer before (paper, Figure 4)."""
    any_detected = any(census.layers["detected_tokens"].sum() for census in censuses)
    figure, grid = panels(1, len(censuses), 5.2 if len(censuses) == 1 else 3.6, 2.7 if any_detected else 1.2, sharey=True)
    caption = (
        "Tokens that have a detecting neuron in each layer; darker, those that the layer before does not detect, and darkest, those that "
        f"no layer below detects. {source(censuses)}"
    )
    parts = {
        "detected_tokens": ("detected in the layer", PALETTE["type-other"][0]),
        "detected_tokens_new_vs_previous": ("not in the layer before", PALETTE["type-bigram"][0]),
        "detected_tokens_new": ("in no layer below", PALETTE["type-token"][0]),
    }
    for axes, census, label in zip(grid[0], censuses, labels(censuses), strict=True):
        axes.set_title(label if len(censuses) > 1 else "")
        for column, (_, colour) in parts.items():  # each a subset of the one before, drawn over it
            axes.bar(range(census.layers.height), census.layers[column], width=0.8, color=colour)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        layer_columns(axes, census.layers["layer"].to_list())
    if not any_detected:
        for axes in grid[0]:
            say(axes, "No token has\na detecting neuron.")
        return Captioned(figure, caption)
    grid[0, 0].set_ylabel("distinct tokens")
    legend_below(figure, [_square(colour, words) for words, colour in parts.values()])
    return Captioned(figure, caption)


def _layer_lines(axes: Axes, title: str, whole: bool = False) -> None:
    axes.set_title(title)
    axes.set_xlabel("layer")
    from_zero(axes, max(float(np.nan_to_num(np.asarray(line.get_ydata(), dtype=float)).max()) for line in axes.get_lines()))
    axes.grid(visible=True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if whole:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _square(colour: str, words: str) -> Patch:
    return Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.3, label=words)
