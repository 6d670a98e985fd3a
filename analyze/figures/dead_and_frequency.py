"""neuron and layer tables -> the paper's Figure 1: dead neurons, and how often the living fire."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from analyze.figures.layout import (
    UNTRAINED,
    Captioned,
    in_percent,
    in_powers,
    labels,
    layer_lines,
    legend_below,
    line_styles,
    of_all,
    panels,
    source,
)
from analyze.figures.style import FAINT, ramp, styled
from analyze.tables.census import Census
from analyze.tables.labels import evenly_spaced

MOST_LINES = 8


@styled
def dead_and_frequency(censuses: Sequence[Census], null: Census | None = None) -> Captioned:
    """Share of dead neurons per layer (paper, Figure 1a) and mean frequency of the alive ones (Figure 1b).

    Models that have not been trained (`null`, a milestone at step 0) are dashed.
    """
    shown = evenly_spaced(censuses, MOST_LINES)
    figure, ((dead, frequency),) = panels(1, 2, 3.7, 2.7)
    for axes, column in ((dead, "dead_share"), (frequency, "mean_frequency_alive")):
        for census, style, label in zip(shown, line_styles(shown), labels(shown), strict=True):
            axes.plot(census.layers["layer"], census.layers[column], label=label, **style)
        if null:
            axes.plot(null.layers["layer"], null.layers[column], color=FAINT, linestyle="--", label=UNTRAINED)
    for axes, letter, title in ((dead, "a", "dead neurons"), (frequency, "b", "mean frequency of alive neurons")):
        layer_lines(axes, f"({letter}) {title}")
        in_percent(axes)
    dead.set_ylabel("share of the layer's neurons")
    frequency.set_ylabel("share of counted tokens")
    if len(dead.get_lines()) > 1:
        legend_below(figure, dead.get_lines())
    bound = max(float(census.meta["dead_bound"]) for census in censuses)
    return Captioned(
        figure,
        f"(a) Neurons that never fired, and (b) how often the others fire, by layer. {source(censuses, null)}"
        f"{of_all(shown, censuses)} Fires: a pre-activation above 0. With 95% confidence a neuron seen dead fires on less than "
        f"{bound:.1e} of tokens.",
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
    in_powers(axes.xaxis)
    axes.set_ylim(0, 1)
    in_percent(axes)
    axes.grid(visible=True)
    axes.set_xlabel("counted tokens read")
    axes.set_ylabel("neurons not yet seen firing")
    figure.legend(handles=evenly_spaced(lines, MOST_LINES), loc="outside right center")
    return Captioned(
        figure,
        f"Share of each layer's neurons that have not fired yet, against the counted tokens read, in corpus order; the right end is the "
        f"dead share. {source([census])}",
    )
