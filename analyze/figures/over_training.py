"""neuron tables of a run's censuses -> how the types' shares change while the model trains."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyze.figures.layout import Captioned, in_percent, in_powers, legend_below, panels, short, source
from analyze.figures.style import FAINT, TYPE_COLOURS, ramp, styled
from analyze.neuron_types.taxonomy import TYPE_LABELS, TYPES
from analyze.tables.census import Census
from analyze.tables.labels import evenly_spaced

SHOWN = TYPES[:-1]  # the rest to 100% is "other"
LAYERS_IN_A_ROW, MOST_LAYERS = 6, 12


@styled
def types_over_training(*runs: Sequence[Census]) -> Captioned:
    """Shares of the neuron types at each census, a panel per layer, rows for each run (extends the paper's Figure 11)."""
    layers = evenly_spaced(runs[0][-1].layers["layer"].to_list(), MOST_LAYERS)
    figure, grid = layer_panels([layers] * len(runs))
    shares = {(run, layer): _shares(runs[run], layer) for run in range(len(runs)) for layer in layers}
    top = max(float(share.sum(axis=1).max()) for share in shares.values())
    for (run, layer), share in shares.items():
        axes = grid[run][layers.index(layer)]
        bars(axes, share, [census.step or 0 for census in runs[run]])
        axes.set_title(f"layer {layer}")
        if layers.index(layer) % LAYERS_IN_A_ROW == 0:
            axes.set_ylabel(runs[run][0].run if len(runs) > 1 else "share of neurons")
    grid[0][0].set_ylim(0, min(1.0, 1.1 * top) or 1)
    figure.supxlabel("training step", fontsize=8.5)
    legend_of_types(figure, [kind for i, kind in enumerate(SHOWN) if any(share[:, i].any() for share in shares.values())])
    every = [census for run in runs for census in run]
    only = "" if len(layers) == runs[0][-1].layers.height else f" {len(layers)} layers are drawn."
    return Captioned(
        figure,
        "Shares of the types among each layer's neurons at each census, one bar per census in order; what is missing to 100% is of "
        f"no type. {source(every)}{only}",
    )


def layer_panels(rows: Sequence[Sequence[int]], height: float = 2.0) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a panel for each layer of each row, at most `LAYERS_IN_A_ROW` beside each other, and the panels by row."""
    columns = min(LAYERS_IN_A_ROW, max(len(row) for row in rows))
    lines = [-(-len(row) // columns) for row in rows]
    figure, grid = panels(sum(lines), columns, max(1.45, min(2.4, 8.6 / columns)), height, sharey=True)
    for axes in grid.flat[:]:
        axes.set_axis_off()
    starts = np.cumsum([0, *lines])
    found = [list(grid[starts[i] : starts[i + 1]].ravel()[: len(row)]) for i, row in enumerate(rows)]
    for row in found:
        for axes in row:
            axes.set_axis_on()
    return figure, found


def legend_of_types(figure: Figure, kinds: Sequence[str]) -> None:
    """The colours of the types that occur, above the panels."""
    handles = [Patch(facecolor=TYPE_COLOURS[kind], label=TYPE_LABELS[kind]) for kind in kinds]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(handles)))


def _shares(run: Sequence[Census], layer: int) -> np.ndarray:
    """Census by type: the type's share of the layer's neurons."""
    return np.array([_share(census.neurons.filter(pl.col("layer") == layer)["type"]) for census in run])


def _share(types: pl.Series) -> list[float]:
    return [float((types == kind).sum()) / max(len(types), 1) for kind in SHOWN]


def bars(axes: Axes, share: np.ndarray, steps: Sequence[int]) -> None:
    """A stacked bar of the types for every census, `share[census, type]`."""
    bottom = np.zeros(len(steps))
    for kind, part in zip(SHOWN, share.T, strict=True):
        axes.bar(range(len(steps)), part, bottom=bottom, width=0.9, color=TYPE_COLOURS[kind])
        bottom += part
    every = -(-len(steps) // 4)
    ticks = list(range(len(steps) - 1, -1, -every))
    axes.set_xticks(ticks, [short(steps[tick]) for tick in ticks])
    axes.set_xlim(-0.6, len(steps) - 0.4)
    in_percent(axes)
    axes.grid(visible=True, axis="y")
    axes.tick_params(axis="x", color=FAINT, length=2)


@styled
def dead_over_training(*runs: Sequence[Census]) -> Captioned:
    """Share of dead neurons against the training step, a line per layer, a panel per run."""
    figure, grid = panels(1, len(runs), 3.4 if len(runs) > 1 else 5.0, 2.6, sharey=True)
    layers = runs[0][-1].layers["layer"].to_list()
    shown = evenly_spaced(layers, MOST_LAYERS)
    colours = dict(zip(shown, ramp(len(shown)), strict=True))
    top = 0.0
    for axes, run in zip(grid[0], runs, strict=True):
        for layer, (steps, shares) in _dead(run, shown):
            axes.plot(steps, shares, color=colours[layer], marker="o", markersize=2.5)
            top = max(top, *shares)
        axes.set_xscale("symlog", linthresh=1)
        in_powers(axes.xaxis)
        axes.set_title(run[0].run)
        axes.set_xlabel("training step")
        axes.grid(visible=True, axis="y")
        in_percent(axes)
    grid[0, 0].set_ylabel("share of dead neurons")
    grid[0, 0].set_ylim(0, 1.07 * top or 1)
    legend_below(figure, [Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in shown], most=6)
    only = "" if len(shown) == len(layers) else f" {len(shown)} of {len(layers)} layers are drawn."
    every = [census for run in runs for census in run]
    return Captioned(figure, f"Share of each layer's neurons that never fired, at each census. {source(every)}{only}")


def _dead(run: Sequence[Census], layers: Sequence[int]) -> Iterator[tuple[int, tuple[list[int], list[float]]]]:
    for layer in layers:
        points = [(census.step or 0, census.layers.filter(pl.col("layer") == layer)["dead_share"]) for census in run]
        found = [(step, float(share.item())) for step, share in points if len(share)]
        if found:
            yield layer, ([step for step, _ in found], [share for _, share in found])
