"""Figures: every one is drawn from full and from empty tables, says why it is empty, and its colours stay apart."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_census import write_census

from analyze.figures.catalogue import census_figures, comparison_figures, drawn, run_figures, write_figure
from analyze.figures.layout import Captioned, PlainPowers, printable
from analyze.figures.position_coverage import first_positions, position_teams
from analyze.figures.positions import mutual_information, position_examples, positional_neurons
from analyze.figures.style import PALETTE, position_colour, ramp, with_css_variables
from analyze.figures.trigger_suppression import trigger_suppression, what_detectors_write
from analyze.neuron_types.taxonomy import PATTERNS, STRENGTHS
from analyze.neuron_types.trigger_suppression import SHARES
from analyze.page.neuron_payload import table_block
from analyze.tables.census import Census, open_census
from analyze.tables.labels import evenly_spaced
from errors import UserError


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(tmp_path_factory.mktemp("census") / "c", weights=True)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Census:
    """A model of which every neuron of layer 0 is dead, and none is positional or a detector."""
    return write_census(
        tmp_path_factory.mktemp("census") / "s",
        positional={},
        dead=1.0,
        detectors=0,
        layers=2,
        title="silent",
        step=None,
        weights=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[Census]:
    folder = tmp_path_factory.mktemp("run")
    return [
        write_census(folder / f"step_{s:09d}", title=f"run, step {s}", step=s, layers=3, neurons=32, seed=s)
        for s in (0, 10, 300, 1000, 5000)
    ]


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(
        tmp_path_factory.mktemp("null") / "n", title="baseline, step 0", step=0, positional={"one_weak": 1}, detectors=0
    )


@pytest.fixture(scope="module")
def post_norm(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(tmp_path_factory.mktemp("post") / "p", title="postln", step=None, layers=6, places=64, norm="post")


@pytest.fixture(scope="module")
def figures(census: Census) -> dict[str, Captioned]:
    return census_figures(census)


@pytest.fixture(scope="module")
def beside(census: Census, untrained: Census) -> dict[str, Captioned]:
    """The figures with an untrained model."""
    return census_figures(census, untrained)


@pytest.fixture(scope="module")
def variants(run: list[Census], silent: Census) -> dict[str, Captioned]:
    return comparison_figures({"a": run, "b": run[:2]})


@pytest.fixture(scope="module")
def sizes(census: Census, post_norm: Census) -> dict[str, Captioned]:
    return comparison_figures({"a": [census], "b": [post_norm]})


def test_the_paper_s_figures_are_all_there_by_number(
    figures: dict[str, Captioned], variants: dict[str, Captioned], sizes: dict[str, Captioned]
) -> None:
    numbers = {int(name.split("_")[1]) for some in (figures, variants, sizes) for name in some if name.startswith("figure_")}
    assert numbers == set(range(1, 17))


def test_every_figure_has_a_caption_that_names_model_corpus_tokens_and_thresholds(
    census: Census, figures: dict[str, Captioned]
) -> None:
    threshold = {
        "08": "0.05 nats",
        "07": "0.05 nats",
        "09": "50%",
        "02": "95%",
        "03": "5 tokens",
        "14": "50 trigrams",
        "15": "95%",
    }
    for name, (figure, caption) in figures.items():
        assert "baseline" in caption and "synthetic" in caption and f"{census.n_tokens:,}" in caption
        assert drawn(figure, "png").startswith(b"\x89PNG")
        assert threshold.get(name[7:9], "") in caption, name


def test_an_empty_figure_says_why(silent: Census) -> None:
    figures = census_figures(silent)
    reasons = {
        "08_positional_neurons": "No neuron is positional",
        "07_position_examples": "No neuron is positional",
        "03_token_detectors": "no token detector",
        "04_detected_tokens": "No token has",
        "14_trigram_detectors": "no trigram detector",
        "15_detected_trigrams": "No trigram has",
        "05_what_detectors_write": "no token detector",
        "06_trigger_suppression": "no token detector",
        "09_position_teams": "No neuron is oscillatory",
    }
    for name, reason in reasons.items():
        assert reason in words(figures[f"figure_{name}"].figure), name
    assert "reaches 95% at position" in words(figures["first_positions"].figure)
    for figure, _ in figures.values():
        drawn(figure, "svg")


def test_an_axis_is_written_beside_the_first_panel_that_has_one(silent: Census, tmp_path: Path) -> None:
    speaking = write_census(tmp_path / "s", layers=2, neurons=64)
    empty, filled = trigger_suppression([silent, speaking]).figure.axes
    assert not empty.axison and filled.get_ylabel() == "share of token detectors"
    assert filled.yaxis.get_tick_params()["labelleft"]


def test_what_is_missing_is_told_from_what_is_none(tmp_path: Path, variants: dict[str, Captioned]) -> None:
    census = write_census(tmp_path / "w", weights=False, layers=1, neurons=32, positional={"oscillatory_weak": 3})
    assert "weights were not at hand" in words(what_detectors_write(census).figure)
    assert "weights were not at hand" in words(trigger_suppression([census]).figure)
    assert "No oscillatory neuron is strong: the 3" in words(position_teams(census).figure)
    assert "LayerNorm after" in words(variants["figure_16_positional_neurons_post_norm"].figure)


def test_what_thresholds_leave_unanswered_is_not_said_to_be_none(tmp_path: Path) -> None:
    census = write_census(tmp_path / "loose", layers=1, neurons=32)
    unanswered = replace(census, layers=census.layers.with_columns(pl.lit(None, pl.Float64).alias(name) for name in SHARES))
    assert "fires on well-seen tokens" in words(trigger_suppression([unanswered]).figure)
    loose = with_thresholds(unanswered, {"detection": 40, "support": 0.3})
    assert "projections are kept for" in words(trigger_suppression([loose]).figure).replace("\n", " ")
    assert "30% of them on tokens that occur" in what_detectors_write(loose).caption


def test_figures_of_runs(run: list[Census], variants: dict[str, Captioned], sizes: dict[str, Captioned]) -> None:
    assert "4 of 5 milestones" in run_figures(run)["figure_11_positional_neurons_over_training"].caption
    assert "types_over_training" in variants and "types_over_training" not in sizes


def grid(captioned: Captioned) -> list[tuple[int, int]]:
    """Rows and columns of the grid that each axes of the figure stands in."""
    places = [axes.get_subplotspec() for axes in captioned.figure.axes]
    return [place.get_geometry()[:2] for place in places if place is not None]


def test_models_of_several_sizes_stand_one_below_another_and_variants_side_by_side(
    variants: dict[str, Captioned], sizes: dict[str, Captioned]
) -> None:
    below = grid(sizes["figure_08_positional_neurons"])
    next_to = grid(variants["figure_10_positional_neurons"])
    assert below == [(2, 1)] * 2 and next_to == [(1, 2)] * 2
    assert len(sizes["figure_16_positional_neurons_post_norm"].figure.axes) == 1


def test_an_untrained_model_stands_beside_in_dashes(beside: dict[str, Captioned], figures: dict[str, Captioned]) -> None:
    for name in ("01_dead_and_frequency", "03_token_detectors", "14_trigram_detectors"):
        dashed = [line for line in beside[f"figure_{name}"].figure.axes[0].get_lines() if line.get_label() == "untrained"]
        assert [line.get_linestyle() for line in dashed] == ["--"], name
        assert "step 0" in beside[f"figure_{name}"].caption and "step 0" not in figures[f"figure_{name}"].caption
    for name in (
        "figure_02_tokens_that_trigger",
        "figure_08_positional_neurons",
        "figure_15_detected_trigrams",
        "mutual_information",
    ):
        titles = [axes.get_title() for axes in beside[name].figure.axes]
        assert titles == ["baseline, step 1000", "untrained"] and len(figures[name].figure.axes) == 1, name


def test_a_threshold_above_all_information_is_drawn(silent: Census) -> None:
    (axes,) = mutual_information([with_thresholds(silent, {"position_mi": 0.3})]).figure.axes
    assert axes.get_ylim()[1] > 0.3


def with_thresholds(census: Census, given: dict[str, Any]) -> Census:
    return replace(census, meta=census.meta | {"thresholds": census.meta["thresholds"] | given})


def test_the_team_of_a_layer_is_drawn_as_the_ranges_that_were_planted(tmp_path: Path) -> None:
    census = write_census(tmp_path / "c", positional={"oscillatory_strong": 5}, layers=1, neurons=12)
    figure, _ = position_teams(census)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "together" and len(axes.containers) == 6
    row = census.layers.row(0, named=True)
    assert f"{row['team_places']:,} of 255 positions" in axes.get_title() and row["team_neurons"] == 5
    assert sum(bar.get_width() for bar in axes.containers[-1]) == row["team_places"]
    assert all(bar.get_url().startswith("#L0N") for bars in axes.containers[:-1] for bar in bars)


def test_neurons_of_the_first_positions_are_listed_and_drawn(census: Census) -> None:
    rules = {"positions": {"first": 230, "first_firings": 30}}
    late = Census(census.path, census.meta | {"thresholds": census.meta["thresholds"] | rules}, census.neurons, census.layers)
    found = late.first_positions()
    assert found.height and (found["last_position_95"] < 230).all() and (found["n_fired"] >= 30).all()
    assert found["n_fired"].to_list() == sorted(found["n_fired"].to_list(), reverse=True)
    labels = [line.get_label() for line in first_positions(late).figure.axes[1].get_lines()]
    assert str(labels[0]).startswith(f"L{found['layer'][0]}N{found['neuron'][0]}, fired ")


def test_tokens_are_printed_in_letters_that_the_font_has() -> None:
    assert printable("␣weather", 20) == "␣weather" and printable("\x14語", 20) == "\\u0014\\u8a9e"
    assert printable("a" * 30, 10) == "aaaaaaaaa…"


def test_any_name_is_drawn_as_it_is_written(
    tmp_path: Path, figures: dict[str, Captioned], variants: dict[str, Captioned]
) -> None:
    """In a folder whose name is a glob: matplotlib reads no mathematics, polars matches no pattern."""
    odd = write_census(tmp_path / "a[1]*?" / "$\\frac$", title="$\\frac$", step=None, layers=1, neurons=8, places=64)
    assert "$\\frac$" in drawn(position_examples(odd).figure, "svg").decode()
    texts = [text for of in (figures, variants) for figure, _ in of.values() for text in figure.findobj(Text)]
    lettered = [text for text in texts if isinstance(text, Text) and re.search("[a-z]", text.get_text())]
    assert lettered and not any(text.get_parse_math() for text in lettered)
    assert table_block(odd)


def test_powers_of_ten_are_plain_letters(figures: dict[str, Captioned], variants: dict[str, Captioned]) -> None:
    drawings = [figures["mutual_information"], figures["dead_against_tokens"], variants["dead_over_training"]]
    of_information, *_ = pages = [drawn(figure, "svg").decode() for figure, _ in drawings]
    assert not any("mathdefault" in page for page in pages) and ">10⁻⁴<" in of_information
    assert [PlainPowers()(number) for number in (0.0, 1.0, 0.001, 20.0, -1e12)] == ["0", "10⁰", "10⁻³", "2×10¹", "-10¹²"]


def test_each_positional_neuron_is_one_circle_and_circles_do_not_overlap(tmp_path: Path) -> None:
    many = {"oscillatory_weak": 40, "both_strong": 30, "other_weak": 20}
    census = write_census(tmp_path / "c", positional=many, neurons=100, places=64, layers=3)
    figure, _ = positional_neurons([census, census])
    for axes in figure.axes:
        places = np.concatenate([circles.get_offsets() for circles in axes.collections])
        assert len(places) == census.layers["positional"].sum()
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
        assert apart.min() >= 1 - 1e-9  # circles are 0.86 wide


@pytest.mark.parametrize("layers", [1, 4, 30])
def test_labels_do_not_overlap(tmp_path: Path, layers: int) -> None:
    census = write_census(tmp_path / "c", layers=layers, places=32, neurons=40)
    for name, (figure, _) in census_figures(census).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        for axes in figure.axes:
            texts = [
                text
                for text in (*axes.get_xticklabels(), axes.xaxis.label, *axes.texts)
                if text.get_text() and text.get_visible()
            ]
            boxes = [text.get_window_extent(renderer) for text in texts if axes.axison]
            clashes = [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
            assert not clashes, (name, clashes)
        titles = [axes.title.get_window_extent(renderer) for axes in figure.axes if axes.get_title()]
        assert not any(a.overlaps(b) for a, b in combinations(titles, 2)), name
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, name


def test_tall_stacks_leave_room_for_titles_and_numbers(tmp_path: Path) -> None:
    many = write_census(tmp_path / "many", layers=2, neurons=512, places=16, positional={"one_weak": 500}, dead=0)
    few = write_census(tmp_path / "few", layers=2, neurons=512, places=16, positional={}, dead=0)
    figure, _ = positional_neurons([few], null=many)
    drawn(figure, "svg")
    for axes in figure.axes:
        assert axes.title.get_window_extent().y1 <= figure.bbox.y1
        assert all(text.get_window_extent().y1 <= axes.bbox.y1 for text in axes.texts)


def test_the_same_figure_gives_the_same_bytes_and_no_partial_file(census: Census, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        figure, caption = positional_neurons([census])
        write_figure(figure, caption, tmp_path / folder, "f")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["f.png", "f.svg"]
    for name in ("f.png", "f.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_position_curves_are_counts_over_counts_and_unseen_places_are_unknown(census: Census) -> None:
    curves = census.position_curves(0, [0, 5])
    assert np.isnan(curves[:, 0]).all() and not np.isnan(curves[:, 1:]).any()
    row = census.neurons.filter((pl.col("layer") == 0) & (pl.col("neuron") == 5)).row(0, named=True)
    assert np.nansum(curves[1] * census.seen_at) == pytest.approx(row["n_fired"])


def test_tokens_read_as_text(census: Census, silent: Census) -> None:
    assert [census.token_text(256 + i) for i in (0, 4, 5)] == ["␣the", "</script><b>x", "↵"]
    assert census.token_text(99_999) == "#99999"
    assert "\ufffd" not in "".join(census.token_text(i) for i in range(256))  # half a character shows its byte


def test_a_folder_that_is_no_census_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(UserError, match=r"meta\.json is missing"):
            open_census(folder)


def test_a_census_opens_by_the_name_of_its_folder(census: Census) -> None:
    assert open_census(str(census.path)).neurons.equals(census.neurons) and open_census(str(census.path)).path == census.path


def test_spread_keeps_the_ends() -> None:
    assert evenly_spaced(list(range(9)), 4) == [0, 3, 5, 8]
    assert evenly_spaced([1, 2], 4) == [1, 2]


@pytest.mark.parametrize("shade", [0, 1])
def test_the_eight_kinds_stay_apart_for_the_colour_blind(shade: int) -> None:
    names = [f"{kind}-{strength}" for kind in PATTERNS for strength in STRENGTHS]
    deuteranopia = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
    protanopia = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
    for seen in (np.eye(3), deuteranopia, protanopia):  # Machado, Oliveira and Fernandes 2009
        lab = {name: _lab(seen @ _linear(PALETTE[name][shade])) for name in names}
        for a, b in combinations(names, 2):
            assert np.linalg.norm(lab[a] - lab[b]) > 10, (a, b)
    for kind in PATTERNS:  # intensity alone tells strong from weak: in grey print
        strong, weak = (_lab(_linear(PALETTE[f"{kind}-{strength}"][shade]))[0] for strength in STRENGTHS)
        assert abs(strong - weak) > 20, kind


def test_colours_have_one_name_each() -> None:
    assert len({paper for paper, _ in PALETTE.values()}) == len(PALETTE)
    assert with_css_variables(f'fill="{position_colour("one", "weak").lower()}"') == 'fill="var(--one-weak)"'
    assert len(set(ramp(8))) == 8 and len(ramp(64)) == 64


def _linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
