"""Censuses during training: they change nothing, are those of analyze/run.py, survive a kill, and fit their share."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiny
import torch
from rich.console import Console
from test_training import Killed, kill_at, lines, weights
from test_watch import kept, spoil, stopped

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.pipeline import sequences_for
from checksums import write_object
from corpora.config import CorpusConfig
from device import CUDA
from errors import UserError
from models.open_checkpoint import open_checkpoint
from train.config import LiveConfig
from train.folder import last_checkpoint
from train.live_census import LiveCensus, affordable
from train.live_folder import read_sample, recorded
from train.live_messages import chosen_words
from train.module import Training
from train.training import train

LIVE = LiveConfig(tokens=800)
TABLES = ("evolution", "transitions", "positional_transitions", "detectors_kept", "births")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


@pytest.fixture(scope="module")
def watched(corpus: CorpusConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with live censuses."""
    return train(tiny.training(corpus, tmp_path_factory.mktemp("watched"), live=LIVE), [])


def counted(run: Path) -> dict[str, bytes]:
    """What the live censuses counted, byte for byte."""
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.glob("live/step_*/*/*.safetensors"))}


def test_a_run_that_is_watched_is_the_run_that_is_not(corpus: CorpusConfig, watched: Path, tmp_path: Path) -> None:
    alone = train(tiny.training(corpus, tmp_path), [])
    for step in (0, 3, 6):
        ours, theirs = weights(watched, step), weights(alone, step)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert lines(watched) == lines(alone)
    ours, theirs = (
        torch.load(last_checkpoint(run), weights_only=True)["optimizer_states"][0]["state"] for run in (watched, alone)
    )
    assert all(torch.equal(ours[i][name], theirs[i][name]) for i in theirs for name in ("exp_avg", "exp_avg_sq"))


def test_random_numbers_mode_and_gradients_are_left_alone(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def state(module: torch.nn.Module) -> tuple[Any, ...]:
        grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
        return torch.get_rng_state().tolist(), module.training, grads, [p._version for p in module.parameters()]

    def spying(self: LiveCensus, module: Training, *arguments: Any) -> None:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        before = state(module)
        census(self, module, *arguments)
        after = state(module)
        seen.append(before[:2] == after[:2] and before[3] == after[3] and all(map(torch.equal, before[2], after[2])))
        module.zero_grad(set_to_none=True)

    census = LiveCensus._take_if_due
    monkeypatch.setattr(LiveCensus, "_take_if_due", spying)
    train(tiny.training(corpus, tmp_path, live=LIVE), [])
    assert len(seen) == 6 and all(seen)


def test_a_live_census_is_that_of_the_milestone(corpus: CorpusConfig, watched: Path, tmp_path: Path) -> None:
    assert [int(folder.name[5:]) for folder in sorted((watched / "live").glob("step_*"))] == [0, 1, 2, 3, 5, 6]
    for step in (0, 3, 6):
        name = f"step_{step:09d}"
        checkpoint = open_checkpoint(str(watched / "milestones" / name))
        config = tiny.analysis(watched / "milestones" / name, corpus, tmp_path / name, tokens=800)
        take(CensusTask(checkpoint, sequences_for(checkpoint, config), tmp_path / name, config), Console(quiet=True))
        for table in ("neurons", "ngrams", "layers"):
            ours, theirs = (pl.read_parquet(folder / name / f"{table}.parquet") for folder in (watched / "live", tmp_path))
            assert ours.equals(theirs), (step, table)
        live, after = (json.loads((folder / name / "meta.json").read_text()) for folder in (watched / "live", tmp_path))
        assert live["corpus"] == after["corpus"]
        assert live["checkpoint"] | {"path": ""} == after["checkpoint"] | {"path": ""}


@pytest.mark.parametrize("at", [4, 5])
def test_evolution_after_a_kill_is_that_of_the_run_without(at: int, corpus: CorpusConfig, watched: Path, tmp_path: Path) -> None:
    """Killed after the census of step 5, with step 2 or 4 on disk: censuses of later steps are taken again."""
    config = tiny.training(corpus, tmp_path, live=LIVE, checkpoint_every=2, milestones=[0, 3, 6] if at == 5 else [0, 6])
    whole = watched if at == 5 else train(tiny.training(corpus, tmp_path / "whole", live=LIVE, milestones=[0, 6]), [])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(at, patch)
        train(config, [])
    run = train(config, [])
    assert counted(run) == counted(whole) and len(counted(run)) > 5
    for name in TABLES:
        ours, theirs = (pl.read_parquet(folder / "live" / f"{name}.parquet") for folder in (run, whole))
        assert ours.equals(theirs), name
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]


