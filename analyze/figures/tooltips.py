"""A drawn figure -> where its marks lie and what they say, so that a page can tell their values under the pointer.

Read from the figure itself: whatever is a line, a bar or a row of circles answers, in the words of its axes and its legend.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, EllipseCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, PercentFormatter

MOST_POINTS = 400  # of a line; longer ones answer at every second, third ... point
GRAIN = 10_000  # places are whole numbers of 1 / GRAIN of the figure's width and height

Points = Float[np.ndarray, "mark axis"]
_SAID: WeakKeyDictionary[Artist, list[str]] = WeakKeyDictionary()


@dataclass
class Series:
    """Marks of one kind: points by their middle, bars by their box too."""

    name: str
    at: list[int]  # x, y of each mark
    boxes: list[int] = field(default_factory=list)  # left, top, right, bottom of each bar
    x: list[str] = field(default_factory=list)  # values in the axes' words
    y: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # instead of values
    links: list[str] = field(default_factory=list)  # neurons, such as #L0N12


@dataclass
class Panel:
    """One pair of axes."""

    box: list[int]
    title: str
    x: str
    y: str
    series: list[Series]


def says(artist: Artist, words: Sequence[str]) -> None:
    """Have the circles of a collection, or all bars of which this is the first, say words of their own instead of values."""
    _SAID[artist] = list(words)


def marks(figure: Figure) -> list[dict[str, Any]]:
    """The panels of a figure that has been drawn, with all that can be pointed at, as JSON holds it."""
    names = _Names(figure)
    panels = []
    for axes in figure.axes:
        series = [one for one in (*_lines(axes, names), *_bars(axes, names), *_circles(axes)) if one.at]
        if series and axes.axison:
            panels.append(
                Panel(_box(figure, np.array(axes.bbox.extents)), axes.get_title(), _label(axes, "x"), _label(axes, "y"), series)
            )
    return [asdict(panel) for panel in panels]


def step_lines(figure: Figure, steps: Sequence[int]) -> list[dict[str, list[int]]]:
    """Of the panels of a figure that has been drawn, whose axis are these steps, where each lies: `box`, and `x` of every step.

    A logarithmic axis has steps as numbers, another has them one after another.
    """
    found = []
    for axes in (axes for axes in figure.axes if axes.axison):
        across = steps if axes.get_xscale() == "symlog" else range(len(steps))
        at = _grains(figure, axes.transData.transform([(place, 0.0) for place in across]))[::2]
        found.append({"box": _box(figure, np.array(axes.bbox.extents)), "x": at})
    return found


def _lines(axes: Axes, names: "_Names") -> list[Series]:
    found = []
    for line in axes.get_lines():
        if line.get_transform() != axes.transData:  # a threshold drawn across
            continue
        data = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
        data = data[np.isfinite(data).all(1)]
        data = data[:: -(-len(data) // MOST_POINTS) or 1]
        series = _valued(axes, names.of(line), data, data)
        series.links = [line.get_url() or ""] * len(series.x) if line.get_url() else []
        found.append(series)
    return found


def _bars(axes: Axes, names: "_Names") -> list[Series]:
    found = []
    for container in axes.containers:
        if not isinstance(container, BarContainer) or not container.patches:
            continue
        boxes = np.array([bar.get_bbox().extents for bar in container.patches])
        sizes = boxes[:, 2:] - boxes[:, :2]
        upright, middles = container.orientation != "horizontal", (boxes[:, :2] + boxes[:, 2:]) / 2
        values = middles.copy()
        values[:, int(upright)] = sizes[:, int(upright)]
        there = (sizes != 0).all(1)
        series = _valued(axes, names.of(container.patches[0]), middles[there], values[there])
        corners = [axes.transData.transform(boxes[there, side]) for side in (slice(0, 2), slice(2, 4))]
        series.boxes = list(chain.from_iterable(_box(_figure(axes), np.hstack(pair)) for pair in zip(*corners, strict=True)))
        if words := _SAID.get(container.patches[0]):
            series.words = [word for word, kept in zip(words, there, strict=True) if kept]
        links = [bar.get_url() or "" for bar, kept in zip(container.patches, there, strict=True) if kept]
        series.links = links if any(links) else []
        found.append(series)
    return found


def _circles(axes: Axes) -> list[Series]:
    found = []
    for circles in axes.collections:
        if isinstance(circles, EllipseCollection | PathCollection):
            at = circles.get_offset_transform().transform(np.ma.getdata(circles.get_offsets()))
            found.append(Series(_name(circles), _grains(_figure(axes), at), words=_SAID.get(circles, []), links=_links(circles)))
    return [series for series in found if series.words or any(series.links)]


def _links(circles: Collection) -> list[str]:
    return [url or "" for url in circles.get_urls() or []]


def _name(artist: Artist) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


class _Names:
    """What lines and bars are called: by their own label, or by that of whatever in the figure or its legends looks the same."""

    def __init__(self, figure: Figure) -> None:
        legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
        drawn = [line for axes in figure.axes for line in axes.get_lines()]
        shown = [artist for artist in chain(drawn, *(legend.legend_handles for legend in legends)) if artist is not None]
        texts = chain(map(_name, drawn), *([text.get_text() for text in legend.get_texts()] for legend in legends))
        self._by_look: dict[tuple[str, ...], str] = {}
        for artist, name in zip(shown, texts, strict=True):
            if name:
                for look in _looks(artist):
                    self._by_look.setdefault(look, name)

    def of(self, artist: Artist) -> str:
        """The artist's name, or "" where nothing tells it."""
        return _name(artist) or next((self._by_look[look] for look in _looks(artist) if look in self._by_look), "")


