"""neuron tables of a run's milestones -> how the types' shares change while the model trains."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from analyze.drawing import Captioned, in_percent, panels, short, source, spread
from analyze.folder import Census
from analyze.palette import FAINT, TYPE_COLOURS, TYPE_WORDS, TYPES, styled

SHOWN = TYPES[:-1]  # the rest to 100% is "other"
LAYERS_IN_A_ROW, MOST_LAYERS = 6, 12


@styled
def types_over_training(*runs: Sequence[Census]) -> Captioned:
    """Shares of the neuron types at each milestone, a panel per layer, rows for each run (extends the paper's Figure 11)."""
    layers = spread(runs[0][-1].layers["layer"].to_list(), MOST_LAYERS)
    columns = min(LAYERS_IN_A_ROW, len(layers))
    rows_each = -(-len(layers) // columns)
    width = max(1.45, min(2.4, 8.6 / columns))
    figure, grid = panels(rows_each * len(runs), columns, width, 2.0, sharey=True)
    shares = {(run, layer): _shares(runs[run], layer) for run in range(len(runs)) for layer in layers}
    top = max(float(share.sum(axis=1).max()) for share in shares.values())
    for axes in grid.flat[:]:
        axes.set_axis_off()
    for (run, layer), share in shares.items():
        place = layers.index(layer)
        axes = grid[run * rows_each + place // columns, place % columns]
        axes.set_axis_on()
        _bars(axes, share, [census.step or 0 for census in runs[run]])
        axes.set_title(f"layer {layer}")
        if place % columns == 0:
            axes.set_ylabel(runs[run][0].run if len(runs) > 1 else "share of neurons")
    grid[0, 0].set_ylim(0, min(1.0, 1.1 * top) or 1)
    figure.supxlabel("training step", fontsize=8.5)
    seen = [kind for i, kind in enumerate(SHOWN) if any(share[:, i].any() for share in shares.values())]
    handles = [Patch(facecolor=TYPE_COLOURS[kind], label=TYPE_WORDS[kind]) for kind in seen]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(handles)))
    every = [census for run in runs for census in run]
    only = "" if len(layers) == runs[0][-1].layers.height else f" {len(layers)} layers are drawn."
    return Captioned(
        figure,
        "Shares of the types among each layer's neurons at each milestone, one bar per milestone in order; what is missing to 100% is of "
        f"no type. {source(every)}{only}",
    )


def _shares(run: Sequence[Census], layer: int) -> np.ndarray:
    """Milestone by type: the type's share of the layer's neurons."""
    return np.array([_share(census.neurons.filter(pl.col("layer") == layer)["type"]) for census in run])


def _share(types: pl.Series) -> list[float]:
    return [float((types == kind).sum()) / max(len(types), 1) for kind in SHOWN]


def _bars(axes: Axes, share: np.ndarray, steps: Sequence[int]) -> None:
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
