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
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import torch
from rich.console import Console

from device import resolved
from errors import BEGINS_AGAIN, plainly
from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, initialise
from provenance import measured_on
from scripts.measurement import GB, Figure, save, tell
from scripts.ways_of_training import WAYS, Task, Turn, take_turns
from train.config import BatchConfig, OptimizerConfig, TrainConfig, ValidationConfig

VOCABULARY = 50_272
NEVER = 10**9  # steps
SHAPES = {  # layers, width, heads, context, sequences per step
    "4x256": (4, 256, 4, 512, 4),
    "toy": (1, 16, 2, 16, 2),
    "125m": (12, 768, 12, 2048, 16),
}


class AtWork:
    """The process of a way, which takes a turn when told to."""

    def __init__(self, way: str, task: Task, steps: int) -> None:
        processes = get_context("spawn")
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=take_turns, args=(way, task, steps, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def turn(self) -> Turn | None:
        """What comes of the turn that it is at; None: the GPU has too little memory."""
        found: Turn | None = self.connection.recv()
        return found

    def end(self) -> None:
        """Let it end."""
        self.connection.close()
        self.process.join()


def measure(ways: list[str], task: Task, steps: int, rounds: int, console: Console) -> Iterator[tuple[str, Turn | None]]:
    """Every way's turns as they are made, `rounds` each; None once for a way that the GPU's memory does not hold."""
    for together in [[way] for way in ways] if task.device.kind == "cuda" else [ways]:
        at_work: dict[str, AtWork] = {}
        for way in together:
            begun = AtWork(way, task, steps)
            if (first := begun.turn()) is None:  # it compiles and warms up
                begun.end()
                yield way, None
            else:
                at_work[way] = begun
                console.print(f"{WAYS[way][0]}: ready after {first.seconds:.0f} s", markup=False, highlight=False)
        for number in range(rounds):
            for way, process in at_work.items():
                process.connection.send(True)
                turn = process.turn()
                assert turn is not None, f"{way} ran out of memory in round {number + 1}"
                said = f"round {number + 1}  {WAYS[way][0]}: {turn.seconds:.2f} s"
                console.print(said, markup=False, highlight=False)
                yield way, turn
        for process in at_work.values():
            process.connection.send(False)
            process.end()


@dataclass
class Results:
    """Turns of every way, and what they say of its speed."""

    task: Task
    steps: int  # a turn
    turns: dict[str, list[Turn]] = field(default_factory=dict)  # none: the way had too little memory

    @property
    def peak(self) -> float | None:
        """FLOP/s of the device, 16-bit numbers."""
        return self.task.device.peak_flops(torch.bfloat16)

    def add(self, way: str, turn: Turn | None) -> None:
        """Take in what `measure` yields."""
        self.turns.setdefault(way, []).extend([turn] if turn else [])

    def rates(self, way: str) -> list[float]:
        """Tokens a second, slowest turn first."""
        return sorted(self.steps * self.task.config.batch.tokens / turn.seconds for turn in self.turns[way])

    def mfu(self, rate: float) -> str:
        """Of a rate."""
        return f"{100 * rate * self.task.config.model.training_flops_per_token / self.peak:.1f} %" if self.peak else "–"

    def row(self, way: str) -> str:
        """Of the table."""
        turns, rates = self.turns[way], self.rates(way)
        if not turns:
            return f"| {WAYS[way][0]} | too little GPU memory | – | – | – | – | – |"
        ratios = [theirs.seconds / ours.seconds for theirs, ours in zip(turns, self.turns.get("ours", []), strict=False)]
        rate, last = statistics.median(rates), turns[-1]
        cells = [f"{rate:,.0f}", f"{rates[0]:,.0f} – {rates[-1]:,.0f}", f"{statistics.median(ratios):.2f} x" if ratios else "–"]
        cells += [self.mfu(rate), f"{last.peak_memory / GB:.1f} GB" if last.peak_memory else "–", f"{last.loss:.3f}"]
        return f"| {WAYS[way][0]} | {' | '.join(cells)} |"

    def table(self) -> str:
        """Markdown, medians over rounds."""
        lines = ["| | tokens/s | slowest and fastest turn | ours is | MFU | GPU memory | loss at the end |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|", *(self.row(way) for way in self.turns)]
        if self.peak:
            flops = f"{self.task.config.model.training_flops_per_token / 1e6:.0f} MFLOP"
            how = f"{flops} / {self.peak / 1e12:.1f} TFLOP/s (dense bfloat16, whatever the way's own)"
            lines += ["", f"MFU: tokens/s x {how}."]
        return "\n".join(lines) + "\n"

    def figures(self) -> list[Figure]:
        """Speed, MFU and memory of every way, in words; what ours is to be."""
        target = ">= 300,000 tokens/s" if self.task.config.model.dropout else ">= 400,000 tokens/s"
        found = []
        for way, turns in self.turns.items():
            measured = "too little GPU memory"
            if turns:
                rate = statistics.median(self.rates(way))
                memory = f"{turns[-1].peak_memory / GB:.1f} GB of GPU memory"
                measured = f"{rate:,.0f} tokens/s, MFU {self.mfu(rate)}, {memory}"
            found.append(Figure(WAYS[way][0], measured, target if way == "ours" else ""))
        return found


def task_of(arguments: argparse.Namespace, weights: Path) -> Task:
    """The task that the command line names; its weights are written."""
    device = resolved(arguments.device)
    arguments.shape = arguments.shape or ("125m" if device.kind == "cuda" else "4x256")
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
        device=device.kind,
        model=model,
        batch=BatchConfig(tokens=micro * context, micro=micro),
        optimizer=OptimizerConfig(),
        validation=ValidationConfig(every=NEVER),
    )
    save_checkpoint(initialise(OPT(model), config.seed), weights, {})
    return Task(config, str(weights), device)


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
        results, head = Results(task, arguments.steps), title(arguments, task)
        file = arguments.out / f"training_{arguments.shape}_{task.device.kind}_dropout_{task.config.model.dropout}"
        for way, turn in measure(arguments.ways, task, arguments.steps, arguments.rounds, Console(stderr=True)):
            results.add(way, turn)  # whoever stops it finds what it has measured so far
            save(f"{head}\n\n{results.table()}", results.turns, file, results.figures())
    tell(f"{head}\n\n{results.table()}", results.turns, file, results.figures())


def title(arguments: argparse.Namespace, task: Task) -> str:
    """What was measured, where and when."""
    model, micro = task.config.model, task.config.batch.micro
    what = f"OPT {arguments.shape}, {model.context} positions, {micro} sequences a step, dropout {model.dropout}, vocabulary {VOCABULARY:,}"
    return f"{what}\n{measured_on()}; {arguments.rounds} turns of {arguments.steps} steps each, medians"


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