def test_a_census_that_fails_stops_nothing(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr("train.live_census.take", full)
    run = train(tiny.training(corpus, tmp_path, live=LIVE), [])
    assert lines(run)[-1]["step"] == 6 and "no live census at step 5: the disk is full" in capfd.readouterr().err


def test_weights_are_on_disk_before_a_census_begins(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever hangs in one, the step is kept."""
    seen: dict[int, tuple[int, bool]] = {}

    def looking(self: LiveCensus, module: Training, step: int) -> None:
        milestone = tmp_path / "run" / "milestones" / f"step_{step:09d}" / "model.safetensors"
        seen[step] = (kept(tmp_path / "run") if step else 0, milestone.is_file())

    monkeypatch.setattr(LiveCensus, "_take", looking)
    train(tiny.training(corpus, tmp_path, live=LiveConfig(spacing="milestones", tokens=800)), [])
    assert seen == {0: (0, True), 3: (3, True), 6: (6, True)}


@pytest.mark.parametrize("at", [3, 5, 6])
def test_a_signal_ends_a_census_and_the_next_start_takes_it(
    at: int,
    corpus: CorpusConfig,
    watched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also that of the last step, and of one that no checkpoint was due at."""
    as_ever = LiveCensus._census

    def signalled(self: LiveCensus, module: Training, tokens: int, out: Path, milestone: Path | None = None) -> Path:
        if module.global_step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return as_ever(self, module, tokens, out, milestone)

    config = tiny.training(corpus, tmp_path, live=LIVE, checkpoint_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(LiveCensus, "_census", signalled)
        run = stopped(config)
    assert kept(run) == at and f"the live census at step {at} is left to the next start" in capfd.readouterr().err
    assert not (run / "live" / f"step_{at:09d}" / "meta.json").exists()
    train(config, [])
    assert counted(run) == counted(watched)
    train(config, [])
    assert "has finished its 6 steps already" in capfd.readouterr().err


@pytest.mark.parametrize("live", [LIVE, LiveConfig(share=1.0)])
def test_any_error_of_a_census_leaves_the_run_that_is_not_watched(
    live: LiveConfig, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the first census, before there is a checkpoint, and at the trial of one."""

    def broken(*_: object) -> None:
        torch.rand(3)
        raise RuntimeError("Inplace update to inference tensor")

    monkeypatch.setattr("train.live_census.take", broken)
    config = tiny.training(corpus, tmp_path, steps=3, milestones=[3])
    runs = [train(replace(config, name=name, live=how), []) for name, how in (("watched", live), ("alone", config.live))]
    ours, theirs = (weights(run, 3) for run in runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and lines(runs[0]) == lines(runs[1])
    found = "no live census at step 1" if live is LIVE else "no live censuses, for the trial of one failed"
    assert f"{found}: RuntimeError: Inplace update to inference tensor" in capfd.readouterr().err


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_census_on_a_gpu_is_in_the_precision_and_on_the_gpu_of_the_training(
    precision: str, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def taken(task: CensusTask, *_: object) -> None:
        found.append((task.config.device, replace(task, chosen=CUDA(1)).dtype))
        raise UserError("enough.")

    def elsewhere(self: LiveCensus, *arguments: Any) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(Training, "device", torch.device("cuda", 1))
            return census(self, *arguments)

    census = LiveCensus._census
    monkeypatch.setattr("train.live_census.take", taken)
    monkeypatch.setattr(LiveCensus, "_census", elsewhere)
    live = LiveConfig(spacing="milestones", tokens=160)
    run = train(tiny.training(corpus, tmp_path, steps=1, milestones=[1], precision=precision, live=live), [])
    assert found == [("cuda:1", getattr(torch, precision))]
    made = [open_checkpoint(str(where)) for where in (run / "milestones" / "step_000000001", last_checkpoint(run))]
    assert [checkpoint.precision for checkpoint in made] == [precision] * 2


def test_what_was_found_before_an_error_is_written(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where that fails itself, which hides nothing of the error."""
    config = tiny.training(corpus, tmp_path, live=LiveConfig(spacing="milestones", tokens=800))
    spoil(4, float("nan"), monkeypatch)
    with pytest.raises(UserError, match=r"step 4 .*not a number"):
        train(config, [])
    live = tmp_path / "run" / "live"
    assert pl.read_parquet(live / "evolution.parquet")["step"].unique().sort().to_list() == [0, 3]
    assert "2 live censuses of 800 tokens took" in capfd.readouterr().err
    shutil.rmtree(live / "step_000000003")
    (live / "step_000000000" / "neurons.parquet").unlink()
    with pytest.raises(UserError, match=r"step 4 .*not a number"):
        train(config, [])
    assert "what changed from census to census is not written" in capfd.readouterr().err


def test_a_trial_that_fails_stops_nothing_and_is_made_again(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise UserError("a GPU is full.")

    with monkeypatch.context() as patch:
        patch.setattr("train.live_census.take", full)
        run = train(tiny.training(corpus, tmp_path, steps=3, milestones=[3], live=LiveConfig()), [])
    assert lines(run)[-1]["step"] == 3 and not list((run / "live").iterdir())
    assert "the trial of one failed: a GPU is full. live.spacing=off does without them" in capfd.readouterr().err
    train(tiny.training(corpus, tmp_path, steps=6, milestones=[3], live=LiveConfig(share=1e-9)), [])
    assert json.loads((run / "live" / "sample.json").read_text())["steps"] == []


def test_a_census_that_was_missed_is_taken_of_its_milestone_and_one_without_is_named(
    corpus: CorpusConfig, tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The disk is full at steps 1 and 3; step 3 is a milestone, and its census has the bytes of one that was not missed."""
    failed: set[str] = set()

    def sometimes(task: CensusTask, *arguments: Any) -> None:
        if task.out.name in ("step_000000001", "step_000000003") and task.out.name not in failed:
            failed.add(task.out.name)
            raise UserError("the disk is full.")
        take(task, *arguments)

    monkeypatch.setattr("train.live_census.take", sometimes)
    live = LiveConfig("milestones", steps=[1, 4], tokens=800)
    run = train(tiny.training(corpus, tmp_path, steps=4, milestones=[3], live=live), [])
    said = capfd.readouterr().err
    assert (
        "no live census at step 3: the disk is full." in said
        and "at step 3, which was missing, is taken of its milestone" in said
    )
    assert "no live census at steps 1: no weights are kept of them" in said and "2 live censuses of" in said
    ours, theirs = (sorted((folder / "live" / "step_000000003" / "layers").iterdir()) for folder in (run, watched))
    assert ours and [file.read_bytes() for file in ours] == [file.read_bytes() for file in theirs]


def test_a_missed_census_that_fails_again_is_not_taken_for_the_one_at_hand(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def never_at_3(task: CensusTask, *arguments: Any) -> None:
        if task.out.name == "step_000000003":
            raise UserError("the disk is full.")
        take(task, *arguments)

    monkeypatch.setattr("train.live_census.take", never_at_3)
    train(tiny.training(corpus, tmp_path, steps=4, milestones=[3], live=LiveConfig("milestones", steps=[4], tokens=800)), [])
    said = capfd.readouterr().err
    assert "no live census at step 3: the disk is full." in said and "no live census at step 4" not in said
    assert "live censuses that are missing cannot be taken of their milestones: the disk is full." in said


def test_what_is_said_is_what_is_read_and_what_can_be_had(
    corpus: CorpusConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    live = LiveConfig("milestones", steps=[1], tokens=10**9)
    run = train(tiny.training(corpus, tmp_path, steps=1, milestones=[], live=live), [])
    meta = json.loads((run / "live" / "step_000000001" / "meta.json").read_text())["corpus"]
    assert f"1 live censuses of {meta['sequences'] * meta['context']:,} tokens took" in capfd.readouterr().err
    assert chosen_words(8192, [1], 9, 0.02, 10.0, 0.3, 0.312) == (
        "live censuses of 8,192 tokens at 1 of 9 steps, in 2 % of 10 s: steps 1; one takes 0.30 s: live.share=0.32 takes all, "
        "and so does live.tokens=8192, whatever the time"
    )
    assert "all are taken by live.tokens=8192" in chosen_words(8192, [], 9, 0.02, 10.0, 3.0, 3.12)
    assert chosen_words(8192, [1], 1, 0.02, 10.0, 0.3, 0.01).endswith("steps 1")


def test_another_sample_is_refused(corpus: CorpusConfig, tmp_path: Path) -> None:
    train(tiny.training(corpus, tmp_path, steps=3, milestones=[3], live=LIVE), [])
    with pytest.raises(UserError, match=r"live\.tokens=160, but .* was begun with 800"):
        train(tiny.training(corpus, tmp_path, live=LiveConfig(tokens=160)), [])


def test_a_run_and_its_censuses_go_on_without_the_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = tiny.text_corpus(tmp_path / "text")
    live = LiveConfig(spacing="milestones", tokens=800)
    train(tiny.training(corpus, tmp_path, steps=3, milestones=[3], live=live), [])
    shutil.rmtree(tmp_path / "text")
    run = train(tiny.training(corpus, tmp_path, milestones=[3, 6], live=live), [])
    said = capfd.readouterr().err
    assert said.count("made with the same settings, without a comparison") == 1 and "no live census" not in said
    assert len(list((run / "live").glob("step_*"))) == 2


def test_steps_of_a_run() -> None:
    config = tiny.training(CorpusConfig(name="x", source="local"), Path("runs"), steps=300, milestones=[0, 100, 250])
    config.live = LiveConfig()
    assert config.census_steps == [0, 1, 2, 5, 10, 20, 50, 100, 200, 250]
    config.live = LiveConfig(spacing="milestones", steps=[7, 400])
    assert config.census_steps == [0, 7, 100, 250]
    config.live = LiveConfig(spacing="off")
    assert config.census_steps == []
    with pytest.raises(UserError, match=r"not even at live\.steps=\[7\]"):
        LiveConfig(spacing="off", steps=[7])


def test_what_the_share_affords() -> None:
    steps = list(range(10))
    assert affordable(steps, 100.0, 2.0, 8192) == (5 * 8192, steps)
    assert affordable(steps, 1e9, 2.0, 8192) == (122 * 8192, steps)  # about a million
    assert affordable(steps, 19.0, 2.0, 8192) == (8192, [0, 1, 2, 3, 4, 6, 7, 8, 9])
    assert affordable(steps, 6.0, 2.0, 8192) == (8192, [0, 4, 9])
    assert affordable(steps, 1.9, 2.0, 8192) == (8192, [])
    assert affordable(steps, -1.0, 2.0, 8192) == (8192, [])


def test_the_sample_fits_the_share_and_is_recorded(
    corpus: CorpusConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    none = train(tiny.training(corpus, tmp_path, name="none", live=LiveConfig(share=1e-9)), [])
    assert not list((none / "live").glob("step_*")) and json.loads((none / "live" / "sample.json").read_text())["steps"] == []
    assert "at 0 of 6 steps" in capfd.readouterr().err
    some = train(tiny.training(corpus, tmp_path, name="some", live=LIVE), [])
    sample = json.loads((some / "live" / "sample.json").read_text())
    assert sample["tokens"] == 800 and set(sample["seconds"]) == {*map(str, (0, 1, 2, 3, 5, 6)), "evolution"}
    assert "6 live censuses of 800 tokens took" in capfd.readouterr().err


@pytest.mark.parametrize("tokens", [800, None])
def test_a_damaged_sample_goes_on_with_the_tokens_of_the_censuses_there(
    tokens: int | None, corpus: CorpusConfig, watched: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run counts one sample all along, whatever happens to the record of it."""
    run = Path(shutil.copytree(watched, tmp_path / "run"))
    file = run / "live" / "sample.json"
    file.write_text(file.read_text().replace("800", "900"))
    config = tiny.training(corpus, tmp_path, steps=7, milestones=[7], live=LiveConfig(tokens=tokens, share=0.9))
    train(config, [])
    assert (
        f"{file} is damaged (its checksum is another): it is set aside, and the sample goes on with 800 tokens"
        in capfd.readouterr().err
    )
    assert "900" in (run / "live" / "sample.json.damaged").read_text()
    read = [json.loads((run / "live" / f"step_{step:09d}" / "meta.json").read_text())["corpus"] for step in (6, 7)]
    assert read[0] == read[1] and read_sample(run / "live")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"tokens": 800}', "\xff"])
def test_a_sample_that_is_none_is_damaged(content: str, tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text(content, encoding="latin-1")
    said: list[str] = []
    assert recorded(tmp_path, [1, 2], None, said.append) is None
    assert len(said) == 1 and said[0].endswith("it is set aside, and the sample is chosen anew")
    assert recorded(tmp_path, [1, 2], None, said.append) is None and len(said) == 1


def test_a_run_that_was_killed_at_its_very_end_is_finished_by_the_next_start(
    corpus: CorpusConfig, watched: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """After its last census, before or while what changed between them was written."""
    live = Path(shutil.copytree(watched, tmp_path / "run")) / "live"
    sample = read_sample(live)
    assert sample is not None and sample.pop("compared")
    write_object(live / "sample.json", sample)
    for table in TABLES:
        (live / f"{table}.parquet").unlink()
    (live / ".passing-abc" / "model").mkdir(parents=True)
    config = tiny.training(corpus, tmp_path, live=LIVE)
    train(config, [])
    assert "has finished" not in capfd.readouterr().err and not list(live.glob(".*"))
    for table in TABLES:
        assert (live / f"{table}.parquet").read_bytes() == (watched / "live" / f"{table}.parquet").read_bytes()
    train(config, [])
    assert "has finished its 6 steps already" in capfd.readouterr().err
