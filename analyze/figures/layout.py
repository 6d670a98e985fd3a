"""What the figures share: a figure with its caption, grids of panels, words where there is nothing to draw."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, MaxNLocator, NullFormatter

from analyze.figures.style import FAINT, LINE_COLOURS, LINE_MARKERS, STYLE, ramp
from analyze.tables.census import Census
from analyze.tables.labels import step_label

T = TypeVar("T")
UNTRAINED = "untrained"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Captioned(NamedTuple):
    """A figure and the sentences below it: the model, the corpus, the tokens read and the thresholds."""

    figure: Figure
    caption: str


def panels(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes, each about `width` x `height` inches with its labels."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def side_by_side(count: int, width: float, height: float, most: int = 4, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, at most `most` in a row."""
    columns = min(count, most)
    figure, grid = panels(-(-count // columns), columns, width, height, **options)
    for spare in grid.flat[count:]:
        spare.set_axis_off()
    return figure, list(grid.flat[:count])


def say(axes: Axes, sentence: str) -> None:
    """Say in words, in place of the axes, why they are empty."""
    title = axes.get_title()
    axes.clear()
    axes.set_axis_off()
    axes.set_title(title)
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=8)


def legend_below(figure: Figure, handles: Sequence[Artist], most: int = 8) -> None:
    """A legend under the panels, in as many columns as their words leave room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    fit = max(1, min(most, int(figure.get_figwidth() / (0.45 + 0.066 * longest))))
    rows = -(-len(handles) // fit)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows), handletextpad=0.5, columnspacing=1.4
    )


def from_zero(axes: Axes, top: float) -> None:
    """A vertical axis from zero to a little above the greatest value."""
    axes.set_ylim(0, top * 1.07 or 1)


def in_percent(axes: Axes) -> None:
    """Shares as percentages on the vertical axis, with no more digits than they need."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))


class PlainPowers(LogFormatterSciNotation):
    """Matplotlib's numbers of a logarithmic axis in plain letters: 10⁻⁴, 2×10¹. No text of a figure is read as mathematics."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The number at a tick."""
        plain = re.sub(r"[$]|\\mathdefault", "", super().__call__(x, pos)).replace("\\times", "×")
        return re.sub(r"\^\{(.*?)\}", lambda power: power[1].translate(SUPERSCRIPTS), plain).strip("{}")


def in_powers(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis, which `set_xscale` or `set_yscale` has made one, in plain letters."""
    axis.set_major_formatter(PlainPowers())
    if not isinstance(axis.get_minor_formatter(), NullFormatter):
        axis.set_minor_formatter(PlainPowers())


def layer_lines(axes: Axes, title: str, whole: bool = False) -> None:
    """Finish axes whose lines go over the layers; `whole` for counts."""
    axes.set_title(title)
    axes.set_xlabel("layer")
    from_zero(axes, max(float(np.nan_to_num(np.asarray(line.get_ydata(), dtype=float)).max()) for line in axes.get_lines()))
    axes.grid(visible=True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if whole:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def layer_columns(axes: Axes, layers: Sequence[int]) -> None:
    """One column per layer at 0, 1, 2 ..., labelled with the layers' own numbers, as many as fit."""
    every = ticks_every(axes, len(layers))
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_xlabel("layer")


def ticks_every(axes: Axes, layers: int) -> int:
    """Every how many layers there is room for a number, over the whole breadth of these axes."""
    return -(-layers // max(4, min(16, int(2.8 * breadth(axes)))))


def breadth(axes: Axes) -> float:
    """Inches that these axes have, with their labels."""
    place = axes.get_subplotspec()
    assert place is not None and isinstance(axes.figure, Figure)
    return axes.figure.get_figwidth() / float(place.get_geometry()[1])


def is_one_run(censuses: Sequence[Census]) -> bool:
    """Whether these are milestones of one training run: of one name, side by side in one folder, each of its own step."""
    places = {(census.run, census.path.parent) for census in censuses}
    return len(censuses) > 1 and len(places) == 1 and len({census.step for census in censuses}) == len(censuses)


def labels(censuses: Sequence[Census]) -> list[str]:
    """A short name for each: the step alone among milestones of one run, else the title, with the folder where two have one title."""
    if is_one_run(censuses):
        return [step_label(census.step) for census in censuses]
    titles = [census.title for census in censuses]
    return [title if titles.count(title) == 1 else f"{title} ({c.path})" for title, c in zip(titles, censuses, strict=True)]


def line_styles(censuses: Sequence[Census]) -> list[dict[str, str]]:
    """How the line of each looks: a ramp of colours for the milestones of one run, step 0 dashed; else colours far apart."""
    if is_one_run(censuses):
        colours = ramp(len(censuses))
        return [{"color": c, "marker": "o"} | _dashes(census) for c, census in zip(colours, censuses, strict=True)]
    count = len(LINE_COLOURS)
    return [{"color": LINE_COLOURS[i % count], "marker": LINE_MARKERS[i % count]} for i in range(len(censuses))]


def _dashes(census: Census) -> dict[str, str]:
    return {"linestyle": "--"} if census.step == 0 else {}


def with_untrained(censuses: Sequence[Census], null: Census | None) -> list[tuple[Census, str]]:
    """Censuses and their labels, and the untrained model's beside them if there is one."""
    shown = list(zip(censuses, labels(censuses), strict=True))
    return [*shown, (null, UNTRAINED)] if null else shown


def dashed(axes: Axes, label: str) -> None:
    """Frame the panel of an untrained model in dashes, so that it is not taken for one that has learned."""
    if label == UNTRAINED:
        axes.spines[:].set(visible=True, linestyle=(0, (4, 3)), edgecolor=FAINT)


def short(number: int) -> str:
    """A count in few characters: 950, 1.5k, 300k, 2M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def printable(text: str, most: int) -> str:
    """A token's text in at most `most` characters, those that the font lacks by number."""
    seen = "".join(letter if ord(letter) in _glyphs() else f"\\u{ord(letter):04x}" for letter in text)
    return seen if len(seen) <= most else seen[: most - 1] + "…"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(str(STYLE["font.family"]))).get_charmap())


def source(censuses: Sequence[Census], null: Census | None = None) -> str:
    """Which models read which text: the part of a caption that every figure has."""
    names = "; ".join(dict.fromkeys(_model(census, censuses) for census in censuses))
    texts = dict.fromkeys(f"{census.meta['corpus']['name']}, {census.n_tokens:,} counted tokens" for census in censuses)
    beside = f" Beside it, dashed, an untrained model of {_shape(null)}: {null.title}." if null else ""
    return f"Model: {names}. Corpus: {'; '.join(texts)}.{beside}"


def of_all(shown: Sequence[Census], censuses: Sequence[Census]) -> str:
    """For a caption: how many of the milestones a figure shows, where not all."""
    return "" if len(shown) == len(censuses) else f" {len(shown)} of {len(censuses)} milestones are drawn."


def _model(census: Census, beside: Sequence[Census]) -> str:
    """Its run and shape, and its folder where a run in another folder has the same name."""
    alike = {other.path.parent for other in beside if other.run == census.run}
    return f"{census.run} ({_shape(census)}{f', in {census.path.parent}' if len(alike) > 1 else ''})"


def _shape(census: Census) -> str:
    return f"{census.layers.height} layers of {_neurons(census)} neurons"


def _neurons(census: Census) -> str:
    return " or ".join(f"{count:,}" for count in census.layers["neurons"].unique().sort().to_list())
