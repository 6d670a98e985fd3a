"""layer tables -> the paper's Figures 2 to 4 and 12 to 15: how many n-grams trigger a neuron, detectors, and what they detect."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analyze.figures.layout import (
    UNTRAINED,
    Captioned,
    dashed,
    in_percent,
    labels,
    layer_columns,
    layer_lines,
    legend_below,
    line_styles,
    of_all,
    panels,
    say,
    short,
    side_by_side,
    source,
    with_untrained,
)
from analyze.figures.style import FAINT, INK, PALETTE, PAPER, ramp, styled
from analyze.neuron_types.taxonomy import DETECTED
from analyze.tables.census import Census
from analyze.tables.labels import evenly_spaced
from analyze.tables.layers import BUCKETS, bucket_columns

MOST_LINES = 8
PLURAL = {1: "unigrams", 2: "bigrams", 3: "trigrams"}


@styled
def ngram_buckets(censuses: Sequence[Census], n: int, null: Census | None = None) -> Captioned:
    """Alive neurons by the number of n-grams that cover them, per layer (paper, Figures 2, 12 and 13 for n = 1, 2, 3).

    The paper shows the first half of the layers: those left of the dotted line.
    """
    name, columns = DETECTED[n] + "s", bucket_columns(PLURAL[n])
    shown = with_untrained(censuses, null)
    figure, grid = side_by_side(len(shown), 5.2 if len(shown) == 1 else 2.9, 2.8, sharey=True)
    colours = list(reversed(ramp(len(columns))))
    for axes, (census, label) in zip(grid, shown, strict=True):
        _stacked(axes, census, columns, colours)
        axes.set_title(label if len(shown) > 1 else "")
        dashed(axes, label)
    grid[0].set_ylabel("share of alive neurons")
    words = _bucket_words(BUCKETS[PLURAL[n]])
    handles = [_square(colour, label) for colour, label in zip(colours, words, strict=True)]
    figure.legend(handles=handles[::-1], loc="outside right center", title=name)
    return Captioned(
        figure,
        f"Alive neurons by the least number of {name} that make up {censuses[0].thresholds.coverage}% of their firings; left of the "
        f"dotted line, the first half of the layers. {source(censuses, null)}",
    )


def _stacked(axes: Axes, census: Census, columns: Sequence[str], colours: Sequence[str]) -> None:
    table = census.layers
    alive = (table["neurons"] - table["dead"]).to_numpy()
    bottom = np.zeros(table.height)
    for column, colour in zip(columns, colours, strict=True):
        share = table[column].to_numpy() / np.maximum(alive, 1)
        axes.bar(range(table.height), share, bottom=bottom, width=0.86, color=colour, edgecolor=PAPER, linewidth=0.3)
        bottom += share
    layer_columns(axes, table["layer"].to_list())
    half = int((table["layer"] < census.meta["checkpoint"]["model"]["layers"] / 2).sum())
    if 0 < half < table.height:
        axes.axvline(half - 0.5, color=INK, linestyle=":", linewidth=1.2)
    in_percent(axes)


def _bucket_words(bounds: Sequence[int]) -> list[str]:
    """1–5, 6–10, ..., over 2k: the paper's words, where 1k–2k begins at 1001."""
    starts = [low + 1 if low < 1000 else low for low in bounds[:-1]]
    return [
        *(f"{short(low)}–{short(high)}" for low, high in zip(starts, bounds[1:], strict=True)),
        f"over {short(bounds[-1])}",
    ]


