"""counts by position -> the paper's Figure 9, what oscillatory neurons indicate together, and the neurons of the first positions."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analyze.figures.layout import Captioned, legend_below, panels, say, short, source
from analyze.figures.style import FAINT, INK, LINE_COLOURS, LINE_MARKERS, PALETTE, position_colour, styled
from analyze.figures.tooltips import says
from analyze.neuron_types.position_coverage import Indicated, indicated, members
from analyze.neuron_types.taxonomy import PATTERN_LABELS
from analyze.tables.census import Census

MOST_TEAMS, MOST_MEMBERS = 3, 24  # panels, and rows in each
MOST_CURVES = 6  # of neurons of the first positions


@styled
def position_teams(census: Census) -> Captioned:
    """The positions that each strong oscillatory neuron of a layer indicates, and what they cover together (paper, Figure 9)."""
    rules = census.thresholds.positions
    found = members(census.neurons)
    teams = census.layers.filter(pl.col("team_neurons") > 0).sort("team_neurons", "layer", descending=[True, False])
    shown = teams.head(MOST_TEAMS).sort("layer")
    fewer = "" if shown.height == teams.height else f" The {shown.height} largest of {teams.height} layers' teams are drawn."
    caption = (
        f"Positions that strong oscillatory neurons indicate: those at which they fire at least {100 * rules.indicated:g}% of the time; "
        f"last row, all of a layer together.{fewer} Redundant: how many were left out one after another without losing a position. "
        f"{source([census])} Positional: more than {census.position_threshold:g} nats about position."
    )
    if shown.is_empty():
        figure, ((axes,),) = panels(1, 1, 7.4, 1.2)
        say(axes, _no_team(census))
        return Captioned(figure, caption)
    rows = [min(row, MOST_MEMBERS) + 1 for row in shown["team_neurons"]]
    width = 7.4 if len(rows) == 1 else max(3.0, 8.4 / len(rows))
    figure, grid = panels(1, len(rows), width, 1.25 + 0.17 * max(rows))
    for axes, row in zip(grid[0], shown.iter_rows(named=True), strict=True):
        _team(axes, census, row, found.filter(pl.col("layer") == row["layer"])["neuron"].to_list(), max(rows))
    figure.supxlabel("position", fontsize=8.5)
    return Captioned(figure, caption)


def _no_team(census: Census) -> str:
    weak = census.neurons.filter(pl.col("position_type") == "oscillatory").height
    if weak:
        return f"No oscillatory neuron is strong: the {weak:,} there are\ndo not indicate positions, they only prefer some."
    return "No neuron is oscillatory, so none indicates positions:\nthe paper finds such neurons in models below 6.7b, after long training."


def _team(axes: Axes, census: Census, row: dict[str, int], neurons: list[int], rows: int) -> None:
    used = np.flatnonzero(census.seen_at)
    curves = census.position_curves(row["layer"], neurons)[:, used].T
    ranges = indicated(curves, len(census.seen_at), census.thresholds.positions)
    order = np.argsort(_begins(ranges), kind="stable")
    listed = order[:MOST_MEMBERS]
    for line, n in enumerate(listed):
        _ranges(axes, line, used[ranges[:, n]], position_colour("oscillatory", "strong"), f"L{row['layer']}N{neurons[n]}")
    _ranges(axes, len(listed), used[ranges.any(1)], FAINT)
    axes.set_yticks(np.arange(len(listed) + 1) + 0.5, [*(f"N{neurons[n]}" for n in listed), "together"], fontsize=6.5)
    axes.set_ylim(rows, 0)
    axes.set_xlim(0, len(census.seen_at))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    of_all = "" if len(listed) == len(order) else f", {len(listed)} drawn"
    axes.set_title(
        f"layer {row['layer']}: {len(order)} neurons{of_all}\n{row['team_places']:,} of {len(used):,} positions\n"
        f"{row['team_left_out'] or 'none'} redundant",
        fontsize=8,
    )  # fmt: skip


def _begins(ranges: Indicated) -> np.ndarray:
    """Where each neuron's first range begins."""
    return np.asarray(np.where(ranges.any(0), ranges.argmax(0), len(ranges)))


