"""variants -> figures: dead, detecting and positional neurons by layer and over training, with the spread over seeds."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyze.figures.layout import Captioned, from_zero, in_powers, layer_columns, legend_below, panels, source
from analyze.figures.style import LINE_COLOURS, LINE_MARKERS, styled
from analyze.tables.variants import QUANTITY_LABELS, Variant, comparable

DRAWN = ("positional", "dead", "token_detectors")
SPREAD = "The point is the mean over seeds, the bar goes from the least to the greatest."


@styled
def variants_by_layer(found: Sequence[Variant], spread: pl.DataFrame) -> Captioned:
    """The kinds of neurons of each layer at the last step, a line per variant."""
    figure, grid = panels(1, len(DRAWN), 3.0, 2.6)
    layers = sorted(spread["layer"].drop_nulls().unique())
    for axes, quantity in zip(grid[0], DRAWN, strict=True):
        top = 0.0
        for number, variant in enumerate(found):
            rows = comparable(variant, spread).filter(pl.col("quantity") == quantity, pl.col("layer").is_not_null())
            rows = rows.filter(pl.col("step") == pl.col("step").max()).sort("layer")
            shift = 0.12 * (number - (len(found) - 1) / 2)
            place = [layers.index(layer) + shift for layer in rows["layer"]]
            axes.errorbar(place, rows["mean"], yerr=_bars(rows), **_style(number), linewidth=1, capsize=2)
            top = max(top, *map(float, rows["greatest"]))
        layer_columns(axes, layers)
        from_zero(axes, top)
        axes.set_title(QUANTITY_LABELS[quantity])
        axes.grid(visible=True, axis="y")
    grid[0, 0].set_ylabel("neurons of a layer")
    _legend(figure, found)
    return Captioned(
        figure, f"Neurons of each layer at the last step that all seeds of a variant have. {SPREAD} {_source(found)}"
    )


@styled
def variants_over_training(found: Sequence[Variant], spread: pl.DataFrame) -> Captioned:
    """The kinds of neurons of the whole model against the step, a line per variant."""
    figure, grid = panels(1, len(DRAWN), 3.0, 2.6)
    for axes, quantity in zip(grid[0], DRAWN, strict=True):
        top = 0.0
        for number, variant in enumerate(found):
            rows = comparable(variant, spread).filter(pl.col("quantity") == quantity, pl.col("layer").is_null())
            rows = rows.sort("step")
            axes.errorbar(rows["step"], rows["mean"], yerr=_bars(rows), **_style(number), linewidth=1, capsize=2)
            top = max(top, *map(float, rows["greatest"]))
        axes.set_xscale("symlog", linthresh=1)
        in_powers(axes.xaxis)
        from_zero(axes, top)
        axes.set_title(QUANTITY_LABELS[quantity])
        axes.set_xlabel("training step")
        axes.grid(visible=True, axis="y")
    grid[0, 0].set_ylabel("neurons of the model")
    _legend(figure, found)
    return Captioned(
        figure,
        f"Neurons of all layers against the training step, where all seeds of a variant have been counted. {SPREAD} {_source(found)}",
    )


def _bars(rows: pl.DataFrame) -> tuple[list[float], list[float]]:
    return (rows["mean"] - rows["least"]).to_list(), (rows["greatest"] - rows["mean"]).to_list()


def _style(number: int) -> dict[str, Any]:
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "marker": LINE_MARKERS[number % len(LINE_MARKERS)]}


def _legend(figure: Figure, found: Sequence[Variant]) -> None:
    labels = [f"{variant.name}, {variant.seeds}" for variant in found]
    legend_below(figure, [Line2D([], [], **_style(number), label=label) for number, label in enumerate(labels)], most=4)


def _source(found: Sequence[Variant]) -> str:
    return source([variant.runs[0][-1] for variant in found])
