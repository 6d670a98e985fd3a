"""What the walk costs beside its arithmetic: python scripts/benchmark_walk.py CKPT [--sequences 2] [--dtype bfloat16] [--memory 2]

CKPT is a checkpoint on disk, of random weights say (scripts/synthesize_checkpoint.py). Measured in one run, each in a process of its own:
the census, as analyze/run.py takes it, with the greatest anonymous memory that it ever holds; the arithmetic of the same layers alone, on
weights and residual streams that lie in memory; on a GPU also transformers with accelerate's offload, which sends all weights for every
batch. Arithmetic is measured before and after the census, `--rounds` times, since machines are not equally fast all the time.
"""

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from rich.console import Console

from analyze.census import made_plan, project_layers
from analyze.config import AnalyzeConfig
from analyze.counting import Counting
from analyze.counts import count, index
from analyze.firings import record
from analyze.prefetch import Weights
from analyze.ranks import Ranks
from analyze.residuals import InMemory
from analyze.task import CensusTask
from analyze.trial import random_stream
from analyze.walk import MicroBatch
from corpora.config import CorpusConfig
from corpora.sequences import Sequences
from errors import plainly
from memory import keep_freed
from models.opening import open_checkpoint
from provenance import measured_on
from scripts.benchmark import POSITIONS, answer, tell, text

GB = 1_000_000_000
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


