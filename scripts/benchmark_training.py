"""Training speed beside what people would write: python scripts/benchmark_training.py [--shape 4x256] [--device auto] [--dropout 0]

Every way trains the same OPT from the same weights on the same tokens by the same schedule on this machine. Each has a process of
its own and compiles first. On a CPU they then take turns, one at work at a time, `--rounds` times, so that what else the machine
does falls on all of them; on a GPU, whose memory would not hold them all, one comes after the other. What counts are medians:
of a way's turns, and of the ratios of turns in the same round.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from memory import keep_freed
from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, initialise
from provenance import measured_on
from scripts.benchmark import tell
from tracking import Mirror, WandbConfig
from train.config import BatchConfig, OptimizerConfig, TrainConfig, ValidationConfig
from train.keeping import Keeping
from train.loss import next_token_loss
from train.metrics import Metrics
from train.module import Training
from train.schedule import learning_rate
from train.stopping import Stopping
from train.throughput import known_peak
from train.training import launched, throughput
from train.watch import Watch

VOCABULARY = 50_272
NEVER = 10**9  # steps
SHAPES = {  # layers, width, heads, context, sequences per step
    "4x256": (4, 256, 4, 512, 4),
    "125m": (12, 768, 12, 2048, 16),
}


@dataclass
class Task:
    """What every way is given: the run to make, and the folder with the weights to begin with."""

    config: TrainConfig
    weights: str
    device: torch.device

    def batches(self) -> Iterator[Tensor]:
        """Ids [sequence, position] with Zipf's frequencies, the same for all."""
        rng = np.random.default_rng(0)
        shape = (self.config.batch.micro, self.config.model.context + 1)
        while True:
            yield torch.from_numpy(rng.zipf(1.2, shape) % (VOCABULARY - 4) + 4)

    def model(self) -> OPT:
        """Our model with the weights to begin with."""
        return initialise(OPT(self.config.model), self.config.seed).to(self.device).train()

    def bfloat16(self) -> AbstractContextManager[Any]:
        """The precision we train in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Turns:
    """Steps are made when it is this process's turn; every `steps` of them their time and the latest loss are sent."""

    def __init__(self, connection: Connection, steps: int) -> None:
        self.connection, self.steps = connection, steps
        self._begun, self._made = perf_counter(), 0

    def more(self, loss: Tensor) -> bool:
        """A step is made: wait, where a turn is over, for the next; False if there is none."""
        self._made += 1
        if self._made % self.steps:
            return True
        found = loss.item()  # waits for the device
        self.connection.send((perf_counter() - self._begun, found))
        if not self.connection.recv():
            return False
        self._begun = perf_counter()
        return True


class Batches(IterableDataset[tuple[int, Tensor]]):
    """A task's batches, as train/order.py hands them out."""

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
    on_gpu, console = task.device.type == "cuda", Console(quiet=True)
    module = Training(task.config, task.model(), {}, on_gpu if compiled is None else compiled)
    batches: Any = Batches(task)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        trainer: Any = launched(task.config, run)
        mirror = Mirror(WandbConfig(mode="disabled"), run, "", "", {}, console)
        watch = Watch(run, batches)
        keeping = Keeping(run, Metrics(run, mirror), torch.empty(0), watch, throughput(task.config, trainer), console)
        trainer.callbacks += [watch, keeping, Stopping(keeping, console, monotonic()), TakingTurns(turns)]
        trainer.fit(module, DataLoader(batches, batch_size=None, pin_memory=on_gpu))


def without_lightning(task: Task, turns: Turns) -> None:
    """The same model, loss and optimizer in a plain loop."""
    model, compiled = task.model(), task.device.type == "cuda"
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
    model = opening(task.weights, dtype=torch.float32).to(task.device).train()
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
            loss = loss_of(ids.to(task.device, non_blocking=True))
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
    """One way's process."""
    torch.manual_seed(0)
    if way in OURS:
        keep_freed()  # as train/run.py does
    WAYS[way][1](task, Turns(connection, steps))


