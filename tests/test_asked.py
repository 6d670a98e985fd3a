"""What a census is asked for: which text it reads, into which folder, and that it is looked at before any text is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console
from synthetic_census import write_census

from analyze import pipeline as analysis
from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.pipeline import analyze, sequences_for
from analyze.tables.positions import bias_warning
from corpora import notices
from corpora.config import CorpusConfig
from corpora.sequences import Read
from corpora.tokenizer import train_bpe
from errors import UserError
from models.checkpoint import Checkpoint, save_checkpoint
from models.open_checkpoint import open_checkpoint

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, corpus: CorpusConfig) -> dict[str, Checkpoint]:
    """A model from elsewhere, and a milestone, with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    train_bpe((file.read_text() for file in sorted(Path(str(corpus.path)).iterdir())), 300).save(str(folder / "tokenizer.json"))
    for name, state in (("foreign", {}), ("ours", {"step": 0, "tokens": 0})):
        save_checkpoint(tiny.random_model(len(name), vocab_size=320), folder / name, state, folder / "tokenizer.json")
    return {name: open_checkpoint(str(folder / name)) for name in ("foreign", "ours")}


def asked(corpus: CorpusConfig, **settings: Any) -> AnalyzeConfig:
    return tiny.analysis(Path("x"), corpus, Path("x"), **settings)


def test_a_run_reads_the_text_kept_from_it_and_another_model_all(
    corpus: CorpusConfig, models: dict[str, Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    notices.announce.cache_clear()
    read = {name: sequences_for(model, asked(corpus)) for name, model in models.items()}
    said = capsys.readouterr().err
    ours, foreign = read["ours"].read, read["foreign"].read
    assert (
        ours is not None and foreign is not None and ours.everywhere == foreign.everywhere == foreign.available > ours.available
    )
    assert (ours.split, foreign.split) == ("validation", "all")
    held_out, everything = (f"{24 * n:,}" for n in (ours.available, ours.everywhere))
    assert f"corpus=made: {everything} tokens of all its text, since the model was not trained here: it has no more." in said
    assert (
        f"{held_out} tokens of the text kept from training, which a run of train/run.py is asked about: it has no more; " in said
    )
    assert f"split=all has {everything}." in said
    for model in models.values():  # as one that is asked for
        for split, of in (("validation", "ours"), ("all", "foreign")):
            assert np.array_equal(sequences_for(model, asked(corpus, split=split)).ids, read[of].ids)


def test_what_a_setting_says_is_not_said_again(
    corpus: CorpusConfig, models: dict[str, Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    notices.announce.cache_clear()
    sequences_for(models["ours"], asked(corpus, tokens=480, split="train"))
    assert "tokens of" not in capsys.readouterr().err
    sequences_for(models["ours"], asked(corpus, tokens=480))
    assert "corpus=made: 480 tokens of the text kept from training, which" in capsys.readouterr().err


def test_advice_names_numbers_that_can_be_had() -> None:
    seen = np.full((1, 24), 10)
    needed = 101  # for a tenth of 0.05
    for read, advice in (
        (None, f"tokens={needed * 24:,}"),
        (Read("validation", needed, 500), f"tokens={needed * 24:,}"),
        (Read("validation", needed - 1, 500), f"split=all tokens={needed * 24:,}"),
        (Read("all", 50, 50), "this text has 50"),
    ):
        assert f"; {needed} sequences ({advice}) would be enough" in str(bias_warning(seen, 0.05, read))


NO_TEXT = CorpusConfig("none", "files", path="/nowhere/at/all")
BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "layers that are none": ({"layers": "0-2"}, "layers=0-2 is not all"),
    "layers beyond the last": ({"layers": "0,3"}, "layers=0,3 .* within 0..2"),
    "a split that is none": ({"split": "test"}, "split='test' is none of auto, validation"),
    "a context too long": ({"context": 25}, "context=25 is longer"),
    "what a GPU has": ({"residuals": "pinned"}, "residuals=pinned is for a GPU"),
    "a folder of something else": ({"out": "full"}, "full is not empty and is no census"),
    "an untrained model of another shape": ({"null": "other"}, "null=.* of 1 layers of 8 neurons, not 3 of 44"),
    "fewer tokens than a sequence": ({"tokens": 23}, "tokens=23 is too few"),
}


@pytest.mark.parametrize(("settings", "said"), BEFORE.values(), ids=BEFORE)
def test_a_census_is_looked_at_before_its_text(
    settings: dict[str, Any], said: str, models: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    if "null" in settings:
        write_census(tmp_path / "other", layers=1, neurons=8, places=24)
    with pytest.raises(UserError, match=said):
        analyze(replace(asked(NO_TEXT), ckpt=str(models["foreign"].path), **{"out": "new", **settings}))


def test_a_census_goes_by_default_into_a_folder_of_its_model_and_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[Path] = []
    monkeypatch.setattr(analysis, "open_checkpoint", lambda _: tiny)
    monkeypatch.setattr(analysis, "_opened", lambda *_: None)
    monkeypatch.setattr(analysis, "censuses_of", lambda checkpoints, *_: went.append(checkpoints[0][1]))
    for ckpt in ("facebook/opt-125m", "runs/a/checkpoints/last.ckpt", str(tmp_path / "run" / "milestones" / "step_000000003")):
        for corpus in (NO_TEXT, replace(NO_TEXT, name="local", source="local", path=None)):
            analyze(replace(asked(corpus), ckpt=ckpt, out=None))
    census = Path("runs") / "census"
    assert went[:4] == [census / f"{name}-{corpus}" for name in ("opt-125m", "a") for corpus in ("none", "local")]
    assert went[4] == tmp_path / "run" / "census" / "step_000000003"


def test_what_another_census_is_of_is_named(
    corpus: CorpusConfig, models: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun or finished: corpora and checkpoints by name, not by hash."""

    def task(of: str = "foreign", **settings: Any) -> CensusTask:
        chosen = asked(replace(corpus, name=settings.pop("name", "made")), tokens=480, **settings)
        return CensusTask(models[of], sequences_for(models[of], chosen), tmp_path / "out", chosen)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("analyze.census.take.corpus_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        take(task(), QUIET)
    for state in ("begun", "finished"):
        if state == "finished":
            take(task(layers="0"), QUIET)
        assert ("title" in json.loads((tmp_path / "out" / "meta.json").read_text())) is (state == "finished")
        with pytest.raises(
            UserError, match=r"another corpus \(there made, all: 20 sequences of 24, here made, train: 20 sequences"
        ):
            take(task(split="train"), QUIET)
        with pytest.raises(UserError, match=r"another checkpoint \(there .*/foreign, here .*/ours\)"):
            take(task("ours", split="all"), QUIET)
