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
from multiprocessing import get_context
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import torch
from rich.console import Console

from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, initialise
from provenance import measured_on
from scripts.benchmark import tell
from scripts.ways_of_training import WAYS, Task, take_turns
from train.config import BatchConfig, OptimizerConfig, TrainConfig, ValidationConfig
from train.throughput import known_peak

VOCABULARY = 50_272
NEVER = 10**9  # steps
SHAPES = {  # layers, width, heads, context, sequences per step
    "4x256": (4, 256, 4, 512, 4),
    "125m": (12, 768, 12, 2048, 16),
}


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