@styled
def detectors(censuses: Sequence[Census], n: int, null: Census | None = None) -> Captioned:
    """Detectors per layer (paper, Figures 3a and 14a for n = 1 and 3) and what they detect, per layer and cumulatively (3b, 14b)."""
    kind, asked = DETECTED[n], censuses[0].thresholds
    shown = evenly_spaced(censuses, MOST_LINES)
    any_detector = any(census.layers[f"{kind}_detectors"].sum() for census in shown)
    figure, ((neurons, ngrams),) = panels(1, 2, 3.7, 2.8 if any_detector else 1.2)
    caption = (
        f"(a) Neurons that fire if and only if the {kind} is one of a few, by layer; (b) the {kind}s they detect: solid, in the layer; "
        f"dashed, in it or any layer below. {source(censuses, null)}{of_all(shown, censuses)} A detector needs at most "
        f"{getattr(asked, PLURAL[n])} {kind}s for {asked.coverage}% of its firings, and fires at {asked.detection}% of their occurrences."
    )
    if not any_detector:
        say(neurons, f"There is no {kind} detector\nin any layer.")
        say(ngrams, f"No {kind} has\na detecting neuron.")
        return Captioned(figure, caption)
    for census, style, label in zip(shown, line_styles(shown), labels(shown), strict=True):
        table = census.layers
        neurons.plot(table["layer"], table[f"{kind}_detectors"], label=label, **style)
        ngrams.plot(table["layer"], table[f"detected_{kind}s"], **(style | {"linestyle": "-"}))
        ngrams.plot(table["layer"], table[f"detected_{kind}s_cumulative"], color=style["color"], linestyle="--")
    if null:
        neurons.plot(null.layers["layer"], null.layers[f"{kind}_detectors"], color=FAINT, linestyle="--", label=UNTRAINED)
    layer_lines(neurons, f"(a) {kind}-detecting neurons", whole=True)
    layer_lines(ngrams, f"(b) {kind}s that have a detecting neuron", whole=True)
    neurons.set_ylabel("neurons")
    ngrams.set_ylabel(f"distinct {kind}s")
    kinds = [Line2D([], [], color=INK, label="in the layer"), Line2D([], [], color=INK, linestyle="--", label="up to the layer")]
    legend_below(figure, [*(neurons.get_lines() if len(neurons.get_lines()) > 1 else []), *kinds])
    return Captioned(figure, caption)


@styled
def detected_new(censuses: Sequence[Census], n: int, null: Census | None = None) -> Captioned:
    """Detected n-grams per layer, how many are new overall or new against the layer before (paper, Figures 4 and 15 for n = 1 and 3)."""
    kind = DETECTED[n]
    any_detected = any(census.layers[f"detected_{kind}s"].sum() for census in censuses)
    shown = with_untrained(censuses, null if any_detected else None)
    figure, grid = side_by_side(len(shown), 5.2 if len(shown) == 1 else 2.9, 2.7 if any_detected else 1.2, sharey=True)
    caption = (
        f"Distinct {kind}s that have a detecting neuron in each layer; darker, those that the layer before does not detect, and darkest, "
        f"those that no layer below detects. {source(censuses, null)} Detected: its neuron fires at "
        f"{censuses[0].thresholds.detection}% of its occurrences."
    )
    parts = {
        f"detected_{kind}s": ("detected in the layer", PALETTE["type-other"][0]),
        f"detected_{kind}s_new_vs_previous": ("not in the layer before", PALETTE["type-bigram"][0]),
        f"detected_{kind}s_new": ("in no layer below", PALETTE["type-token"][0]),
    }
    for axes, (census, label) in zip(grid, shown, strict=True):
        axes.set_title(label if len(shown) > 1 else "")
        for column, (_, colour) in parts.items():  # each a subset of the one before, drawn over it
            axes.bar(range(census.layers.height), census.layers[column], width=0.8, color=colour)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        layer_columns(axes, census.layers["layer"].to_list())
        dashed(axes, label)
        if not any_detected:
            say(axes, f"No {kind} has\na detecting neuron.")
        elif not census.layers[f"detected_{kind}s"].sum():
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=FAINT)
    if any_detected:
        grid[0].set_ylabel(f"distinct {kind}s")
        legend_below(figure, [_square(colour, words) for words, colour in parts.values()])
    return Captioned(figure, caption)


def _square(colour: str, words: str) -> Patch:
    return Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.3, label=words)