def measure(ways: list[str], task: Task, steps: int, rounds: int, console: Console) -> dict[str, list[tuple[float, float]]]:
    """Seconds of every turn, and the loss after it."""
    processes, results = get_context("spawn"), {way: [] for way in ways}  # type: ignore[var-annotated]
    for together in [[way] for way in ways] if task.device.type == "cuda" else [ways]:
        at_work = {}
        for way in together:
            connection, theirs = processes.Pipe()
            process = processes.Process(target=take_turns, args=(way, task, steps, theirs), daemon=True)
            process.start()
            theirs.close()
            at_work[way] = process, connection
            seconds, _ = connection.recv()  # the first turn compiles and warms up
            console.print(f"{WAYS[way][0]}: ready after {seconds:.0f} s", markup=False, highlight=False)
        for number in range(rounds):
            for way, (_, connection) in at_work.items():
                connection.send(True)
                results[way].append(connection.recv())
                said = f"round {number + 1}  {WAYS[way][0]}: {results[way][-1][0]:.2f} s"
                console.print(said, markup=False, highlight=False)
        for process, connection in at_work.values():
            connection.send(False)
            process.join()
    return results


def table(results: dict[str, list[tuple[float, float]]], task: Task, steps: int) -> str:
    """Markdown, medians over rounds."""
    peak, flops = known_peak(task.device, bfloat16=True), task.config.model.training_flops_per_token
    lines = ["| | tokens/s | slowest and fastest turn | ours is | MFU | loss at the end |", "|---|---:|---:|---:|---:|---:|"]
    for way, turns in results.items():
        rates = sorted(steps * task.config.batch.tokens / seconds for seconds, _ in turns)
        rate = statistics.median(rates)
        ratios = [theirs[0] / ours[0] for theirs, ours in zip(turns, results.get("ours", []), strict=False)]
        ratio = f"{statistics.median(ratios):.2f} x" if ratios else "–"
        mfu = f"{100 * rate * flops / peak:.1f} %" if peak else "–"
        spread = f"{rates[0]:,.0f} – {rates[-1]:,.0f}"
        lines.append(f"| {WAYS[way][0]} | {rate:,.0f} | {spread} | {ratio} | {mfu} | {turns[-1][1]:.3f} |")
    if peak:
        lines += [
            "",
            f"MFU: tokens/s x {flops / 1e6:.0f} MFLOP / {peak / 1e12:.1f} TFLOP/s (dense bfloat16, whatever the way's own).",
        ]
    return "\n".join(lines) + "\n"


def task_of(arguments: argparse.Namespace, weights: Path) -> Task:
    """The task that the command line names; its weights are written."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
    arguments.shape = arguments.shape or ("125m" if device == "cuda" else "4x256")
    layers, width, heads, context, sequences = SHAPES[arguments.shape]
    model = OPTConfig(
        layers=layers,
        width=width,
        heads=heads,
        neurons=4 * width,
        context=context,
        vocab_size=VOCABULARY,
        dropout=arguments.dropout,
        attention_dropout=arguments.dropout,
    )
    micro = arguments.micro or sequences
    config = TrainConfig(
        steps=NEVER,
        milestones=[],
        checkpoint_every=NEVER,
        precision="bfloat16",
        device=device,
        model=model,
        batch=BatchConfig(tokens=micro * context, micro=micro),
        optimizer=OptimizerConfig(),
        validation=ValidationConfig(every=NEVER),
    )
    save_checkpoint(initialise(OPT(model), config.seed), weights, {})
    return Task(config, str(weights), torch.device(device))


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), help="default: 125m on a GPU, 4x256 on a CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dropout", type=float, default=0.0, help="on residual branches and attention; OPT has 0.1")
    parser.add_argument("--micro", type=int, help="sequences per step")
    parser.add_argument("--steps", type=int, default=3, help="per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=tuple(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(arguments, Path(folder) / "model")
        results = measure(arguments.ways, task, arguments.steps, arguments.rounds, Console(stderr=True))
    model, micro = task.config.model, task.config.batch.micro
    what = f"OPT {arguments.shape}, {model.context} positions, {micro} sequences a step, dropout {model.dropout}, vocabulary {VOCABULARY:,}"
    turns = f"{arguments.rounds} turns of {arguments.steps} steps each, medians"
    page = f"{what}\n{measured_on()}; {turns}\n\n{table(results, task, arguments.steps)}"
    tell(page, results, arguments.out / f"training_{arguments.shape}_{task.device.type}_dropout_{model.dropout}")


if __name__ == "__main__":
    main()
