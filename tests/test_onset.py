"""When neurons appear is said as an interval between two censuses, of all that there are; of the last alone nothing is said to stay."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from synthetic_census import write_census

from analyze.compare_runs import compare
from analyze.page.findings import census_findings, run_findings
from analyze.tables.census import open_census
from analyze.tables.onset_interval import appearance, every_census

SAID = {
    "between two": (
        [(0, 0), (1000, 0), (2000, 26), (3000, 31)],
        "The first x appear between step 1,000 and step 2,000 (26); every later",
    ),
    "not in all later": (
        [(0, 0), (1, 2), (2, 0), (3, 1)],
        "appear between step 0 and step 1 (2); 1 of the 2 later censuses have none.",
    ),
    "in the last alone": ([(0, 0), (2500, 3)], "The last census alone, at step 2,500, has x (3); at step 0 there was none."),
    "from the first on": ([(100, 5), (200, 5)], "The first census, at step 100, has x already (5); every later census has some."),
    "the only census": ([(100, 5)], "The first census, at step 100, has x already (5)."),
    "never": ([(0, 0), (100, 0)], "No census up to step 100 has any x."),
}


@pytest.mark.parametrize(("counts", "said"), SAID.values(), ids=SAID)
def test_when_neurons_appear(counts: list[tuple[int | None, int]], said: str) -> None:
    found = appearance(counts, "x").replace("xs", "x")
    assert said in found and "to stay" not in found


def planted(run: Path, place: str, step: int, oscillatory: int) -> None:
    planted = {"oscillatory_strong": oscillatory} if oscillatory else {}
    write_census(
        run / place / f"step_{step:09d}", title=f"r, step {step}", step=step, layers=1, neurons=8, places=64, positional=planted
    )


def test_censuses_taken_while_a_run_trained_say_when_too(tmp_path: Path) -> None:
    run = tmp_path / "r"
    for place, step, oscillatory in (("live", 10, 0), ("live", 20, 1), ("live", 30, 1), ("census", 30, 2), ("census", 0, 0)):
        planted(run, place, step, oscillatory)
    (run / "live" / "step_000000040").mkdir()  # one that was not finished
    (run / "live" / "step_000000040" / "meta.json").write_text("{}")
    milestones = [open_census(run / "census" / f"step_{step:09d}") for step in (0, 30)]
    every = every_census(milestones)
    assert [(census.step, census.path.parent.name) for census in every] == [
        (0, "census"),
        (10, "live"),
        (20, "live"),
        (30, "census"),
    ]
    assert "The first oscillatory neurons appear between step 10 and step 20 (1); every later census has some." in run_findings(
        milestones
    )
    compare([run], [], tmp_path / "out", Console(quiet=True))
    assert pl.read_parquet(tmp_path / "out" / "onsets.parquet").select("after", "step", "later").rows() == [(10, 20, 1)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "they appear in layer 0 between steps 10 and 20, and every later census has some." in page
    assert "to stay" not in page
    other = milestones[1].meta["thresholds"] | {"position_mi": 0.1}
    milestones[0].meta["thresholds"] = milestones[1].meta["thresholds"] = other
    assert [census.step for census in every_census(milestones)] == [0, 30], "others are counted by other rules"


def test_many_positional_neurons_are_held_against_an_untrained_model(tmp_path: Path) -> None:
    made: dict[str, Any] = {"layers": 1, "neurons": 8, "places": 64}
    many = write_census(tmp_path / "many", positional={"oscillatory_strong": 4}, **made)
    few = write_census(tmp_path / "few", positional={"oscillatory_strong": 1}, **made)
    untrained = write_census(tmp_path / "null", positional={"oscillatory_strong": 1}, step=0, **made)
    hint = "scripts/untrained.py makes one"
    assert hint in " ".join(census_findings(many)) and hint not in " ".join(
        census_findings(many, beside=True) + census_findings(few)
    )
    assert "This model is not trained: its positional neurons" in " ".join(census_findings(untrained))
