"""What the walk costs beside its arithmetic: python scripts/benchmark_forward.py CKPT [--sequences 2] [--dtype bfloat16] [--memory 2]

CKPT is a checkpoint on disk, of random weights say (scripts/synthesize_checkpoint.py). Measured in one run, each in a process of its own:
the census, as analyze/run.py takes it, with the greatest anonymous memory that it ever holds; the arithmetic of the same layers alone, on
weights and residual streams that lie in memory; with --accelerate also transformers, its weights where accelerate's device_map="auto"
puts them. Arithmetic is measured before and after the census, `--rounds` times, since machines are not equally fast all the time.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from rich.console import Console

from allocator import anonymous_memory, keep_freed
from analyze.census.distributed import Ranks
from analyze.census.job import CensusTask
from analyze.census.layer_loop import Counting
from analyze.census.take import made_plan, project_layers
from analyze.census.timing import random_stream
from analyze.config import AnalyzeConfig
from analyze.counts.layer import count, index
from analyze.firing.mask import record
from analyze.forward.layer_by_layer import MicroBatch
from analyze.forward.residual_store import InMemory
from analyze.forward.weight_prefetch import Weights
from corpora.config import CorpusConfig
from corpora.sequences import Sequences
from device import exact_sums, resolved
from errors import BEGINS_AGAIN, plainly
from models.open_checkpoint import open_checkpoint
from scripts.accelerate_offload import offloaded
from scripts.forward_page import Results, figures, page, title
from scripts.gpu_waits import seconds_waited, timed
from scripts.measurement import POSITIONS, answer, now, save, tell, text

EVERY = 0.02  # seconds between looks at the memory


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """The greatest anonymous memory of this process while it is watched, in bytes, as the only entry of a list."""
    greatest, over = [anonymous_memory()], threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            greatest[0] = max(greatest[0], anonymous_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield greatest
    over.set()
    watcher.join()


def task_for(arguments: argparse.Namespace, out: Path) -> CensusTask:
    """The census of random text."""
    checkpoint = open_checkpoint(str(arguments.ckpt))
    ids = text(arguments.sequences, positions=min(arguments.positions, checkpoint.config.context))
    sequences = Sequences(ids % checkpoint.config.vocab_size, np.zeros(len(ids), np.uint8), ["random"], 2, None, None)
    device = timed(resolved(arguments.device))
    config = AnalyzeConfig(
        ckpt=str(arguments.ckpt),
        corpus=CorpusConfig(name="random", source="tokens", path="-"),
        out=str(out),
        layers=arguments.layers,
        device=device.kind,
        dtype=arguments.dtype,
        micro=arguments.micro,
        host_memory=arguments.memory,
        residuals=arguments.residuals,
    )
    return CensusTask(checkpoint, sequences, out, config, device)


def census(task: CensusTask, arguments: argparse.Namespace) -> dict[str, float]:
    """Walk and count every layer; then project the first one onto the vocabulary, for the memory it takes."""
    s, vocabulary = task.sequences, task.checkpoint.config.vocab_size
    console, layers = Console(stderr=True), task.missing
    few = index(s.ids[:1], s.domains[:1], 1, s.bos_id, vocabulary)  # kernels compile before the clock starts
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(1, s.ids.shape[1], 128, generator=generator, dtype=torch.float32).to(task.dtype)
    count(record([MicroBatch(0, some)], few.counted, 128), few)
    with watched_memory() as greatest:
        plan = made_plan(task, layers, Ranks(), console)
        rows = index(s.ids, s.domains, 1, s.bos_id, vocabulary)
        counting = Counting(task, plan, layers, rows, Ranks(), console)
        before, begun = seconds_waited(task.device), now(task.device)
        for layer, seconds in counting.run():
            console.print(f"layer {layer}: {seconds:.2f} s", highlight=False)
        found = {"seconds": now(task.device) - begun, "walk_bytes": greatest[0]}
        found |= {"waited": counting.waited, "copies": seconds_waited(task.device) - before}
        found |= {"needs_memory": plan.needs.memory, "needs_gpu": plan.needs.gpu, "gpu_bytes": task.device.peak_memory()}
        begun = time.perf_counter()
        project_layers(task, rows.corpus, layers[:1], console)
        found |= {"projecting": time.perf_counter() - begun, "peak_bytes": greatest[0]}
    return found | {"layers": len(layers)}


def arithmetic(task: CensusTask, arguments: argparse.Namespace) -> dict[str, float]:
    """The first layer's arithmetic on random residual streams in memory, as often as the census does it; of the last layer a part.

    Measured of `--arithmetic` layers, if given: the others take as long.
    """
    stream, batches = random_stream(task, 1), -(-len(task.sequences.ids) // task.micro)
    assert isinstance(stream.residuals, InMemory)
    block = next(Weights(task.checkpoint, task.dtype, task.device, slots=1).blocks(range(1)))
    room, start = stream.residuals.room, stream.residuals.room.clone()

    def layer(last: bool) -> float:
        begun = now(task.device)
        for _ in range(batches):
            room.copy_(start)
            for _ in stream.through(block, 0, last=last):
                pass
        return now(task.device) - begun

    with exact_sums(), task.device.current():
        for _ in stream.through(block, 0):  # warms up
            pass
        whole = task.missing[-1]  # layers that are computed to their end
        measured = min(whole, arguments.arithmetic or whole)
        each = sum(layer(last=False) for _ in range(measured)) / max(1, measured)
        return {"seconds": each * whole + layer(last=True), "gpu_bytes": task.device.peak_memory()}


def accelerate(task: CensusTask, arguments: argparse.Namespace) -> dict[str, float]:
    """What people use: transformers with the weights where accelerate puts them, at the fastest size of batch; nothing counted."""
    layers = task.checkpoint.config.layers
    share = layers / (arguments.of_layers or layers)
    with tempfile.TemporaryDirectory() as folder:
        found = offloaded(arguments.ckpt, task.sequences.ids, task.dtype, task.device, share, Path(folder))
    walked = (task.missing[-1] + 1) / layers
    return found | {"seconds": task.sequences.ids.size * walked / found["tokens_per_second"]}


Way = Callable[[CensusTask, argparse.Namespace], dict[str, float]]
WAYS: dict[str, Way] = {"arithmetic": arithmetic, "census": census, "accelerate": accelerate}


def main() -> None:
    """Measure in processes of their own, print and save the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--positions", type=int, default=POSITIONS, help="of a sequence, no more than the model's")
    parser.add_argument("--layers", default="all", help="as analyze/run.py takes them")
    parser.add_argument("--of-layers", type=int, help="of the model that the checkpoint is a part of; default: its own")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--micro", type=int, help="sequences of a micro-batch")
    parser.add_argument("--memory", type=float, help="GB of memory that the plan may take")
    parser.add_argument("--residuals", default="auto")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--arithmetic", type=int, help="layers to measure arithmetic of; default: all that are walked")
    parser.add_argument("--accelerate", action="store_true", help="transformers too, placed by accelerate")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--measure", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        task = task_for(arguments, Path(folder) / "out")
        if arguments.measure:
            if arguments.memory is None:
                keep_freed()  # as analyze/run.py does
            print(json.dumps(WAYS[arguments.measure](task, arguments)))
            return
        layers = arguments.of_layers or task.checkpoint.config.layers
        file = arguments.out / f"walk_{task.checkpoint.title}_{len(task.sequences.ids)}_{task.device.kind}"
        results = measured(["arithmetic", *arguments.rounds * ["census", "arithmetic"]], {})
        if arguments.accelerate:
            save(f"{title(task)}\n\n{page(task, results, layers)}", results, file, figures(task, results, layers))
            results = measured(["accelerate"], results)
        tell(f"{title(task)}\n\n{page(task, results, layers)}", results, file, figures(task, results, layers))


def measured(ways: list[str], results: Results) -> Results:
    """The results, and those of further measurements."""
    for way in ways:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
        results = results | {way: [*results.get(way, []), answer(command)]}
    return results


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
