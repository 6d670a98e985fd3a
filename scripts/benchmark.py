"""What counting costs: python scripts/benchmark.py [--layers 12] [--tokens 131072] [--dtype float32] [--device auto]

Forward passes of OPT-125m's shape with random weights at 2048 positions, measured alone, with all statistics, and with the hooks that a
user would write. Each measurement runs in a process of its own, so that its peak memory is its own; they take turns, `--rounds` times.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch

from analyze.counts import count, index
from analyze.firings import record
from analyze.packing import bytes_for
from analyze.prefetch import Weights
from analyze.walk import ResidualStream
from analyze.writing import write_whole
from memory import keep_freed
from models.checkpoint import Checkpoint, save_checkpoint
from models.config import OPTConfig
from models.opening import open_checkpoint
from models.opt import OPT, Block, initialise
from provenance import measured_on

POSITIONS = 2048
VOCABULARY = 50_272
MICRO = 1  # sequences; the fastest for every way on a CPU, and enough for a GPU: 2048 positions


def text(sequences: int, seed: int = 0) -> np.ndarray:
    """Ids with Zipf's frequencies and repeated phrases, so that n-grams occur as often as in text; BOS first."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.2, 4 * sequences * POSITIONS) + 3
    ids = ids[ids < 50_000][: sequences * POSITIONS]
    for at in range(0, len(ids) - 10, 37):
        phrase, length = rng.integers(0, len(ids) - 10), rng.integers(2, 8)
        ids[at : at + length] = ids[phrase : phrase + length]
    ids = ids.reshape(sequences, POSITIONS).astype(np.int32)
    ids[:, 0] = 2
    return ids


def model(layers: int) -> OPT:
    """OPT-125m's shape; the biases before the ReLU make neurons fire as rarely as trained ones, between 0.01 % and 50 %."""
    made = initialise(OPT(OPTConfig(layers=layers, vocab_size=VOCABULARY)).eval(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in made.decoder.layers:
            assert isinstance(block, Block)
            scale = block.fc1.weight.norm(dim=1)  # the LayerNorm before makes inputs of unit variance
            block.fc1.bias.copy_(scale * torch.rand(len(scale), generator=generator) * -3.7)
    return made


def forward(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """The walk over all layers, nothing counted."""
    stream = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids).long(), MICRO, device)
    begun = time.perf_counter()
    for layer, block in enumerate(Weights(checkpoint, dtype, device).blocks(range(layers))):
        for _ in stream.through(block, layer):
            pass
    return {"seconds": now(device) - begun}


def census(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """The walk, and every statistic of every neuron: n-grams of 1, 2 and 3, positions, firsts and maxima."""
    begun = time.perf_counter()
    rows = index(ids, np.zeros(len(ids), np.uint8), 1, 2, VOCABULARY)
    indexing = time.perf_counter() - begun  # once per corpus
    neurons = checkpoint.config.neurons
    bits = np.zeros((ids.size, bytes_for(neurons)), np.uint8)
    few = index(ids[:1].copy(), np.zeros(1, np.uint8), 1, 2, VOCABULARY)  # kernels compile before the clock starts
    warm = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids[:1]).long(), 1, device)
    with closing(Weights(checkpoint, dtype, device, slots=1).blocks(range(1))) as first:
        count(record(warm.through(next(first), 0), few.counted, neurons), few)
    stream = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids).long(), MICRO, device)
    begun, walking, counting = time.perf_counter(), 0.0, 0.0
    for layer, block in enumerate(Weights(checkpoint, dtype, device).blocks(range(layers))):
        spent = [0.0]
        walk = clocked(stream.through(block, layer), spent, device)
        start = time.perf_counter()
        firings = record(walk, rows.counted, neurons, bits)
        recorded = time.perf_counter()
        count(firings, rows)
        counting += time.perf_counter() - start - spent[0]
        walking += spent[0]
        parts = f"walk {spent[0]:.2f}, bits {recorded - start - spent[0]:.3f}, counts {time.perf_counter() - recorded:.3f} s"
        print(f"layer {layer}: {parts}", file=sys.stderr)
    return {"seconds": time.perf_counter() - begun, "statistics": counting, "walk": walking, "indexing": indexing}


