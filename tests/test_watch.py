"""What stops a run: a loss that is not a number, a spike, a full disk, a signal, a time limit; the last good checkpoint stays."""

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import OmegaConf
from processes import SERVER, start_workers_as_alone

from corpora.config import CorpusConfig
from corpora.prepare import token_store
from corpora.source_identity import source_words
from device import CPU
from errors import UserError
from models.pickled import plain_values
from signals import STOPPED, Stopped
from train import dataloader as reading
from train.config import BatchConfig, OptimizerConfig, TrainConfig, WatchConfig
from train.data_order import Steps, TrainingOrder
from train.folder import finished_steps, identity, known_name, last_checkpoint, run_name
from train.launching import launched
from train.module import Training
from train.progress import Bar
from train.swept_settings import noted
from train.training import train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def kept(run: Path) -> int:
    """The step of last.ckpt, which opens."""
    return int(plain_values(last_checkpoint(run))["global_step"])


def stopped(config: TrainConfig) -> Path:
    """Train until the run is stopped before its end; its folder."""
    with pytest.raises(Stopped) as ended:
        train(config, [])
    assert ended.value.code == 75
    return Path(config.runs) / config.name


def spoil(step: int, by: float, patch: pytest.MonkeyPatch) -> None:
    """Add `by` to the loss of the batch that ends in `step`, as a bad batch would."""
    as_ever = Training.training_step

    def spoiled(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        found = as_ever(self, batch, index)
        return found | {"loss": found["loss"] + (by if batch[0] == step - 1 else 0.0)}

    patch.setattr(Training, "training_step", spoiled)


def documents(config: TrainConfig, step: int) -> list[int]:
    """Of the batch that ends in `step`."""
    order = TrainingOrder(token_store(config.corpus).split("train"), config.model.context, config.seed)
    return Steps(order, 0, step, config.micro_steps(), config.batch.micro).documents(step - 1)


@pytest.mark.parametrize(("by", "said"), [(float("nan"), "is not a number"), (3.0, "more than 2.0 above")])
def test_a_bad_step_is_named_with_its_documents_and_never_kept(
    by: float, said: str, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.training(
        corpus, tmp_path, steps=12, milestones=[12], log_every=6, checkpoint_every=3, watch=WatchConfig(window=4)
    )
    spoil(8, by, monkeypatch)
    with pytest.raises(UserError, match=f"step 8 .*{said}") as found:
        train(config, [])
    run = tmp_path / "run"
    assert f"{last_checkpoint(run)} of step 6" in str(found.value) and kept(run) == 6
    stopped = json.loads((run / "stopped.json").read_text())
    assert (stopped["step"], stopped["last_good_step"]) == (8, 6) and stopped["documents"] == documents(config, 8)
    assert str(stopped["documents"][0]) in str(found.value)


def test_a_resumed_run_sees_the_spike_that_a_whole_one_sees(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.training(corpus, tmp_path, steps=12, milestones=[], watch=WatchConfig(window=4))
    train(replace(config, steps=6), [])
    spoil(8, 3.0, monkeypatch)
    with pytest.raises(UserError, match=r"step 8 .*above"):
        train(config, [])
    assert kept(train(replace(config, watch=WatchConfig(spike=None)), [])) == 12


def test_a_rate_far_too_high_stops_the_run_while_its_checkpoint_is_sound(corpus: CorpusConfig, tmp_path: Path) -> None:
    """Nothing is spoiled here: the model is."""
    wild = OptimizerConfig(learning_rate=1e20, final_learning_rate=1e20, warmup_steps=3, schedule_steps=10)
    with pytest.raises(UserError, match="not a number"):
        train(tiny.training(corpus, tmp_path, optimizer=wild, log_every=100), [])
    kept_weights = torch.load(last_checkpoint(tmp_path / "run"), weights_only=True)["state_dict"]
    assert all(bool(weight.isfinite().all()) for weight in kept_weights.values())


@contextmanager
def disk_of(most: int) -> Iterator[None]:
    """No file can grow past `most` bytes, as on a full disk or over a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_in_a_sentence_and_leaves_what_was_whole(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, milestones=[5])
    run = train(replace(config, steps=3, milestones=[]), [])
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text() * 300)  # larger than all that is written before its next line
    sizes = {"metrics.jsonl": metrics.stat().st_size + 20, "last.ckpt": last_checkpoint(run).stat().st_size - 5000}
    for name, most in sizes.items():
        with disk_of(most), pytest.raises(UserError, match=r"cannot be written to disk .*last\.ckpt of step 3; make room"):
            train(config, [])
        assert kept(run) == 3 and not list(run.rglob("*.partial")), name
        assert all(json.loads(line) for line in metrics.read_text().splitlines()), "no half line"
    assert kept(train(config, [])) == 6


def test_what_is_refused_leaves_the_run_as_it_was(corpus: CorpusConfig, tmp_path: Path) -> None:
    run = train(tiny.training(corpus, tmp_path, steps=3, milestones=[3]), [])
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    other = tiny.text_corpus(tmp_path / "other" / "text", documents=50)
    words = replace(corpus, vocab_size=290)
    as_it_was = tiny.training(corpus, tmp_path)
    for changed, named in (
        (replace(as_it_was, corpus=other), "corpus"),
        (replace(as_it_was, corpus=words), "tokenizer"),
        (replace(as_it_was, model=replace(as_it_was.model, context=8)), r"model\.context"),
    ):
        with pytest.raises(UserError, match=f"begun with another .*{named} "):
            train(changed, [])
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def send_at(step: int, what: signal.Signals, patch: pytest.MonkeyPatch, times: int = 1) -> None:
    """This process is sent a signal in the middle of `step`, once or more often."""
    as_ever = Training.training_step

    def signalled(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        for _ in range(times if batch[0] == step - 1 else 0):
            os.kill(os.getpid(), what)
        return as_ever(self, batch, index)

    patch.setattr(Training, "training_step", signalled)


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_the_run_after_its_step(
    what: signal.Signals,
    corpus: CorpusConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny.training(corpus, tmp_path, checkpoint_every=100, milestones=[])
    handler = signal.getsignal(what)
    send_at(4, what, monkeypatch)
    run = stopped(config)
    assert kept(run) == 4 and f"stopped at step 4 ({what.name})" in capsys.readouterr().err
    assert signal.getsignal(what) == handler
    monkeypatch.undo()
    assert kept(train(config, [])) == 6


def test_a_second_one_ends_it_at_once_where_no_program_watches(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a notebook, which must outlive it; tests/test_stopping.py has the programs."""
    send_at(4, signal.SIGINT, monkeypatch, times=2)
    run = stopped(tiny.training(corpus, tmp_path, checkpoint_every=2, milestones=[]))
    assert kept(run) == 2
    assert re.search(r"stopped at once \(a second SIGINT\)\. The last good .*last\.ckpt of step 2", capsys.readouterr().err)


def test_the_first_signal_is_the_one_that_is_heeded(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning, for which SLURM is asked for the job again, before the SIGTERM that ends it."""
    as_ever = Training.training_step

    def signalled(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        return as_ever(self, batch, index)

    monkeypatch.setattr(Training, "training_step", signalled)
    assert kept(stopped(tiny.training(corpus, tmp_path, milestones=[]))) == 1
    assert "stopped at step 1 (SIGUSR1)" in capsys.readouterr().err


def test_the_terminal_is_as_it_was_after_an_error(corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Kept(Bar):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.progress.disable = False  # as on a terminal
            bars.append(self.progress)

    monkeypatch.setattr("train.training.Bar", Kept)
    spoil(2, float("nan"), monkeypatch)
    with pytest.raises(UserError, match="not a number"):
        train(tiny.training(corpus, tmp_path), [])
    assert len(bars) == 1 and bars[0].tasks[0].completed == 1 and not bars[0].live.is_started


def signalled_group(config: TrainConfig, what: signal.Signals) -> None:
    """A run in a group of processes that are all sent a signal in the middle of step 4."""
    os.setpgid(0, 0)
    start_workers_as_alone()
    as_ever = Training.training_step

    def signalling(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        if batch[0] == 3:
            subprocess.run(["kill", f"-{what.value}", "--", f"-{os.getpgid(0)}"], start_new_session=True, check=True)
            time.sleep(1)  # for a reader that dies of it to be missed
        return as_ever(self, batch, index)

    Training.training_step = signalling  # type: ignore[method-assign, assignment]
    train(config, [])


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_to_all_processes_is_left_to_the_run(what: signal.Signals, corpus: CorpusConfig, tmp_path: Path) -> None:
    batch = BatchConfig(tokens=128, micro=4, workers=2)
    config = tiny.training(corpus, tmp_path, steps=40, checkpoint_every=100, milestones=[], batch=batch)
    process = SERVER.Process(target=signalled_group, args=(config, what))
    process.start()
    process.join()
    assert process.exitcode == STOPPED and kept(tmp_path / "run") == 4


def reader_elsewhere() -> None:
    """A reader on a system that does not say who sent a signal, and a SIGTERM to it."""
    vars(signal).pop("sigwaitinfo")
    reading._deaf(0)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_reader_heeds_every_sigterm_where_no_sender_is_told() -> None:
    process = SERVER.Process(target=reader_elsewhere)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGTERM


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a job in SLURM finds, with a scontrol that writes down what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"JOB_ID": "1234", "JOB_NAME": "opt", "NTASKS": "1", "NNODES": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    return scontrol


def test_slurm_is_asked_for_the_job_again(
    corpus: CorpusConfig, tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        send_at(2, signal.SIGUSR1, patch)
        run = stopped(tiny.training(corpus, tmp_path, checkpoint_every=100))
    assert kept(run) == 2 and (tmp_path / "asked").read_text() == "requeue 1234\n"
    with monkeypatch.context() as patch:
        send_at(4, signal.SIGTERM, patch)  # scancel, or a preemption that requeues by itself
        assert kept(stopped(tiny.training(corpus, tmp_path, checkpoint_every=100))) == 4
    assert (tmp_path / "asked").read_text() == "requeue 1234\n"
    assert not list(run.glob("hpc_ckpt*")), "Lightning would resume from that instead"
    assert kept(stopped(tiny.training(corpus, tmp_path, checkpoint_every=100, time_limit=0.0))) == 5
    assert (tmp_path / "asked").read_text() == "requeue 1234\n" * 2


@pytest.mark.usefixtures("scontrol")
def test_lightning_asks_slurm_for_nothing(corpus: CorpusConfig, tmp_path: Path) -> None:
    """Not even for what it would write before the first step."""
    environment = launched(tiny.training(corpus, tmp_path), tmp_path, CPU())._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue


@pytest.mark.parametrize("says", ["#!/bin/sh\necho Job may not be requeued >&2\nexit 1\n", None])
def test_a_job_that_slurm_does_not_take_again_is_said(
    says: str | None, corpus: CorpusConfig, tmp_path: Path, scontrol: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scontrol.write_text(says) if says else scontrol.unlink()
    assert kept(stopped(tiny.training(corpus, tmp_path, checkpoint_every=100, time_limit=0.0))) == 1
    why = "Job may not be requeued" if says else "No such file or directory: 'scontrol'"
    assert re.search(rf"did not take job 1234 again \(.*{why}\): submit it again", capsys.readouterr().err)


def test_a_time_limit_that_is_over_leaves_a_step_made(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, checkpoint_every=100, time_limit=0.0)
    assert [kept(stopped(config)) for _ in range(3)] == [1, 2, 3]
    assert finished_steps(tmp_path / "run", {}) == 3


def test_a_time_limit_counts_what_came_before_the_first_step(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.training.monotonic", lambda: time.monotonic() - 3600)  # as if the corpus had taken an hour
    assert kept(stopped(tiny.training(corpus, tmp_path, time_limit=0.9))) == 1
    assert kept(train(tiny.training(corpus, tmp_path, time_limit=1.9), [])) == 6


def test_a_folder_is_named_by_its_overrides() -> None:
    assert run_name("experiment_paper/nopos-seed_0") == "experiment_paper+nopos-seed_0" and run_name("") == "baseline"
    paths = ["/a b/*.txt", "/a+b/*.txt", "/a b/?.txt", "/a/b", "/a+b", "-a-b", "x" * 200, "x" * 201]
    names = [run_name(f"corpus.path_{path}") for path in paths]
    assert len(set(names)) == len(paths) and all(re.fullmatch(r"[\w.+-]{1,140}", name) for name in names)


def test_a_name_that_is_cut_begins_with_what_is_swept() -> None:
    long = f"a_1-corpus.path_{'x' * 120}-model_b/c-seed_7"
    assert run_name(long, ["seed=7", "model=b/c"]).startswith("seed_7-model_b+c-a_1-corpus.path_xxx")
    assert len({run_name(long, ["seed=7"]), run_name(long.replace("_7", "_8"), ["seed=8"])}) == 2
    assert run_name("a_1-seed_7", ["seed=7"]) == "a_1-seed_7", "a short one stays"


def test_a_run_that_is_named_otherwise_in_a_sweep_is_the_same_run(tmp_path: Path) -> None:
    long = f"corpus.path_{'x' * 200}-seed_7"
    alone, swept = run_name(long), run_name(long, ["seed=7"])
    assert alone != swept and known_name(tmp_path / "runs", swept) == swept
    (tmp_path / alone).mkdir()
    assert known_name(tmp_path, swept) == alone
    assert known_name(tmp_path, run_name(long.replace("_7", "_8"))) != alone and known_name(tmp_path, "baseline") == "baseline"


def test_what_is_swept_is_noted_for_the_jobs() -> None:
    arguments = ["-m", "steps=3", "seed=1,2", "model=choice(a,b)", "live.steps=[1,2]"]
    assert noted(arguments) == [*arguments, "+hydra.job.env_set.NEURON_CENSUS_SWEPT='seed model'"]
    for other in (arguments[1:], ["-m", "steps=3"], ["-m", "a=b=c,d"]):
        assert noted(other) == other


def of_a_store(config: CorpusConfig) -> set[str]:
    """Settings of a corpus that decide its tokens, and with them a run's identity."""
    return {f"corpus.{name}" for name in (*source_words(config), "tokenizer", "vocab_size", "bos_id")}


def test_a_name_leaves_out_just_the_settings_that_a_run_can_be_gone_on_with(corpus: CorpusConfig, tmp_path: Path) -> None:
    """No setting is in neither list, nor in both: else the same run begins again in another folder, or is refused in its own."""
    config = tiny.training(corpus, tmp_path)
    fields = {"name"} | {
        f"{name}.{part}" if isinstance(value, dict) else name
        for name, value in asdict(config).items()
        for part in (value if isinstance(value, dict) else [""])
    }
    conf = OmegaConf.load(Path(__file__).parents[1] / "conf" / "train.yaml")
    left_out = set(OmegaConf.select(conf, "hydra.job.config.override_dirname.exclude_keys"))
    decide = (set(identity(config, token_store(corpus), "32-true")) - {"corpus", "tokenizer"}) | of_a_store(corpus)
    assert left_out | decide == fields and not left_out & decide