def anonymous_memory() -> int:
    """Bytes that this process holds and no file stands behind, as Linux counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this kernel does not tell RssAnon")


def task_for(arguments: argparse.Namespace, out: Path) -> CensusTask:
    """The census of random text."""
    checkpoint = open_checkpoint(str(arguments.ckpt))
    ids = text(arguments.sequences)[:, : min(POSITIONS, checkpoint.config.context)].copy()
    sequences = Sequences(ids % checkpoint.config.vocab_size, np.zeros(len(ids), np.uint8), ["random"], 2, None, None)
    config = AnalyzeConfig(
        ckpt=str(arguments.ckpt),
        corpus=CorpusConfig(name="random", source="tokens", path="-"),
        out=str(out),
        layers=arguments.layers,
        device=arguments.device,
        dtype=arguments.dtype,
        micro=arguments.micro,
        host_memory=arguments.memory,
        residuals=arguments.residuals,
    )
    return CensusTask(checkpoint, sequences, out, config)


def census(task: CensusTask) -> dict[str, float]:
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
        begun = time.perf_counter()
        for layer, seconds in counting.run():
            console.print(f"layer {layer}: {seconds:.2f} s", highlight=False)
        found = {"seconds": time.perf_counter() - begun, "walk_bytes": greatest[0]}
        found |= {"waited": counting.waited, "needs_memory": plan.needs.memory, "needs_gpu": plan.needs.gpu}
        begun = time.perf_counter()
        project_layers(task, rows.corpus, layers[:1], console)
        found |= {"projecting": time.perf_counter() - begun, "peak_bytes": greatest[0]}
    if task.device.type == "cuda":
        found["gpu_bytes"] = torch.cuda.max_memory_allocated()
    return found | {"layers": len(layers)}


def arithmetic(task: CensusTask) -> dict[str, float]:
    """The first layer's arithmetic on random residual streams in memory, as often as the census does it; of the last layer a part."""
    stream, batches = random_stream(task, 1), -(-len(task.sequences.ids) // task.micro)
    assert isinstance(stream.residuals, InMemory)
    weights = Weights(task.checkpoint, task.dtype, task.device, slots=1)
    block = next(weights.blocks(range(1)))
    start = stream.residuals.room.clone()
    for _ in stream.through(block, 0):
        pass
    synchronize(task.device)
    begun = time.perf_counter()
    for layer in range(last := task.missing[-1] + 1):
        for _ in range(batches):
            stream.residuals.room.copy_(start)
            for _ in stream.through(block, layer, last=layer == last - 1):
                pass
    synchronize(task.device)
    return {"seconds": time.perf_counter() - begun}


def offload(task: CensusTask) -> dict[str, float]:
    """Every weight from memory to the GPU for every batch: transformers' decoder under accelerate's cpu_offload; nothing counted."""
    from accelerate import cpu_offload  # type: ignore[import-not-found, unused-ignore]
    from transformers import OPTForCausalLM

    opening: Any = OPTForCausalLM.from_pretrained  # untyped, as is all that comes of it
    decoder = cpu_offload(opening(task.checkpoint.path, dtype=task.dtype).eval().model.decoder, execution_device=task.device)
    batches = torch.split(torch.from_numpy(task.sequences.ids).long(), task.micro)[: 1 + OFFLOADED]
    with torch.inference_mode():
        decoder(batches[0].to(task.device), use_cache=False)
        synchronize(task.device)
        begun = time.perf_counter()
        for ids in batches[1:]:
            decoder(ids.to(task.device), use_cache=False)
        synchronize(task.device)
    each = (time.perf_counter() - begun) / len(batches[1:])
    return {"seconds": each * -(-len(task.sequences.ids) // task.micro)}


OFFLOADED = 4  # batches measured; each sends all weights


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


WAYS: dict[str, Callable[[CensusTask], dict[str, float]]] = {"census": census, "arithmetic": arithmetic, "offload": offload}


def page(task: CensusTask, results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: tokens a second through all layers, and what they are of the arithmetic's."""
    tokens = task.sequences.ids.size
    best = {way: min(rounds, key=lambda r: r["seconds"]) for way, rounds in results.items()}
    found = best["census"]
    lines = ["| | tokens/s | against arithmetic |", "|---|---:|---:|"]
    for way, words in (
        ("arithmetic", "the layers' arithmetic alone"),
        ("census", "census"),
        ("offload", "transformers, accelerate's offload"),
    ):
        if way in best:
            ratio = best["arithmetic"]["seconds"] / best[way]["seconds"]
            lines.append(f"| {words} | {tokens / best[way]['seconds']:,.1f} | {ratio:.3f} |")
    ratios = [a["seconds"] / c["seconds"] for a, c in zip(between(results["arithmetic"]), results["census"], strict=True)]
    lines += [
        "",
        f"Census against the arithmetic before and after it, by round: {', '.join(f'{ratio:.3f}' for ratio in ratios)}.",
        f"Anonymous memory at most {max(c['walk_bytes'] for c in results['census']) / GB:.2f} GB while walking and counting, "
        f"{max(c['peak_bytes'] for c in results['census']) / GB:.2f} GB with a layer's projection onto the vocabulary "
        f"({found['projecting']:.1f} s a layer, whatever the corpus); the plan said {found['needs_memory'] / GB:.2f} GB.",
        f"Waited for weights: {found['waited']:.2f} s of {found['seconds']:.1f} ({100 * found['waited'] / found['seconds']:.1f} %).",
    ]
    if "gpu_bytes" in found:
        whole = 5_000_000 / tokens * found["seconds"]
        lines.append(
            f"GPU memory at most {found['gpu_bytes'] / GB:.1f} GB. At this rate 5M tokens take {whole / 60:.0f} minutes; the first layer's "
            f"weights are waited for once, whatever the corpus."
        )
    return "\n".join(lines) + "\n"


def title(task: CensusTask) -> str:
    """What was measured, where and when."""
    m, (sequences, positions), dtype = task.checkpoint.config, task.sequences.ids.shape, str(task.dtype).removeprefix("torch.")
    what = f"{task.checkpoint.title}: {m.layers} layers x {m.width} wide, {sequences} sequences of {positions} by {task.micro}, {dtype}"
    return f"{what}; {measured_on()}"


def between(arithmetic: list[dict[str, float]]) -> list[dict[str, float]]:
    """The mean of the measurements before and after each census."""
    pairs = itertools.pairwise(arithmetic)
    return [{"seconds": (a["seconds"] + b["seconds"]) / 2} for a, b in pairs]


def main() -> None:
    """Measure in processes of their own, print and save the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--layers", default="all", help="as analyze/run.py takes them")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--micro", type=int, help="sequences of a micro-batch")
    parser.add_argument("--memory", type=float, help="GB of memory that the plan may take")
    parser.add_argument("--residuals", default="auto")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--measure", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with plainly(), tempfile.TemporaryDirectory(dir=".") as folder:
        task = task_for(arguments, Path(folder) / "out")
        if arguments.measure:
            if arguments.memory is None:
                keep_freed()  # as analyze/run.py does
            print(json.dumps(WAYS[arguments.measure](task)))
            return
        results = measured(task, arguments.rounds)
        report = f"{title(task)}\n\n{page(task, results)}"
    tell(report, results, arguments.out / f"walk_{task.checkpoint.title}_{len(task.sequences.ids)}_{task.device.type}")


def measured(task: CensusTask, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Arithmetic, census, arithmetic, census, ..., arithmetic; then offload, where there is a GPU and accelerate."""
    ways = ["arithmetic", *rounds * ["census", "arithmetic"]]
    if task.device.type == "cuda":
        if find_spec("accelerate") is None:
            print("accelerate is not installed: its offload is not compared (pip install accelerate)", file=sys.stderr)
        else:
            ways.append("offload")
    results: dict[str, list[dict[str, float]]] = {}
    for way in ways:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
        results.setdefault(way, []).append(answer(command))
    return results


if __name__ == "__main__":
    main()