def now(device: torch.device) -> float:
    """The time, when the GPU, if it is one, has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def clocked(walk: Any, spent: list[float], device: torch.device) -> Any:
    """The same batches, and the seconds that making them took."""
    while True:
        start = now(device)
        batch = next(walk, None)
        spent[0] += now(device) - start
        if batch is None:
            return
        yield batch


def hooks(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """What people write: transformers, a hook on the input of fc2, and `index_add_` into [vocabulary, neurons]; tokens only."""
    from transformers import OPTForCausalLM

    theirs: Any = OPTForCausalLM.from_pretrained(checkpoint.path, dtype=dtype)
    decoder = theirs.to(device).eval().model.decoder
    tables = [torch.zeros(VOCABULARY, checkpoint.config.neurons, device=device) for _ in range(layers)]
    current: list[torch.Tensor] = []
    spent = [0.0]

    def hook(table: torch.Tensor) -> Callable[..., None]:
        def add(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            start = now(device)
            fires = (inputs[0] > 0).float().flatten(0, -2)
            table.index_add_(0, current[0], fires)
            spent[0] += now(device) - start

        return add

    for block, table in zip(decoder.layers, tables, strict=True):
        block.fc2.register_forward_pre_hook(hook(table))
    begun = time.perf_counter()
    with torch.inference_mode():
        for at in range(0, len(ids), MICRO):
            batch = torch.from_numpy(ids[at : at + MICRO]).long().to(device)
            current[:] = [batch.flatten()]
            decoder(batch)
    return {"seconds": now(device) - begun, "statistics": spent[0]}


WAYS: dict[str, Callable[..., dict[str, float]]] = {"forward": forward, "census": census, "hooks": hooks}
WORDS = {
    "forward": "forward alone",
    "census": "forward and all statistics",
    "hooks": "transformers, hooks and index_add_, tokens only",
}


def measure(way: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement, in this process."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if arguments.device == "auto" else arguments.device)
    ids = text(max(1, arguments.tokens // POSITIONS))
    checkpoint = open_checkpoint(str(folder))
    if way != "hooks":
        keep_freed()  # as analyze/run.py does
    found = WAYS[way](checkpoint, ids, arguments.layers, getattr(torch, arguments.dtype), device)
    found["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        found["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found | {"tokens": ids.size}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: medians over rounds; what is divided was measured in the same round."""
    lines = [
        "| | tokens/s | against forward | against hooks | statistics | of the rest | peak memory |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way, rounds in results.items():
        cells = [f"{median(r['tokens'] / r['seconds'] for r in rounds):,.0f}"]
        cells += [against(rounds, results.get(other, [])) for other in ("forward", "hooks")]
        counted = [r for r in rounds if "statistics" in r]
        cells.append(f"{median(r['statistics'] for r in counted):.2f} s" if counted else "–")
        cells.append(
            f"{100 * median(r['statistics'] / (r['seconds'] - r['statistics']) for r in counted):.1f} %" if counted else "–"
        )
        cells.append(f"{max(r['peak_memory_bytes'] for r in rounds) / 1e9:.2f} GB")
        lines.append(f"| {WORDS[way]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def against(rounds: list[dict[str, float]], others: list[dict[str, float]]) -> str:
    """How many times as fast as another way in the same round."""
    return (
        f"{median(theirs['seconds'] / ours['seconds'] for ours, theirs in zip(rounds, others, strict=True)):.3f}"
        if others
        else "–"
    )


def main() -> None:
    """Measure in processes of their own, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, folder = arguments.measure
        print(json.dumps(measure(way, Path(folder), arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(model(arguments.layers), Path(folder) / "model", {})
        results: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
        for _ in range(arguments.rounds):
            for way in arguments.ways:
                command = [sys.executable, __file__, *sys.argv[1:], "--measure", way, str(Path(folder) / "model")]
                results[way].append(answer(command))
    title = f"OPT-125m's shape, {arguments.layers} layers, {arguments.tokens:,} tokens, {arguments.dtype}"
    page = f"{title}, {arguments.rounds} rounds; {measured_on()}\n\n{table(results)}"
    tell(page, results, arguments.out / f"125m_{arguments.layers}_layers_{arguments.tokens}_{arguments.dtype}")


def answer(command: list[str]) -> Any:
    """What a process of its own says last, as JSON; where it fails it has said why, and this one ends as it did."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def tell(page: str, results: Any, file: Path) -> None:
    """Print the page, and write it and what it was made of: `file`.md and `file`.json."""
    print(page)
    write_whole(file.with_name(f"{file.name}.md"), page)
    write_whole(file.with_name(f"{file.name}.json"), json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
