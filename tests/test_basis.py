"""Censuses not counted alike: seeds are refused, variants are told of before anything else; live ones may choose their tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_census import write_census

from analyze.compare_runs import censuses_in, compare
from analyze.page.build import run_page
from analyze.storage.formats import write_meta
from analyze.tables.census import Census, open_census
from analyze.tables.comparability import check_seeds, uneven
from errors import UserError

Meta = dict[str, Any]
OTHER_IDS = {"corpus": {"fingerprint": "fedcba9876543210"}}
FEWER = {"corpus": {"n_tokens": 4096, "fingerprint": "fedcba9876543210"}}
STRICTER = {"thresholds": {"support": 0.8}}
REFUSED: dict[str, tuple[Meta, str]] = {
    "other ids": (OTHER_IDS, r"text: synthetic 0123456789ab and synthetic fedcba987654\); run .*analyze/run.py ckpt=RUN"),
    "fewer tokens": (FEWER, r"counted tokens: 25,500 and 4,096\); run .*analyze/run.py ckpt=RUN.* live.tokens=N"),
    "thresholds": (STRICTER, r"thresholds: support 0.5 and 0.8\); give both .*analyze/draw.py out=RUN thresholds"),
    "other context": ({"corpus": {"context": 16, "n_tokens": 9}}, r"text: .*; counted tokens: 25,500 and 9\); run"),
}


def changed(folder: Path, by: Meta) -> None:
    """Say otherwise what a census was counted on."""
    meta = json.loads((folder / "meta.json").read_text())
    for name, values in by.items():
        meta[name] |= values
    write_meta(folder, meta)


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[str], list[Path]]:
    """Makes two runs of one milestone, in census/ or live/."""

    def make(taken: str) -> list[Path]:
        for seed in (0, 1):
            folder = tmp_path / f"nopos-seed{seed}" / taken / "step_000000100"
            write_census(folder, title=f"nopos-seed{seed}, step 100", step=100, layers=1, neurons=16, places=256, positional={})
        return [tmp_path / f"nopos-seed{seed}" for seed in (0, 1)]

    return make


def milestones(run: Path) -> list[Census]:
    return censuses_in(run)


@pytest.mark.parametrize("name", REFUSED)
def test_seeds_that_were_not_counted_alike_are_refused(name: str, runs: Callable[[str], list[Path]]) -> None:
    (one, other), (by, words) = runs("census"), REFUSED[name]
    check_seeds("nopos", [censuses_in(one), censuses_in(other)])
    changed(other / "census" / "step_000000100", by)
    with pytest.raises(UserError, match=f"nopos-seed0/census/step_0.* and .*nopos-seed1/census/step_0.* of one variant.*{words}"):
        check_seeds("nopos", [censuses_in(one), censuses_in(other)])
    check_seeds("nopos", [censuses_in(one)])


def test_live_censuses_may_differ_in_their_tokens_alone(runs: Callable[[str], list[Path]]) -> None:
    one, other = runs("live")
    changed(other / "live" / "step_000000100", FEWER)
    check_seeds("nopos", [censuses_in(one), censuses_in(other)])
    assert uneven([*censuses_in(one), *censuses_in(other)]) == [
        "Counted on 4,096 to 25,500 tokens: dead counts, supports and the bias of mutual information depend on it."
    ]
    changed(other / "live" / "step_000000100", STRICTER)
    with pytest.raises(UserError, match=r"thresholds: support 0.5 and 0.8; counted tokens: 25,500 and 4,096"):
        check_seeds("nopos", [censuses_in(one), censuses_in(other)])


def test_what_differs_between_variants_is_told_first(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    one, other = runs("census")
    assert uneven([*censuses_in(one), *censuses_in(other)]) == []
    changed(other / "census" / "step_000000100", OTHER_IDS | {"thresholds": {"support": 0.8, "position_mi": 0.1}})
    compare([one, other], [], tmp_path / "page", Console(quiet=True))  # runs without config.yaml are variants of their own
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h2>Variants</h2><ul class=findings><li>Not counted on one text" in page
    assert "(support 0.5 or 0.8; position_mi 0.05 or 0.1)" in page
    both = [run / "census" / "step_000000100" for run in (one, other)]
    compare([], both, tmp_path / "page", Console(quiet=True))
    assert "<h2>Findings</h2><ul class=findings><li>Not counted on one text" in (tmp_path / "page" / "report.html").read_text()


def test_seeds_of_a_sweep_are_refused_before_anything_is_written(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    one, other = runs("census")
    for run in (one, other):
        (run / "config.yaml").write_text("model: {}\n")
    changed(other / "census" / "step_000000100", FEWER)
    with pytest.raises(UserError, match="seeds of one variant, nopos,"):
        compare([one, other], [], tmp_path / "page", Console(quiet=True))
    assert not (tmp_path / "page").exists()


def test_a_run_of_mixed_thresholds_says_so(runs: Callable[[str], list[Path]]) -> None:
    one, other = (run / "census" / "step_000000100" for run in runs("census"))
    changed(other, STRICTER)
    page = run_page([open_census(one), open_census(other)], {}, {}, one.parent)
    assert "<ul class=findings><li>Not all have the same thresholds (support 0.5 or 0.8)" in page
