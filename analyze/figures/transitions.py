"""histories of neurons -> which type became which, and when each neuron became what it is."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from analyze.figures.layout import Captioned, in_percent, short, source
from analyze.figures.over_training import MOST_LAYERS, SHOWN, bars, layer_panels, legend_of_types
from analyze.figures.style import FAINT, TYPE_COLOURS, styled
from analyze.neuron_types.taxonomy import TYPES
from analyze.tables.census import Census
from analyze.tables.history import NEURON, history
from analyze.tables.labels import evenly_spaced
from analyze.tables.transitions import transitions

MOST_STEPS = 6  # side by side in a panel
BAR = 0.16  # half the width of a step's bar, in distances of two steps
EASE = np.linspace(0, 1, 13)


@styled
def types_into_types(censuses: Sequence[Census]) -> Captioned:
    """Neurons of every type at some steps, and bands from what they were to what they became: a panel per layer."""
    shown = evenly_spaced(censuses, MOST_STEPS)
    told = history(shown)
    moved = transitions(told)
    layers = evenly_spaced(shown[-1].layers["layer"].to_list(), MOST_LAYERS)
    figure, panels = layer_panels([layers], height=2.3)
    steps = [census.step or 0 for census in shown]
    top = 0.0
    for layer, axes in zip(layers, panels[0], strict=True):
        top = max(top, _flows(axes, told.filter(pl.col("layer") == layer), moved.filter(pl.col("layer") == layer), steps))
        axes.set_title(f"layer {layer}")
        axes.set_xticks(range(len(steps)), [short(step) for step in steps])
    panels[0][0].set_ylim(0, min(1.0, 1.15 * top) or 1)
    panels[0][0].set_ylabel("share of neurons")
    figure.supxlabel("training step", fontsize=8.5)
    legend_of_types(figure, [kind for kind in TYPES if kind in set(told["type"])])
    part = "" if len(shown) == len(censuses) else f" {len(shown)} of {len(censuses)} censuses are drawn."
    return Captioned(
        figure,
        "Neurons followed by their number: a bar holds the types at a step, a band the neurons that are of one type before and of "
        f"another after, in the colour of what they were. Neurons of no type go on above the panel. {source(shown[-1:])}{part}",
    )


def _flows(axes: Axes, told: pl.DataFrame, moved: pl.DataFrame, steps: Sequence[int]) -> float:
    """Draw one layer; returns the greatest share that is of some type."""
    whole = max(1, told.select(NEURON).n_unique())
    counts = {(step, kind): 0.0 for step in steps for kind in TYPES}
    for step, kind, neurons in told.group_by("step", "type").len().rows():
        counts[step, kind] = neurons / whole
    foot = {(step, kind): sum((counts[step, k] for k in TYPES[: TYPES.index(kind)]), 0.0) for step in steps for kind in TYPES}
    for place, step in enumerate(steps):
        for kind in TYPES:
            axes.bar(place, counts[step, kind], width=2 * BAR, bottom=foot[step, kind], color=TYPE_COLOURS[kind], zorder=2)
    leaving, arriving = dict(foot), dict(foot)
    order = {kind: place for place, kind in enumerate(TYPES)}
    rows = [(row[0], row[1], row[3], row[4], row[5] / whole) for row in moved.rows()]
    for before, after, source_type, target, share in sorted(rows, key=lambda r: (steps.index(r[0]), order[r[2]], order[r[3]])):
        begin, end = leaving[before, source_type], arriving[after, target]
        leaving[before, source_type] += share
        arriving[after, target] += share
        if source_type != "other" or target != "other":
            axes.add_patch(_band(steps.index(before), begin, steps.index(after), end, share, TYPE_COLOURS[source_type]))
    in_percent(axes)
    axes.set_xlim(-0.4, len(steps) - 0.6)
    axes.tick_params(axis="x", color=FAINT, length=2)
    return max(sum(counts[step, kind] for kind in SHOWN) for step in steps)


def _band(x0: int, y0: float, x1: int, y1: float, share: float, colour: str) -> Polygon:
    """A band of constant height that leaves and arrives level."""
    x = x0 + BAR + EASE * (x1 - x0 - 2 * BAR)
    y = y0 + (3 * EASE**2 - 2 * EASE**3) * (y1 - y0)
    edge = np.concatenate([np.stack([x, y], axis=1), np.stack([x, y + share], axis=1)[::-1]])
    return Polygon(edge, closed=True, facecolor=colour, alpha=0.55, linewidth=0, zorder=1)


@styled
def births_over_training(censuses: Sequence[Census], born: pl.DataFrame) -> Captioned:
    """At which step the neurons of each final type became, and stayed, of it: bars per census, a panel per layer."""
    layers = evenly_spaced(censuses[-1].layers["layer"].to_list(), MOST_LAYERS)
    steps = [census.step or 0 for census in censuses]
    found = {layer: _births(born.filter(pl.col("layer") == layer), steps) for layer in layers}
    figure, panels = layer_panels([layers])
    for layer, axes in zip(layers, panels[0], strict=True):
        bars(axes, found[layer], steps)
        axes.set_title(f"layer {layer}")
    panels[0][0].set_ylim(0, 1.1 * max(float(share.sum(axis=1).max()) for share in found.values()) or 1)
    panels[0][0].set_ylabel("share of neurons")
    figure.supxlabel("training step from which on they are what they are at the end", fontsize=8.5)
    legend_of_types(figure, [kind for i, kind in enumerate(SHOWN) if any(share[:, i].any() for share in found.values())])
    return Captioned(
        figure,
        "Neurons by the census from which on they are of the type that they have at the end; at the first census stand those that were so "
        f"from the beginning. Neurons of no type at the end are left out. {source(censuses[-1:])}",
    )


def _births(born: pl.DataFrame, steps: Sequence[int]) -> np.ndarray:
    """Census by type: share of the layer's neurons that are born there as what they stay."""
    counts = {row[:2]: row[2] for row in born.group_by("born_step", "type").len().rows()}
    return np.array([[counts.get((step, kind), 0) for kind in SHOWN] for step in steps]) / max(1, born.height)
