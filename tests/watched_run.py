"""Training runs in processes of their own, which nothing instruments, and what is seen of them: graphs compiled, memory."""

import json
import os
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from processes import SERVER, become_rank, free_port, start_workers_as_alone
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd.graph import saved_tensors_hooks

from device import resolved
from train.checkpointing import Keeping
from train.config import TrainConfig
from train.module import Training
from train.training import train


@dataclass
class Watched:
    """A run, and what its first process saw from the step where it began."""

    folder: Path
    graphs: list[int]  # compiled so far, after every step and what is done after it
    memory: int  # bytes at most: of the GPU; without one, of what autograd keeps


def run(config: TrainConfig, ranks: int = 1, killed_at: int | None = None) -> Watched | None:
    """Train in `ranks` processes; None: killed by kill -9 after a step, before anything of it is logged or kept."""
    folder, port = Path(config.runs) / config.name, free_port()
    seen = folder.with_suffix(".seen.json")
    seen.parent.mkdir(parents=True, exist_ok=True)
    processes: list[BaseProcess] = [
        SERVER.Process(target=_rank, args=(config, number, ranks, port, killed_at, seen)) for number in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    if killed_at is not None:
        assert codes == [-signal.SIGKILL]
        return None
    assert codes == [0] * ranks
    return Watched(folder, **json.loads(seen.read_text()))


def _rank(config: TrainConfig, number: int, of: int, port: int, killed_at: int | None, seen: Path) -> None:
    start_workers_as_alone()
    os.environ["WANDB_MODE"] = "disabled"
    if of > 1:
        become_rank(number, of, port)
    if config.device == "cpu":
        torch.set_num_threads(1)
    graphs = _graphs_after_steps(killed_at)
    kept = _kept_by_autograd() if config.device == "cpu" and config.compile == "true" else [0]
    train(config, [])
    if number == 0:
        memory = resolved(config.device).peak_memory() or max(kept)
        seen.write_text(json.dumps({"graphs": graphs, "memory": memory}))


def _graphs_after_steps(killed_at: int | None) -> list[int]:
    """Filled while the run goes on; the process dies at `killed_at`."""
    found: list[int] = []
    as_ever = Keeping.on_train_batch_end

    def after_step(self: Keeping, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        as_ever(self, trainer, *arguments)
        found.append(counters["stats"]["unique_graphs"])

    Keeping.on_train_batch_end = after_step  # type: ignore[assignment,method-assign]
    return found


def _kept_by_autograd() -> list[int]:
    """Filled with bytes of weights, gradients, moments and of what each micro-batch keeps for its backward pass.

    The memory of a process counts much that a GPU never holds; torch counts that of a CPU's tensors not at all.
    """
    found: list[int] = []
    as_ever = Training.loss

    def loss(self: Training, ids: Tensor) -> Tensor:
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            result = as_ever(self, ids)
        held = sum(4 * parameter.nbytes for parameter in self.model.parameters())
        found.append(held + sum(kept.values()))
        return result

    Training.loss = loss  # type: ignore[method-assign]
    return found
