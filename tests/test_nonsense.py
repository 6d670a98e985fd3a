"""Settings that no machine can follow are refused by their full name, wherever in a configuration they stand."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from analyze.compare import CompareConfig
from analyze.config import AnalyzeConfig
from analyze.draw import DrawConfig
from corpora.config import CorpusConfig
from errors import UserError
from settings import settings_of
from train.config import TrainConfig

LISTS = ("milestones", "live.steps")
CORPUS = CorpusConfig("x", "files", path="x.txt")


def analysed(**settings: Any) -> AnalyzeConfig:
    return AnalyzeConfig(ckpt="x", corpus=CORPUS, **settings)


def trained(**settings: Any) -> TrainConfig:
    return TrainConfig(corpus=CORPUS, **settings)


def with_setting(config: Any, name: str, value: Any) -> Any:
    """The configuration with a setting changed, however deep it stands."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: with_setting(getattr(config, first), rest, value) if rest else value})


def numbers(config: Any) -> dict[str, str]:
    """Full names of the settings that are numbers, or may be, and their kinds."""
    found = {}
    for name, _ in settings_of(config):
        at, (*above, last) = config, name.split(".")
        for part in above:
            at = getattr(at, part)
        kind = next(str(getattr(field.type, "__name__", field.type)) for field in fields(at) if field.name == last)
        if "float" in kind or "int" in kind or name in LISTS:
            found[name] = kind
    return found


NONE: dict[str, list[Any]] = {"float": [math.nan, math.inf, -math.inf], "int": [10**30, -(10**30)], "list": [[10**30], [-1]]}
EVERY = [
    (program, name, value)
    for program in (analysed, trained)
    for name, kind in numbers(program()).items()
    for value in NONE[kind.partition(" ")[0].partition("[")[0]]
]


def test_every_part_of_a_configuration_has_numbers() -> None:
    found = {name for _, name, _ in EVERY}
    assert {"thresholds.position_mi", "host_memory", "model.init_std", "watch.spike", "optimizer.epsilon"} <= found
    assert {"thresholds.positions.span", "corpus.validation_share", "peak_flops", "batch.workers", "live.steps"} <= found


@pytest.mark.parametrize(("program", "name", "value"), EVERY)
def test_a_number_that_is_none_is_refused_by_its_name(program: Any, name: str, value: Any) -> None:
    with pytest.raises(UserError) as said:
        with_setting(program(), name, value)
    assert f"{name.rpartition('.')[2]}=" in str(said.value) and len(str(said.value)) < 500


ABSURD: list[tuple[Any, dict[str, Any], str]] = [
    (analysed, {"threads": 100_000}, "threads=100000 must be at most"),
    (trained, {"threads": 100_000}, "threads=100000 must be at most"),
    (trained, {"time_limit": 1e300}, "time_limit=1e\\+300 must be at most"),
    (trained, {"name": "../escape"}, "name='../escape' would leave"),
    (trained, {"name": "."}, "name='.' would leave"),
    (trained, {"name": "a/../../b"}, "would leave"),
    (trained, {"name": "/tmp/x"}, "would leave"),
    (trained, {"name": "a//b"}, "would leave"),
    (trained, {"name": "x" * 300}, "has 300 letters"),
    (trained, {"name": "é" * 80}, "has 80 letters"),
    (analysed, {"out": "a/" + "x" * 300}, "out='a/x+'\\.\\.\\. is no path"),
    (analysed, {"out": "a\0b"}, "is no path"),
    (analysed, {"null": "x/" * 3000}, "is no path"),
    (analysed, {"out": "caf\udce9"}, "is no text in UTF-8"),
    (lambda **s: CompareConfig(**s), {"censuses": ["x" * 300]}, "censuses='x+'\\.\\.\\. is no path"),
    (lambda **s: DrawConfig(out="x", **s), {"thresholds": {"position_mi": math.inf}}, "thresholds.position_mi=inf must be"),
    (lambda **s: DrawConfig(out="x", **s), {"thresholds": {"positions": {"span": math.nan}}}, "thresholds.positions.span=nan"),
]


@pytest.mark.parametrize(("program", "setting", "said"), ABSURD)
def test_what_no_machine_can_follow_is_refused(program: Any, setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        program(**setting)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch.workers", 1000), ("corpus.workers", 10_000), ("live.tokens", 99_999_999_999), ("live.steps", [-5])],
)
def test_what_no_machine_can_follow_is_refused_in_a_part_too(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{name}=.*{str(value).strip('[]')}.* must"):
        with_setting(trained(), name, value)


@pytest.mark.parametrize("setting", ["out", "scratch", "runs", "corpus.store"])
def test_a_folder_that_is_a_file_is_refused(setting: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    program = trained if setting == "runs" else analysed
    with pytest.raises(UserError, match=f"{setting}={tmp_path / 'x'} is a file; give a folder"):
        with_setting(program(), setting, str(tmp_path / "x"))
    with_setting(program(), setting, str(tmp_path / "y"))


def test_odd_names_that_are_names_are_taken(tmp_path: Path) -> None:
    for name in ("a b", "baseline-1", "a/b", "..a", "é電", "x" * 150, "model=nopos,seed=1", "$\\frac$", ""):
        assert trained(name=name).name == name
    assert tiny.training(CORPUS, tmp_path / "[a] (b)=c,d").runs == str(tmp_path / "[a] (b)=c,d")
