"""Settings of a census that are out of range, or that would do nothing, are refused: none is taken for another."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from hydra.core.override_parser.overrides_parser import OverridesParser

from analyze.compare import CompareConfig
from analyze.config import AnalyzeConfig, Thresholds
from analyze.draw import DrawConfig
from analyze.pipeline import sequences_for
from corpora.config import CorpusConfig
from errors import UserError
from models.open_checkpoint import open_checkpoint
from paths import quoted_paths

OUTSIDE: list[dict[str, Any]] = [
    {"micro": 0},
    {"micro": -1},
    {"threads": 0},
    {"threads": -2},
    {"context": 0},
    {"tokens": 0},
    {"host_memory": 0.0},
    {"keep_ngrams": 49},
]
OUTSIDE_THRESHOLDS: list[dict[str, Any]] = [
    {"support": 50.0},
    {"support": -0.1},
    {"unigrams": 0},
    {"bigrams": 0},
    {"trigrams": -1},
    {"position_mi": -0.05},
    {"coverage": 0},
    {"detection": 101},
    {"min_occurrences": 17},
    {"support_occurrences": 0},
]


def named(setting: dict[str, Any]) -> str:
    return "".join(f"{name}={value}" for name, value in setting.items())


@pytest.mark.parametrize("setting", OUTSIDE, ids=named)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any], tmp_path: Path) -> None:
    corpus = tiny.tokens_corpus(tmp_path / "ids.npy", tiny.random_ids())
    with pytest.raises(UserError, match=named(setting)):
        tiny.analysis(tmp_path, corpus, tmp_path, **setting)


@pytest.mark.parametrize("setting", OUTSIDE_THRESHOLDS, ids=named)
def test_a_threshold_out_of_range_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"thresholds\.{named(setting)} must be"):
        Thresholds(**setting)


@pytest.mark.parametrize("setting", [{"context": 12}, {"bos": False}, {"split": "train"}], ids=named)
def test_a_setting_that_an_array_of_tokens_cannot_follow_is_named(setting: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(tiny.saved(tmp_path / "model", tiny.random_model())))
    corpus = tiny.tokens_corpus(tmp_path / "ids.npy", tiny.random_ids(positions=20))
    with pytest.raises(UserError, match=rf"{named(setting).lower()}: .*(as it is|has no splits)"):
        sequences_for(checkpoint, tiny.analysis(tmp_path / "model", corpus, tmp_path / "out", **setting))
    for same in ({}, {"context": 20}):
        assert sequences_for(checkpoint, tiny.analysis(tmp_path / "model", corpus, tmp_path / "out", **same)).ids.shape == (9, 20)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    corpus = CorpusConfig("x", "files", path="~/x.txt", store="~/data", tokenizer="~/tokenizer.json")
    places = {"ckpt": "~/model", "out": "~/out", "null": "~/null", "scratch": "~/scratch"}
    found = AnalyzeConfig(corpus=corpus, **places)  # type: ignore[arg-type]
    assert {name: getattr(found, name) for name in places} == {
        name: f"{tmp_path}/{name}".replace("ckpt", "model") for name in places
    }
    assert (corpus.store, corpus.tokenizer) == (f"{tmp_path}/data", f"{tmp_path}/tokenizer.json")
    drawn, compared = DrawConfig(out="~/a", null="~/b"), CompareConfig(runs=["~/a", "b"], censuses=["~/c"], null="~/d", out="~/e")
    assert (drawn.out, drawn.null) == (f"{tmp_path}/a", f"{tmp_path}/b")
    assert (compared.runs, compared.censuses) == ([f"{tmp_path}/a", "b"], [f"{tmp_path}/c"])
    assert (compared.null, compared.out) == (f"{tmp_path}/d", f"{tmp_path}/e")
    assert tiny.training(corpus, Path("~/runs")).runs == f"{tmp_path}/runs"
    same = AnalyzeConfig(ckpt="facebook/opt-125m", corpus=corpus, out="./a~")
    assert (same.ckpt, same.out, same.null) == ("facebook/opt-125m", "./a~", None)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("out=~/a", "~/a"),
        ("runs=[~/a,~/b,c]", ["~/a", "~/b", "c"]),
        ("corpus.domains={a:~/x.txt,b:y}", {"a": "~/x.txt", "b": "y"}),
        ("out='~/a'", "~/a"),
        ("ckpt=~", "~"),
        ("~wandb", None),
    ],
)
def test_a_tilde_goes_through_hydra(argument: str, value: object) -> None:
    (override,) = OverridesParser.create().parse_overrides(quoted_paths([argument]))
    assert override.value() == value and override.is_delete() is (value is None)


def test_thresholds_at_their_bounds_are_taken() -> None:
    Thresholds(support=0.0, unigrams=1, bigrams=1, trigrams=1, position_mi=0.0)
    Thresholds(support=1.0)


NAMES = [
    "a b",
    "a,b",
    "it's",
    'a"b',
    "[x]",
    "(1)",
    "a=b",
    "é電😀",
    "1e5",
    "007",
    "true",
    "x\\",
    "a\\'b",
    "{a: b}",
    "a:b",
    "#x",
    "-x",
    "a$b",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "setting",
    [
        "ckpt",
        "out",
        "scratch",
        "untrained",
        "corpus.path",
        "+corpus.store",
        "corpus.tokenizer",
        "name",
        "corpus.text",
        "wandb.project",
    ],
)
def test_any_path_goes_through_hydra(setting: str, name: str) -> None:
    """Alone and in a list, bare, and in a sweep where it has no comma."""
    (override,) = OverridesParser.create().parse_overrides(quoted_paths([f"{setting}={name}"]))
    assert override.value() == name and override.key_or_group == setting.lstrip("+")
    if "," not in name:
        _, override = OverridesParser.create().parse_overrides(["a=b", *quoted_paths(["-m", f"{setting}={name}"])[1:]])
        assert override.value() == name


@pytest.mark.parametrize("name", [name for name in NAMES if not set(name) & set(",'\":\\")])
def test_any_path_goes_through_hydra_in_lists_and_domains(name: str) -> None:
    read = OverridesParser.create().parse_overrides
    (override,) = read(quoted_paths([f"censuses=[{name},a/b, 'c,d']"]))
    assert override.value() == [name, "a/b", "c,d"]
    for domains in (f"{{a: {name}, 'b c': \"d, e: f\",g:h*.txt}}", f"{{'a': '{name}','b c':'d, e: f', g: h*.txt}}"):
        (override,) = read(quoted_paths([f"corpus.domains={domains}"]))
        assert override.value() == {"a": name, "b c": "d, e: f", "g": "h*.txt"} and override.is_force_add()
    (override,) = read(quoted_paths([f"corpus.domains.a={name}"]))
    assert override.value() == name and override.is_force_add()


@pytest.mark.parametrize(
    "argument", ["ckpt=a,b", "ckpt=choice(a,b)", "corpus.path=null", "out=${name}/x", "ckpt=facebook/opt-125m"]
)
def test_what_hydra_reads_stays_with_it(argument: str) -> None:
    assert quoted_paths(["-m", argument]) == ["-m", argument]
