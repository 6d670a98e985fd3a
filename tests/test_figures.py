"""Figures: every one is drawn from full and from empty tables, says why it is empty, and its colours stay apart."""

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyze.drawing import spread
from analyze.figures import census_figures, comparison_figures, drawn, positional_neurons, run_figures, write_figure
from analyze.folder import Census, open_census
from analyze.palette import PALETTE, POSITION_TYPES, STRENGTHS, position_colour, ramp, with_css_variables
from errors import UserError
from tests.synthetic_census import write_census


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(tmp_path_factory.mktemp("census") / "c")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Census:
    """A model of which every neuron of layer 0 is dead, and none is positional or a detector."""
    return write_census(
        tmp_path_factory.mktemp("census") / "s", positional={}, dead=1.0, detectors=0, layers=2, title="silent", step=None
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


def test_every_figure_of_a_census_has_a_caption_that_names_model_corpus_and_tokens(census: Census) -> None:
    figures = census_figures(census)
    assert len(figures) == 8
    for figure, caption in figures.values():
        assert "baseline" in caption and "synthetic" in caption and f"{census.n_tokens:,}" in caption
        assert drawn(figure, "png").startswith(b"\x89PNG")


def test_an_empty_figure_says_why(silent: Census) -> None:
    figures = census_figures(silent)
    assert "No neuron is positional" in words(figures["positional_neurons"].figure)
    assert "No neuron is positional" in words(figures["position_examples"].figure)
    assert "no token detector" in words(figures["token_detectors"].figure)
    assert "No token has" in words(figures["detected_tokens_new"].figure)
    for figure, _ in figures.values():
        drawn(figure, "svg")


def test_figures_of_runs(run: list[Census], silent: Census) -> None:
    assert "4 of 5 milestones" in run_figures(run)["positional_neurons_over_training"].caption
    assert "types_over_training" in comparison_figures({"a": run, "b": run[:2], "c": [silent]})
    assert "types_over_training" not in comparison_figures({"a": run[:1], "c": [silent]})


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
        canvas.draw()
        for axes in figure.axes:
            texts = [
                text
                for text in (*axes.get_xticklabels(), axes.xaxis.label, *axes.texts)
                if text.get_text() and text.get_visible()
            ]
            boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts if axes.axison]
            clashes = [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
            assert not clashes, (name, clashes)
        for legend in figure.legends:
            box = legend.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, name


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
    with pytest.raises(UserError, match=r"meta\.json is missing"):
        open_census(tmp_path)


def test_spread_keeps_the_ends() -> None:
    assert spread(list(range(9)), 4) == [0, 3, 5, 8]
    assert spread([1, 2], 4) == [1, 2]


@pytest.mark.parametrize("shade", [0, 1])
def test_the_eight_kinds_stay_apart_for_the_colour_blind(shade: int) -> None:
    names = [f"{kind}-{strength}" for kind in POSITION_TYPES for strength in STRENGTHS]
    deuteranopia = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
    protanopia = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
    for seen in (np.eye(3), deuteranopia, protanopia):  # Machado, Oliveira and Fernandes 2009
        lab = {name: _lab(seen @ _linear(PALETTE[name][shade])) for name in names}
        for a, b in combinations(names, 2):
            assert np.linalg.norm(lab[a] - lab[b]) > 10, (a, b)
    for kind in POSITION_TYPES:  # intensity alone tells strong from weak: in grey print
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