def _looks(artist: Artist) -> list[tuple[str, ...]]:
    """How an artist looks, the most telling first: its colour with its dashes, then its colour."""
    if isinstance(artist, Line2D):
        colour = artist.get_color() if artist.get_linestyle() != "None" else artist.get_markerfacecolor()
        return [(to_hex(colour), str(artist.get_linestyle())), (to_hex(colour),)]
    return [(to_hex(artist.get_facecolor()),)] if isinstance(artist, Patch) else []


def _valued(axes: Axes, name: str, at: Points, values: Points) -> Series:
    """Marks that say their values; those outside of what the axes show are left out."""
    on_page = axes.transData.transform(at) if len(at) else at
    left, bottom, right, top = axes.bbox.extents
    inside = ((on_page >= [left - 1, bottom - 1]) & (on_page <= [right + 1, top + 1])).all(1)
    x, y = (_in_words(axis, values[inside, i]) for i, axis in enumerate((axes.xaxis, axes.yaxis)))
    return Series(name, _grains(_figure(axes), on_page[inside]), x=x, y=y)


def _in_words(axis: Axis, values: Float[np.ndarray, " mark"]) -> list[str]:
    """Values as the axis writes them; between ticks with names, as numbers between those if they are numbers."""
    formatter = axis.get_major_formatter()
    if not isinstance(formatter, FuncFormatter | PercentFormatter):
        return [_number(value) for value in values]
    words = [formatter(value, None) for value in values]
    if all(words):
        return words
    ticks, names = axis.get_majorticklocs(), [formatter(tick, None) for tick in axis.get_majorticklocs()]
    if len(ticks) < 2 or not all(name.lstrip("-").isdecimal() for name in names):
        return [word or _number(value) for word, value in zip(words, values, strict=True)]
    return [
        word or _number(value) for word, value in zip(words, np.interp(values, ticks, [int(name) for name in names]), strict=True)
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def _label(axes: Axes, which: str) -> str:
    """An axis' label, or that of the whole figure, or that of the panel at the end of its row or column."""
    figure, spot = _figure(axes), axes.get_subplotspec()
    whole: Text | None = getattr(figure, f"_sup{which}label")
    own = axes.get_xlabel() if which == "x" else axes.get_ylabel()
    if own or whole or spot is None:
        return own or (whole.get_text() if whole else "")
    span = "colspan" if which == "x" else "rowspan"
    alike = [other for other in figure.axes if (its := other.get_subplotspec()) and getattr(its, span) == getattr(spot, span)]
    return next((label for other in alike if (label := other.get_xlabel() if which == "x" else other.get_ylabel())), "")


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _grains(figure: Figure, on_page: Points) -> list[int]:
    share = on_page / [figure.bbox.width, figure.bbox.height]
    share[:, 1] = 1 - share[:, 1]  # from the top, as pages count
    return [int(grain) for grain in np.rint(share * GRAIN).ravel()]


def _box(figure: Figure, extents: Float[np.ndarray, " corner"]) -> list[int]:
    left, one, right, other = _grains(figure, extents.reshape(2, 2))
    return [min(left, right), min(one, other), max(left, right), max(one, other)]