def _ranges(axes: Axes, line: int, places: np.ndarray, colour: str, neuron: str = "") -> None:
    """A row of bars, one for every stretch of places; those of a neuron lead to it."""
    spans = _spans(places)
    if not spans:
        return
    bars = axes.barh(
        [line + 0.5] * len(spans), [n for _, n in spans], 0.72, [first for first, _ in spans], color=colour, linewidth=0
    )
    says(bars[0], [f"{neuron or 'together'}\npositions {first:,} to {first + n - 1:,}" for first, n in spans])
    for bar in bars:
        bar.set_url(f"#{neuron}" if neuron else None)


def _spans(places: np.ndarray) -> list[tuple[int, int]]:
    """First place and length of every stretch of consecutive places."""
    if not len(places):
        return []
    stretches = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return [(int(stretch[0]), len(stretch)) for stretch in stretches]


@styled
def first_positions(census: Census) -> Captioned:
    """Neurons that fire almost only at the first few positions: how many by layer, which, and how often at each place."""
    rules, coverage = census.thresholds.positions, census.thresholds.coverage
    found = census.first_positions()
    caption = (
        f"Neurons {coverage}% of whose firings lie at positions below {rules.first}, of those that fired at least {rules.first_firings} "
        f"times. Left, by layer; right, the {min(MOST_CURVES, found.height)} that fire most. {source([census])} Mutual information alone "
        "misses them where sequences are long: such neurons fire too rarely to carry much of it."
    )
    if found.is_empty():
        figure, ((axes,),) = panels(1, 1, 7.4, 1.2)
        often = census.neurons.filter(pl.col("n_fired") >= rules.first_firings)
        earliest = _earliest(often, coverage)
        say(
            axes,
            f"No neuron fires almost only at positions below {rules.first}:\nof {often.height:,} that fired often enough, {earliest}.",
        )
        return Captioned(figure, caption)
    figure, ((layers, curves),) = panels(1, 2, 3.7, 2.9)
    counts = census.layers["first_positions"]
    layers.bar(census.layers["layer"], counts, width=0.8, color=PALETTE["type-positional"][0])
    layers.set_xlabel("layer")
    layers.set_ylabel("neurons")
    for axis in (layers.xaxis, layers.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _first_curves(curves, census, found.head(MOST_CURVES))
    legend_below(figure, curves.get_lines(), most=3)
    return Captioned(figure, caption)


def _earliest(often: pl.DataFrame, coverage: int) -> str:
    if often.is_empty():
        return "there is none"
    row = often.sort("last_position_95").row(0, named=True)
    return f"the earliest, L{row['layer']}N{row['neuron']}, reaches {coverage}% at position {row['last_position_95']}"


def _first_curves(axes: Axes, census: Census, neurons: pl.DataFrame) -> None:
    places = min(3 * census.thresholds.positions.first, len(census.seen_at))
    for i, row in enumerate(neurons.iter_rows(named=True)):
        curve = census.position_curves(row["layer"], [row["neuron"]])[0, :places]
        kind = f", {PATTERN_LABELS[row['position_type']]}" if row["position_type"] else ""
        words = f"L{row['layer']}N{row['neuron']}, fired {short(row['n_fired'])} times{kind}"
        link = f"#L{row['layer']}N{row['neuron']}"
        axes.plot(np.arange(places), curve, marker=LINE_MARKERS[i], color=LINE_COLOURS[i], markersize=2.5, label=words, url=link)
    axes.axvline(census.thresholds.positions.first - 0.5, color=INK, linestyle=":", linewidth=1)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("position")
    axes.set_ylabel("frequency")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
