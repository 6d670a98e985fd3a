"""Ways to train the same OPT on the same batches by the same schedule, a turn at a time: ours, and what people would write."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from allocator import keep_freed
from device import Device
from models.opt import OPT, initialise
from train.checkpointing import Keeping
from train.config import TrainConfig
from train.divergence import Watch
from train.graceful_stop import Stopping
from train.launching import launched
from train.loss import next_token_loss
from train.metrics import Metrics
from train.module import Training
from train.ranks import Together
from train.schedule import learning_rate
from train.training import throughput
from wandb_run import Mirror, WandbConfig


@dataclass
class Task:
    """What every way is given: the run to make, and the folder with the weights to begin with."""

    config: TrainConfig
    weights: str
    device: Device

    def batches(self) -> Iterator[Tensor]:
        """Ids [sequence, position] with Zipf's frequencies, the same for all."""
        rng = np.random.default_rng(0)
        shape, words = (self.config.batch.micro, self.config.model.context + 1), self.config.model.vocab_size - 4
        while True:
            yield torch.from_numpy(rng.zipf(1.2, shape) % words + 4)

    def model(self) -> OPT:
        """Our model with the weights to begin with."""
        return initialise(OPT(self.config.model), self.config.seed).to(self.device.name).train()

    def bfloat16(self) -> AbstractContextManager[Any]:
        """The precision we train in."""
        return torch.autocast(self.device.kind, dtype=torch.bfloat16)


class Turn(NamedTuple):
    """What a way sends after its turn."""

    seconds: float
    loss: float
    peak_memory: int  # bytes of the GPU, so far


class Turns:
    """Steps are made when it is this process's turn; every `steps` of them their time and the latest loss are sent."""

    def __init__(self, connection: Connection, steps: int, device: Device) -> None:
        self.connection, self.steps, self.device = connection, steps, device
        self._begun, self._made = perf_counter(), 0

    def more(self, loss: Tensor) -> bool:
        """A step is made: wait, where a turn is over, for the next; False if there is none."""
        self._made += 1
        if self._made % self.steps:
            return True
        found = loss.item()  # waits for the device
        self.connection.send(Turn(perf_counter() - self._begun, found, self.device.peak_memory()))
        if not self.connection.recv():
            return False
        self._begun = perf_counter()
        return True


class Batches(IterableDataset[tuple[int, Tensor]]):
    """A task's batches, as train/data_order.py hands them out."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for step, ids in enumerate(self.task.batches()):
            yield step, ids[None]


class TakingTurns(L.Callback):
    """Lightning's loop, a turn at a time."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Wait for the next turn."""
        if not self.turns.more(outputs["loss"]):
            trainer.should_stop = True


def ours(task: Task, turns: Turns, compiled: bool | None = None) -> None:
    """This project, through Lightning, as train/run.py runs it: watched, logged, ready to stop."""
    on_gpu, console = task.device.kind == "cuda", Console(quiet=True)
    module = Training(task.config, task.model(), {}, on_gpu if compiled is None else compiled)
    batches: Any = Batches(task)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        trainer: Any = launched(task.config, run, task.device)
        mirror = Mirror(WandbConfig(mode="disabled"), run, "", "", {}, console)
        watch, together = Watch(run, batches), Together(trainer)
        clock = throughput(task.config, trainer, task.device)
        keeping = Keeping(run, Metrics(run, mirror), torch.empty(0), watch, clock, together, console)
        trainer.callbacks += [watch, keeping, Stopping(keeping, together, console, monotonic()), TakingTurns(turns)]
        trainer.fit(module, DataLoader(batches, batch_size=None, pin_memory=on_gpu))


def without_lightning(task: Task, turns: Turns) -> None:
    """The same model, loss and optimizer in a plain loop."""
    model, compiled = task.model(), task.device.kind == "cuda"
    if compiled:
        for block in model.decoder.layers:
            block.compile(dynamic=False)
    loop(task, turns, model, partial(next_token_loss, model, compiled=compiled), task.bfloat16())


def plain(task: Task, turns: Turns) -> None:
    """The same model with whole logits and `F.cross_entropy`, all of it under torch.compile; bfloat16 autocast."""
    model = task.model()

    def loss(ids: Tensor) -> Tensor:
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())

    loop(task, turns, model, torch.compile(loss, dynamic=False), task.bfloat16())


def transformers(task: Task, turns: Turns, compiled: bool, autocast: bool) -> None:
    """`transformers`' OPT with its own loss."""
    from transformers import OPTForCausalLM

    opening: Any = OPTForCausalLM.from_pretrained  # untyped, as is all that comes of it
    model = opening(task.weights, dtype=torch.float32).to(task.device.name).train()
    if compiled:
        model.compile(dynamic=False)

    def loss(ids: Tensor) -> Tensor:
        found: Tensor = model(ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        return found

    loop(task, turns, model, loss, task.bfloat16() if autocast else nullcontext(), fused=False)


def loop(
    task: Task,
    turns: Turns,
    model: torch.nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    precision: AbstractContextManager[Any],
    fused: bool = True,
) -> None:
    """Plain training steps: loss, gradient, clip, AdamW."""
    o = task.config.optimizer
    kind = {"fused": True} if fused else {}
    optimizer = torch.optim.AdamW(model.parameters(), 0.0, (o.beta1, o.beta2), o.epsilon, o.weight_decay, **kind)
    for step, ids in enumerate(task.batches()):
        with precision:
            loss = loss_of(ids.to(task.device.name, non_blocking=True))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, o)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not turns.more(loss.detach()):
            return


WAYS: dict[str, tuple[str, Callable[[Task, Turns], None]]] = {
    "ours": ("this project (bfloat16)", ours),
    "compiled": ("this project, compiled on a CPU too (bfloat16)", partial(ours, compiled=True)),
    "without_lightning": ("the same without Lightning", without_lightning),
    "plain": ("plain PyTorch, compiled, whole logits (bfloat16)", plain),
    "transformers": ("transformers, not compiled, float32", partial(transformers, compiled=False, autocast=False)),
    "transformers_compiled": ("transformers, compiled, float32", partial(transformers, compiled=True, autocast=False)),
    "transformers_bfloat16": ("transformers, compiled, bfloat16", partial(transformers, compiled=True, autocast=True)),
}
OURS = ("ours", "compiled", "without_lightning")


def take_turns(way: str, task: Task, steps: int, connection: Connection) -> None:
    """One way's process; it sends None if the GPU has too little memory for it."""
    torch.manual_seed(0)
    if way in OURS:
        keep_freed()  # as train/run.py does
    try:
        WAYS[way][1](task, Turns(connection, steps, task.device))
    except torch.OutOfMemoryError:
        connection.send(None)
