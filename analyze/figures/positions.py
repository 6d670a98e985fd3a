"""neuron table and counts by position -> the paper's Figures 7, 8, 10, 11 and 16: positional neurons."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D

from analyze.figures.layout import (
    UNTRAINED,
    Captioned,
    breadth,
    dashed,
    in_powers,
    layer_columns,
    legend_below,
    panels,
    say,
    side_by_side,
    source,
    ticks_every,
    with_untrained,
)
from analyze.figures.style import FAINT, GRID, INK, PALETTE, position_colour, styled
from analyze.figures.tooltips import says
from analyze.neuron_types.taxonomy import PATTERN_LABELS, PATTERNS, STRENGTHS
from analyze.tables.census import Census

FAINTEST = 1e-4  # nats; lower mutual information shares the lowest bin


@styled
def positional_neurons(*rows: Sequence[Census], null: Census | None = None, room: int = 0) -> Captioned:
    """Every positional neuron as a circle in its layer's column (paper, Figures 8, 10, 11 and 16).

    One census, or panels side by side at one scale: model sizes (Figure 8), variants (Figure 10), the milestones of a run
    (Figure 11), models with LayerNorm after each sub-block (Figure 16); a row per argument. The untrained one comes last.
    There is room for at least so many circles in a layer, so that figures drawn apart have one scale.
    """
    read = [census for row in rows for census in row]
    named = [[(census, census.title) for census in row] for row in rows] if len(rows) > 1 else [with_untrained(rows[0], null)]
    if null and len(rows) > 1:
        named.append([(null, UNTRAINED)])
    censuses = [census for row in named for census, _ in row]
    columns = max(map(len, named))
    layers = max(census.layers.height for census in censuses)
    tallest = max(room, *(int(census.layers["positional"].max()) for census in censuses))  # type: ignore[arg-type]
    width = max(2.1, min(7.4 if columns == 1 else 4.2, 11 / columns))
    wide = _circles_side_by_side(tallest, layers, width)
    height = min(3.4, (1.3 if len(censuses) > 1 else 1.1) + ceil(max(tallest, 1) / wide) * width / (layers * (wide + 1.4)))
    figure, grid = panels(len(named), columns, width, max(height, 1.4))
    for row, line in zip(named, grid, strict=True):
        for axes, (census, label) in zip(line, row, strict=False):
            axes.set_title(label if len(censuses) > 1 else "")
            _stack(axes, census, wide, ceil(max(tallest, 1) / wide), layers)
            dashed(axes, label)
        for axes in line[len(row) :]:
            axes.set_axis_off()
    if tallest:
        legend_below(figure, _eight_kinds(), most=4)
    return Captioned(
        figure,
        "Positional neurons by layer, with their number: each circle is one neuron, its colour the type of its pattern, intense for strong "
        f"and faint for weak. {source(read, null)} {_positional(read)}",
    )


@styled
def position_examples(census: Census) -> Captioned:
    """Frequency against position of the most positional neuron of each type, strong above weak (paper, Figure 7)."""
    caption = (
        "For each type the neuron that tells most about position, strong patterns above weak ones: how often it fires at each position. "
        f"{_across_domains(census)}{source([census])} {_positional([census])}"
    )
    positional = census.neurons.filter(pl.col("position_type").is_not_null())
    if positional.is_empty():
        figure, ((axes,),) = panels(1, 1, 7.4, 1.2)
        say(axes, _none_positional(census))
        return Captioned(figure, caption)
    figure, grid = panels(2, 4, 2.35, 1.6, sharex=True, sharey=True)
    for column, kind in enumerate(PATTERNS):
        for row, strength in enumerate(STRENGTHS):
            alike = positional.filter((pl.col("position_type") == kind) & (pl.col("position_strong") == (strength == "strong")))
            _example(grid[row, column], census, alike.sort("position_mi_corrected", descending=True), kind, strength)
        grid[0, column].annotate(
            PATTERN_LABELS[kind], (0.5, 1), (0, 22), "axes fraction", textcoords="offset points", ha="center", weight="bold"
        )
    figure.suptitle(census.title, fontsize=9)
    figure.supxlabel("position", fontsize=8.5)
    figure.supylabel("frequency", fontsize=8.5)
    return Captioned(figure, caption)


@styled
def mutual_information(censuses: Sequence[Census], null: Census | None = None) -> Captioned:
    """How much the alive neurons of each layer tell about position, and where the threshold cuts (paper, section 5.1)."""
    shown = with_untrained(censuses, null)
    figure, grid = side_by_side(len(shown), 7.4 if len(shown) == 1 else 3.0, 2.9, sharey=True)
    top = max(float(census.neurons["position_mi_corrected"].max() or 0) for census, _ in shown)  # type: ignore[arg-type]
    highest = max(census.position_threshold for census, _ in shown)
    edges = np.linspace(np.log10(FAINTEST), np.log10(max(top * 1.2, highest * 1.2, 0.1)), 41)
    for axes, (census, label) in zip(grid, shown, strict=True):
        axes.set_title(label if len(shown) > 1 else "")
        for column, layer in enumerate(census.layers["layer"]):
            alive = census.neurons.filter((pl.col("layer") == layer) & ~pl.col("dead"))
            values = alive["position_mi_corrected"].to_numpy()
            _mirrored_histogram(
                axes, layer, column, np.log10(np.maximum(values, FAINTEST)), edges, np.log10(census.position_threshold)
            )
        axes.axhline(census.position_threshold, color=INK, linewidth=0.9, linestyle="--")
        axes.set_yscale("log")
        in_powers(axes.yaxis)
        axes.set_ylim(FAINTEST * 0.8, 10 ** edges[-1])
        axes.set_yticks([10.0**power for power in range(-4, ceil(edges[-1]))], minor=False)
        layer_columns(axes, census.layers["layer"].to_list())
        dashed(axes, label)
    grid[0].set_ylabel("mutual information, nats")
    return Captioned(
        figure,
        "Mutual information between firing and position, bias corrected, of the alive neurons of each layer; breadth is the logarithm of "
        f"their number, the lowest bin holds all below {FAINTEST:g}. Dashed line: the threshold, above which neurons are positional. "
        f"{source(censuses, null)} {_positional(censuses)}",
    )


def _positional(censuses: Sequence[Census]) -> str:
    """For a caption: the threshold, and how much of mutual information is there because sequences are few."""
    added = max(float(census.meta["position_bias"]) for census in censuses)
    threshold = censuses[0].position_threshold
    return f"Positional: more than {threshold:g} nats about position, less the {added:.2g} nats that so many sequences add by chance."


def _across_domains(census: Census) -> str:
    if not census.neurons["position_domain_difference"].count():
        return ""
    return f"Δ: greatest difference between its curves in the domains {', '.join(census.domains)}. "


def _circles_side_by_side(tallest: int, layers: int, width: float) -> int:
    """How many circles a column is wide, so that circles are as large as a panel of `width` by 2.3 inches lets them be."""
    return max(
        range(1, 40), key=lambda wide: (min(width / (layers * (wide + 1.4)), 2.3 / ceil(max(tallest, 1) / wide), 0.11), -wide)
    )


def _stack(axes: Axes, census: Census, wide: int, high: int, layers: int) -> None:
    pitch = wide + 1.4  # a layer's column and the gap to the next, in circles
    numbers = census.layers["layer"].to_list()
    for column, layer in enumerate(numbers):
        here = _in_order(census.neurons.filter((pl.col("layer") == layer) & pl.col("position_type").is_not_null()))
        if here.is_empty():
            continue
        count = np.arange(here.height)
        places = np.stack([column * pitch + count % wide - (wide - 1) / 2, count // wide + 0.5], axis=1)
        kinds = [(kind, STRENGTHS[not strong]) for kind, strong in here.select("position_type", "position_strong").iter_rows()]
        circles = EllipseCollection(
            [0.86], [0.86], [0], units="xy", offsets=places, offset_transform=axes.transData, linewidths=0.5,
            facecolors=[position_colour(*kind) for kind in kinds],
            edgecolors=[position_colour(kind, "strong") for kind, _ in kinds],
            urls=[f"#L{layer}N{neuron}" for neuron in here["neuron"]],
        )  # fmt: skip
        told = here["position_mi_corrected"]
        says(
            circles,
            [f"{PATTERN_LABELS[kind]}, {strength}\n{nats:.3g} nats" for (kind, strength), nats in zip(kinds, told, strict=True)],
        )
        axes.add_collection(circles)
        crowded = len(numbers) > 24
        axes.annotate(
            str(here.height), (column * pitch, ceil(here.height / wide)), (0, 2), textcoords="offset points", ha="center", va="bottom",
            fontsize=5.5 if crowded else 6.5, color=INK, rotation=90 if crowded else 0,
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="box", anchor="S")
    layer_columns(axes, numbers)
    every = ticks_every(axes, layers)
    axes.set_xticks([column * pitch for column in range(0, len(numbers), every)], [str(layer) for layer in numbers[::every]])
    axes.set_xlim(-pitch / 2, (layers - 0.5) * pitch)
    axes.set_ylim(0, high + _room_for_numbers(axes, layers * pitch, crowded=len(numbers) > 24))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if not census.layers["positional"].sum():
        axes.text(0.5, 0.5, _none_positional(census), transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=7)


def _room_for_numbers(axes: Axes, circles: float, *, crowded: bool) -> float:
    """What a number over a column takes up, in circles, of which so many stand side by side over the breadth of these axes."""
    points = 72 * breadth(axes) / circles  # of a circle
    return max(1.6, (20 if crowded else 13) / points)


def _in_order(neurons: pl.DataFrame) -> pl.DataFrame:
    """By type, the strong first, and the most positional first."""
    kind = pl.col("position_type").replace_strict({kind: i for i, kind in enumerate(PATTERNS)}, return_dtype=pl.Int32)
    return neurons.sort(kind, ~pl.col("position_strong"), -pl.col("position_mi_corrected"))


def _eight_kinds() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="none", marker="o", markersize=5.5, markeredgewidth=0.6, label=f"{PATTERN_LABELS[kind]}, {strength}",
               markerfacecolor=position_colour(kind, strength), markeredgecolor=position_colour(kind, "strong"))
        for kind in PATTERNS for strength in STRENGTHS
    ]  # fmt: skip


def _example(axes: Axes, census: Census, alike: pl.DataFrame, kind: str, strength: str) -> None:
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.5, 1])
    if alike.is_empty():
        axes.text(0.5, 0.5, f"none {strength}", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        axes.spines[:].set_color(GRID)
        return
    layer, neuron, told, differs = alike.select("layer", "neuron", "position_mi_corrected", "position_domain_difference").row(0)
    curve = census.position_curves(layer, [neuron])[0]
    seen = ~np.isnan(curve)
    axes.plot(np.flatnonzero(seen), curve[seen], color=position_colour(kind, strength), linewidth=1.1, url=f"#L{layer}N{neuron}")
    axes.set_title(f"L{layer}N{neuron}, {told:.2f} nats" + ("" if differs is None else f", Δ {differs:.2f}"), fontsize=7.5)


def _mirrored_histogram(axes: Axes, layer: int, column: int, values: np.ndarray, edges: np.ndarray, threshold: float) -> None:
    edges = np.unique(np.append(edges, threshold))  # so that no bin lies on both sides
    counts = np.histogram(values, edges)[0]
    breadth = 0.42 * np.log1p(counts) / np.log1p(max(len(values), 1))
    above = edges[:-1] >= threshold
    for part, colour in ((~above, PALETTE["faint"][0]), (above, PALETTE["type-positional"][0])):
        low, high = 10 ** edges[:-1][part], 10 ** edges[1:][part]
        bars = axes.barh(
            low, 2 * breadth[part], height=high - low, left=column - breadth[part], align="edge", color=colour, linewidth=0
        )
        ranges = zip(counts[part], low, high, strict=True)
        says(bars[0], [f"layer {layer}: {count:,} neurons\n{least:.2g} to {most:.2g} nats" for count, least, most in ranges])


def _none_positional(census: Census) -> str:
    if census.neurons.is_empty():
        return "No neuron was counted."
    greatest = census.neurons.sort("position_mi_corrected").select("layer", "neuron", "position_mi_corrected").row(-1)
    found = "No neuron is positional:\nthe greatest, L{}N{}, tells {:.2g} nats".format(*greatest)
    return f"{found},\nthe threshold is {census.position_threshold:g}."
