"""Which device a process trains on, however it was started; GPUs are made up."""

import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import device
from analyze.config import AnalyzeConfig
from corpora.config import CorpusConfig
from device import CPU, CUDA, resolved
from errors import UserError
from train.config import BatchConfig, TrainConfig
from train.folder import last_checkpoint
from train.graceful_stop import EVERY, MARGIN, Stopping
from train.launching import bfloat16, launched
from train.module import Training
from train.out_of_memory import smaller_micro
from train.ranks import Together
from train.training import train

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "3", "RANK": "7", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
SRUN = {"JOB_ID": "1", "JOB_NAME": "opt", "NTASKS": "4", "NNODES": "1", "PROCID": "3", "LOCALID": "3", "NODEID": "0"}
SLURM = {f"SLURM_{name}": value for name, value in SRUN.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


@pytest.fixture
def config(corpus: CorpusConfig, tmp_path: Path) -> TrainConfig:
    return tiny.training(corpus, tmp_path)


def gpus(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)


@pytest.mark.parametrize(
    ("told", "there", "job", "expected"),
    [
        ({}, 4, 0, ("cuda:0", 1)),
        ({}, 4, 5, ("cuda:1", 1)),
        (TORCHRUN, 4, 0, ("cuda:3", 8)),
        (SLURM, 4, 0, ("cuda:3", 4)),
        (SLURM, 1, 0, ("cuda:0", 4)),  # srun --gpus-per-task=1
        (SLURM | {"SLURM_NTASKS_PER_NODE": "4"}, 1, 0, ("cuda:0", 4)),
    ],
)
def test_a_process_trains_on_its_own_gpu(
    told: dict[str, str], there: int, job: int, expected: tuple[str, int], config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(there, monkeypatch)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    trainer = launched(config, Path(config.runs), resolved("auto", job))
    assert (str(trainer.strategy.root_device), trainer.world_size) == expected
    assert trainer.global_rank == int(told.get("RANK") or told.get("SLURM_PROCID") or 0)


@pytest.mark.parametrize(
    ("asked", "there", "said"), [("cuda", 2, "torch sees 2 GPUs"), ("cuda:1", 4, "device=cuda:1 is one GPU")]
)
def test_processes_that_would_share_a_gpu_are_refused(
    asked: str, there: int, said: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(there, monkeypatch)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    config.device = asked
    with pytest.raises(UserError, match=said):
        launched(config, Path(config.runs), resolved(asked))


def test_a_gpu_is_named_by_its_number(tmp_path: Path, corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (TrainConfig(device="cuda:2"), AnalyzeConfig(ckpt="x", device="cuda:2")):
        assert made.device == "cuda:2"
    with pytest.raises(UserError, match=r"^device='mps' is none of auto, cpu, cuda, or one GPU"):
        AnalyzeConfig(ckpt="x", device="mps")
    gpus(2, monkeypatch)
    with pytest.raises(UserError, match=r"^device=cuda:2, but torch sees 2 GPUs"):
        train(tiny.training(corpus, tmp_path, device="cuda:2"), [])


def test_only_the_gpu_of_a_rank_is_asked_what_it_computes_in(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def capability(which: torch.device) -> tuple[int, int]:
        asked.append(which)
        return (8, 0)

    def of_the_current_one(**_: Any) -> bool:
        raise AssertionError("a question about whichever GPU is current")

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", of_the_current_one)
    monkeypatch.setattr(CUDA, "current", CPU.current)
    config.precision = "auto"
    assert bfloat16(config, CUDA(3)) and asked == [torch.device("cuda", 3)]


def test_processes_of_a_machine_share_its_cores(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    as_ever = Training.training_step

    def looking(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return as_ever(self, batch, index)

    monkeypatch.setattr(Training, "training_step", looking)
    monkeypatch.setattr(device, "cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        train(config, [])
    finally:
        torch.set_num_threads(before)
    assert seen == [3] * config.steps and os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "mistake",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 8"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
)
def test_memory_that_is_not_enough_is_a_sentence(
    mistake: Exception, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_ever = Training.training_step

    def full(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        if batch[0] == (1 if last_checkpoint(Path(config.runs) / "run").exists() else 0):
            raise mistake
        return as_ever(self, batch, index)

    monkeypatch.setattr(Training, "training_step", full)
    with pytest.raises(UserError, match=r"^batch\.micro=4 sequences .* \d+\.\d GB of cpu; try batch\.micro=2\.$"):
        train(config, [])
    monkeypatch.undo()
    train(TrainConfig(**(vars(config) | {"steps": 1, "milestones": []})), [])
    monkeypatch.setattr(Training, "training_step", full)
    with pytest.raises(UserError, match=r"try batch\.micro=2 under another name="):
        train(config, [])


def test_an_error_that_is_not_of_memory_stays_itself(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Training, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(config, [])


def test_a_smaller_micro_batch_divides_the_batch(config: TrainConfig) -> None:
    config.batch = BatchConfig(tokens=16 * 12, micro=6)
    assert [smaller_micro(config, ranks) for ranks in (1, 2, 4)] == [4, 3, 3]
    config.batch = BatchConfig(tokens=16 * 12, micro=1)
    assert smaller_micro(config, 1) is None


class OfMany(Together):
    """A rank among 64, as slow as the others and of their mind."""

    def __init__(self) -> None:
        self.first, self.world, self.group = True, 64, None


@pytest.mark.parametrize(("step_takes", "most"), [(0.002, 0.02), (0.3, 0.5), (7.0, 1.0)])
def test_a_time_limit_is_met_though_ranks_agree_once_a_second(step_takes: float, most: float, config: TrainConfig) -> None:
    stopping = Stopping.__new__(Stopping)
    stopping.together, stopping._noted, stopping._begun, stopping._longest = OfMany(), None, 0.0, step_takes
    stopping._agreed_at, stopping._agreed_after, stopping._next = 0.0, 0, 1
    limit, step, agreements = 60.0, 0, 0
    stop = False
    while not stop:
        step += 1
        if step >= stopping._next:
            agreements += 1
            stop = bool(stopping._agreed(step, step * step_takes, limit / 3600)[1])
    assert limit - (MARGIN + 1) * max(step_takes, EVERY) - EVERY <= step * step_takes <= limit - (MARGIN - 1) * step_takes
    assert agreements <= most * step + 2
