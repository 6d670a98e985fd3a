"""docs/definitions.md: it explains every column of every table that is written."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl
import pytest
from synthetic_census import write_census

from analyze.counts.column import markdown
from analyze.neuron_types import trigger_suppression as suppression
from analyze.tables import ngrams as ngram_table
from analyze.tables.census import Census
from analyze.tables.evolution import write_evolution
from analyze.tables.neurons import WEIGHT_COLUMNS
from analyze.tables.positions import DOMAINS
from analyze.tables.variants import Variant, differences, measured, onsets, over_seeds
from scripts.definitions import definitions

DEFINITIONS = (Path(__file__).parents[1] / "docs/definitions.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[Census]:
    folder = tmp_path_factory.mktemp("definitions")
    return [write_census(folder / f"step_{n}", title=f"x, step {n}", step=n, layers=1, neurons=32, places=64) for n in (0, 1)]


def section(heading: str) -> str:
    return DEFINITIONS.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def unexplained(columns: list[str], text: str) -> list[str]:
    """Those that no word in backticks names, be it with a * for what varies."""
    words = re.findall(r"`([^`\s]+)`", text)
    buckets = [word for word in words if word.endswith("_1_5")]  # "`unigrams_1_5` ... `unigrams_over_2000`"
    words += [word.replace("_1_5", "_*") for word in buckets]
    return [name for name in columns if not any(fnmatchcase(name, word) for word in words)]


def test_every_column_of_a_census_is_explained(run: list[Census]) -> None:
    assert definitions(DEFINITIONS) == DEFINITIONS, "python scripts/definitions.py writes it anew"
    assert markdown(WEIGHT_COLUMNS) in section("neurons.parquet")
    assert not unexplained(list(ngram_table.SCHEMA), section("ngrams.parquet"))
    assert not unexplained(list(DOMAINS), section("position_domains.parquet"))
    assert not unexplained([*run[0].layers.columns, *suppression.SHARES], section("layers.parquet"))


def test_every_column_of_a_run_is_explained(run: list[Census], tmp_path: Path) -> None:
    write_evolution(run, tmp_path)
    for file in tmp_path.glob("*.parquet"):
        assert not unexplained([file.name, *pl.read_parquet_schema(file)], section("Tables of a run")), file.name


def test_every_column_of_a_comparison_is_explained(run: list[Census]) -> None:
    found = [Variant("a", [run]), Variant("b", [run])]
    values = measured(found)
    spread = over_seeds(values)
    for table in (spread, differences(found, spread), onsets(found, values, "positional")):
        assert not unexplained(table.columns, section("Tables of a comparison"))
