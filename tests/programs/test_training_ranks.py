"""Two ranks of a training run: what the first decides all do, what fails on it ends all, and any of them may be told to stop."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import tiny
from processes import SERVER, become_rank, free_port, start_workers_as_alone

from corpora.prepare import token_store
from errors import plainly
from models.open_checkpoint import open_checkpoint
from signals import STOPPED
from train.config import LiveConfig, TrainConfig
from train.folder import last_checkpoint
from train.graceful_stop import Stopping
from train.module import Training
from train.ranks import Together
from train.training import train

SECONDS = 120  # after which a rank that waits for another is said to wait for ever


def rank(config: TrainConfig, number: int, port: int, said: Path, stopped_at: int | None) -> None:
    """One of two; what it says on standard error is in a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    start_workers_as_alone()
    become_rank(number, 2, port)
    agreements: list[float] = []
    most = Together.most

    def counted(self: Together, *values: float) -> list[float]:
        agreements.append(values[-1])
        return most(self, *values)

    Together.most = counted  # type: ignore[method-assign]
    if stopped_at is not None and number == 1:
        as_ever = Stopping.on_train_batch_end

        def signalled(self: Stopping, trainer: L.Trainer, module: Training, *arguments: Any) -> None:
            if trainer.global_step == stopped_at:
                os.kill(os.getpid(), signal.SIGTERM)
            as_ever(self, trainer, module, *arguments)

        Stopping.on_train_batch_end = signalled  # type: ignore[method-assign, assignment]
    try:
        with plainly():
            train(config, [])
    finally:
        print(f"agreements: {len(agreements)}", file=sys.stderr)


def run(config: TrainConfig, said: Path, stopped_at: int | None = None) -> tuple[list[int | None], str]:
    """Exit codes of both ranks, None of one that hangs; and all that they said."""
    port = free_port()
    ranks = [SERVER.Process(target=rank, args=(config, number, port, said, stopped_at)) for number in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(SECONDS)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    return codes, said.read_text()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    place = tmp_path_factory.mktemp("ranks")
    corpus = tiny.text_corpus(place / "text")
    token_store(corpus)  # several ranks prepare none
    settings: dict[str, Any] = {"steps": 2, "milestones": [2], "live": LiveConfig(spacing="milestones", tokens=160)}
    return tiny.training(corpus, place / "runs", **settings)


def test_one_rank_speaks_and_another_sample_ends_both(config: TrainConfig, tmp_path: Path) -> None:
    codes, said = run(config, tmp_path / "first")
    assert codes == [0, 0] and said.count("milestone ") == said.count("live censuses of 160 tokens took") == 1, said
    codes, said = run(config, tmp_path / "again")
    assert codes == [0, 0] and said.count("has finished its 2 steps already") == 1, said
    codes, said = run(replace(config, steps=4, live=LiveConfig(tokens=800)), tmp_path / "other")
    assert codes == [1, 1] and said.count("error: ") == 1 and "live.tokens=800, but" in said, said


def test_a_folder_that_the_first_rank_cannot_write_ends_both(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    codes, said = run(replace(config, name="file", runs=str(tmp_path)), tmp_path / "said")
    assert codes == [1, 1] and said.count("error: ") == 1 and "could not be written (File exists)" in said, said


def test_a_census_that_fails_is_said_once_and_both_go_on(config: TrainConfig, tmp_path: Path) -> None:
    """Its folder cannot be made: there is a file."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "live").touch()
    codes, said = run(replace(config, runs=str(tmp_path)), tmp_path / "said")
    assert codes == [0, 0] and said.count("no live censuses, for the trial of one failed: FileExistsError: ") == 1, said


def test_ranks_agree_about_once_a_second_and_stop_when_one_is_told_to(config: TrainConfig, tmp_path: Path) -> None:
    rarely: dict[str, Any] = {
        "milestones": [],
        "log_every": 10_000,
        "checkpoint_every": 100_000,
        "live": LiveConfig(spacing="off"),
    }
    codes, said = run(replace(config, name="stopped", steps=100_000, **rarely), tmp_path / "said", stopped_at=60)
    step = open_checkpoint(str(last_checkpoint(Path(config.runs) / "stopped"))).step
    agreements = int(said.rsplit("agreements: ", 1)[1])
    assert (
        codes == [STOPPED, STOPPED]
        and step is not None
        and step >= 60
        and said.count("stopped at step") == said.count("(SIGTERM)") == 1
    ), said
    assert agreements < step / 2, (agreements, step)
