"""Planted positional, dead and detector neurons from the command line; everything drawn again when the model is gone."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tiny
from planted_model import PLACES, PLANTED, planted_ids, planted_model
from processes import command, program
from reading import read_model
from rich.console import Console

from analyze.compare_runs import compare
from analyze.pipeline import analyze, draw
from analyze.recompute import redraw
from analyze.storage.formats import write_meta
from analyze.tables.census import open_census
from errors import UserError
from models.open_checkpoint import open_checkpoint
from models.opt import OPT, initialise

NAMES = list(PLANTED)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a census; the model and the text have since been deleted."""
    folder = tmp_path_factory.mktemp("planted")
    tiny.saved(folder / "model", planted_model())
    np.save(folder / "ids.npy", planted_ids())
    done = program(
        "analyze/run.py", "ckpt=model", "corpus=tokens", "corpus.path=ids.npy", "out=out", "wandb.mode=disabled", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "model")
    (folder / "ids.npy").unlink()
    return folder


@pytest.fixture
def rows(place: Path) -> pl.DataFrame:
    return pl.read_parquet(place / "out" / "neurons.parquet")


def test_every_planted_neuron_is_found_and_none_of_its_near_misses(rows: pl.DataFrame) -> None:
    found = {name: rows.row(n, named=True) for n, name in enumerate(NAMES)}
    for name, planted in PLANTED.items():
        row = found[name]
        expected = (planted.type, planted.position_type, planted.strong)
        assert (row["type"], row["position_type"], row["position_strong"]) == expected, name
    assert found["token detector"]["detected_tokens"] == [10]
    assert rows.filter(layer=0)["dead"].sum() == 1 and rows.filter(layer=1)["dead"].all()
    assert rows["token_detector"].sum() == 3, "the one that fires once is one by the letter"


def test_information_is_that_of_an_indicator(rows: pl.DataFrame) -> None:
    for name, places in (("first half", 64), ("first five places", 5)):
        f = places / (PLACES - 1)
        by_hand = -f * math.log(f) - (1 - f) * math.log(1 - f)
        assert rows.row(NAMES.index(name), named=True)["position_mi"] == pytest.approx(by_hand, abs=1e-9)
    assert rows["position_domain_difference"].null_count() == rows.height, "there is one domain"


def test_neurons_of_the_first_positions_are_found_whether_positional_or_not(place: Path) -> None:
    found = open_census(place / "out").first_positions()
    assert set(found["neuron"]) == {NAMES.index("first five places"), NAMES.index("some tokens at the first five places")}
    assert (found["last_position_95"] <= 5).all()
    layers = pl.read_parquet(place / "out" / "layers.parquet")
    assert layers["first_positions"].to_list() == [2, 0] and layers["team_neurons"].to_list() == [1, 0]
    assert layers["team_left_out"].to_list() == [0, 0] and 60 <= layers["team_places"][0] <= 66


def test_everything_is_drawn_again_from_counts_under_other_thresholds(place: Path, rows: pl.DataFrame) -> None:
    before = {file.name: file.read_bytes() for file in (place / "out").glob("*.parquet")}
    other = ["thresholds.position_mi=0.3", "thresholds.positions.first=2", "thresholds.detection=40"]
    done = command("analyze/draw.py", "out=out", *other, cwd=place)
    assert done.returncode == 0 and "drawn anew" in done.stderr, done.stderr
    assert "suppress their triggers is left out" in done.stderr and "detection=50" in done.stderr, "40 is looser"
    fewer = pl.read_parquet(place / "out" / "neurons.parquet")
    assert 0 < fewer["position_type"].count() < rows["position_type"].count()
    asked = json.loads((place / "out" / "meta.json").read_text())["thresholds"]
    assert (asked["position_mi"], asked["positions"]["first"], asked["positions"]["span"]) == (0.3, 2, 0.5)
    shutil.rmtree(place / "out" / "figures")
    redraw(place / "out", {"position_mi": 0.05, "detection": 95, "positions": {"first": 8}}, None, Console(quiet=True))
    assert {file.name: file.read_bytes() for file in (place / "out").glob("*.parquet")} == before
    drawn = {file.stem for file in (place / "out" / "figures").glob("*.svg")}
    assert {name[:9] for name in drawn if name.startswith("figure")} == {
        f"figure_{n:02}" for n in (*range(1, 10), *range(12, 16))
    }


def test_what_detectors_write_is_drawn_with_its_numbers(place: Path, rows: pl.DataFrame) -> None:
    written = open_census(place / "out").written(0, NAMES.index("token detector"))
    assert written["top_promoted"].tolist() == [0.0] * 10, "fc2 writes nothing"


def test_mistakes_of_drawing_end_in_a_sentence(place: Path) -> None:
    for arguments, named in ((["out=nowhere"], "out=nowhere"), (["out=out", "thresholds.positions.spam=1"], "spam")):
        done = program("analyze/draw.py", *arguments, cwd=place)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and named in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_an_untrained_model_is_made_counted_and_drawn_beside(place: Path, tmp_path: Path) -> None:
    tiny.saved(tmp_path / "like", planted_model())
    done = command("scripts/untrained.py", "like", "fresh", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert program("scripts/untrained.py", "like", "fresh", cwd=tmp_path).returncode == 1, "it is there already"
    fresh = open_checkpoint(str(tmp_path / "fresh"))
    expected = initialise(OPT(fresh.config), 0).state_dict()
    assert fresh.step == 0 and all(
        np.array_equal(read_model(fresh).state_dict()[name], value) for name, value in expected.items()
    )
    corpus = tiny.tokens_corpus(tmp_path / "ids.npy", planted_ids()[:20])
    null = analyze(tiny.analysis(tmp_path / "fresh", corpus, tmp_path / "null"))
    draw(place / "out", open_census(null))
    caption = "an untrained model of 2 layers of 24 neurons"
    assert caption in (place / "out" / "figures" / "figure_01_dead_and_frequency.svg").read_text()
    compare([], [place / "out", null], tmp_path / "both", Console(quiet=True), null)
    assert (tmp_path / "both" / "figures" / "figure_10_positional_neurons.png").is_file()
    meta = json.loads((null / "meta.json").read_text())
    meta["checkpoint"]["model"] |= {"layers": 1, "neurons": 16}
    write_meta(null, meta)
    with pytest.raises(UserError, match="1 layers of 16 neurons, not 2 of 24"):
        draw(place / "out", open_census(null))


@pytest.mark.long
def test_runs_are_drawn_each_in_its_own_process(place: Path, tmp_path: Path) -> None:
    milestone = json.loads((place / "out" / "meta.json").read_text())
    milestone["checkpoint"]["step"] = 0
    folders = [tmp_path / "runs" / run / "census" for run in ("a", "b")]
    for folder in folders:
        shutil.copytree(place / "out", folder / "step_000000000")
        write_meta(folder / "step_000000000", milestone)
    milestone["checkpoint"]["model"] |= {"layers": 1, "neurons": 16}
    shutil.copytree(place / "out", tmp_path / "other")
    write_meta(tmp_path / "other", milestone)
    refused = program("analyze/draw.py", "out=runs", "null=other", cwd=tmp_path)
    assert refused.returncode == 1 and refused.stderr.startswith("error: null=other is a census of 1 layers"), refused.stderr
    assert "Traceback" not in refused.stderr
    done = program("analyze/draw.py", "out=runs", f"null={place / 'out'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((folder / "report.html").is_file() for folder in folders)
    for folder in (*folders[0].glob("step_*"), tmp_path / "runs"):
        assert "Beside it, dashed, an untrained model of 2 layers" in (folder / "report.html").read_text(), folder
