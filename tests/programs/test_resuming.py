"""Training in processes of its own that die by kill -9: 20 steps are 7, a kill and 13 more; on two ranks; one rank is two."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import SERVER, become_rank, free_port, start_workers_as_alone

from corpora.config import CorpusConfig
from corpora.prepare import token_store
from train import checkpointing as keeping
from train.config import BatchConfig, TrainConfig
from train.folder import last_checkpoint
from train.training import train

STEPS, KEPT = 20, 7


def rank(config: TrainConfig, number: int, of: int, port: int, killed: bool) -> None:
    """One process of a run."""
    start_workers_as_alone()
    if of > 1:
        become_rank(number, of, port)
    torch.set_num_threads(1)
    if killed:
        vars(keeping)["torch"] = Dying()
    train(config, [])


class Dying:
    """torch, but for a `save` that writes half of the checkpoint after KEPT and dies by kill -9."""

    def save(self, checkpoint: dict[str, Any], file: Path) -> None:
        torch.save(checkpoint, file)
        if checkpoint["global_step"] == KEPT + 1:
            os.truncate(file, file.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def run(config: TrainConfig, ranks: int = 1, killed: bool = False) -> Path:
    """Train in `ranks` processes; where rank 0 is killed the others are too, as torchrun does it."""
    port = free_port()
    processes: list[BaseProcess] = [SERVER.Process(target=rank, args=(config, i, ranks, port, killed)) for i in range(ranks)]
    for process in processes:
        process.start()
    processes[0].join()
    for process in processes[1:]:
        if killed:
            process.kill()
        process.join()
    codes = [process.exitcode for process in processes]
    assert codes[0] == -signal.SIGKILL if killed else codes == [0] * ranks
    return Path(config.runs) / config.name


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in found]


def tensors(state: Any, name: str = "") -> dict[str, Any]:
    """Everything in last.ckpt, by its way from the top."""
    if isinstance(state, dict | list):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in items for k, v in tensors(value, f"{name}/{key}").items()}
    return {name: state}


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def stored(folder: Path) -> dict[str, Any]:
    return tensors(torch.load(last_checkpoint(folder), weights_only=True))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Twenty steps with dropout, of 8 sequences each; the corpus is there before two ranks want it."""
    place = tmp_path_factory.mktemp("resuming")
    corpus: CorpusConfig = tiny.text_corpus(place / "text")
    token_store(corpus)
    return tiny.training(corpus, place / "runs", steps=STEPS, milestones=[5, STEPS], batch=BatchConfig(tokens=128, micro=2))


@pytest.fixture(scope="module")
def whole(config: TrainConfig) -> Path:
    return run(replace(config, name="whole"))


@pytest.fixture(scope="module")
def whole_of_two(config: TrainConfig) -> Path:
    return run(replace(config, name="whole-of-two"), ranks=2)


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (2, 1), (0, 2)])
def test_twenty_steps_are_seven_a_kill_and_thirteen(
    workers: int, ranks: int, config: TrainConfig, request: pytest.FixtureRequest
) -> None:
    config = replace(config, name=f"parts-{workers}-{ranks}", batch=replace(config.batch, workers=workers))
    folder = run(config, ranks, killed=True)
    assert torch.load(last_checkpoint(folder), weights_only=True)["global_step"] == KEPT
    assert len(lines(folder)) == KEPT + 1, "the step after the last checkpoint was logged, and is made again"
    assert run(config, ranks) == folder
    uninterrupted = request.getfixturevalue("whole" if ranks == 1 else "whole_of_two")
    ours, theirs = stored(folder), stored(uninterrupted)
    ignored = {
        "/name",
        "/metrics.jsonl",
        *(name for name in theirs if name.startswith("/loops")),
    }  # lines hold times; Lightning counts fetched batches
    assert ours.keys() == theirs.keys() and any("exp_avg_sq" in name for name in theirs)
    assert [name for name in theirs.keys() - ignored if not same(ours[name], theirs[name])] == []
    assert lines(folder) == lines(uninterrupted) and len(lines(folder)) == STEPS
    assert not list(folder.rglob(".*")), "no partial file is left"


def test_two_ranks_make_the_steps_of_one(whole: Path, whole_of_two: Path) -> None:
    """Up to the order of float32 sums; dropout is on, and every micro-batch has the masks it has on one rank."""
    one, two = (torch.load(last_checkpoint(folder), weights_only=True)["state_dict"] for folder in (whole, whole_of_two))
    ours, theirs = (torch.cat([parameter.flatten() for parameter in state.values()]) for state in (two, one))
    assert 0 < (ours - theirs).norm() <= 1e-6 * theirs.norm()
    for line, expected in zip(lines(whole_of_two), lines(whole), strict=True):
        assert line == pytest.approx(expected, rel=1e-5)
