"""What counting costs: python scripts/benchmark.py [--layers 12] [--tokens 131072] [--dtype float32] [--device auto]

Forward passes of OPT-125m's shape with random weights at 2048 positions, measured alone, with all statistics, and with the hooks that a
user would write. Each measurement runs in a process of its own, so that its peak memory is its own; they take turns, `--rounds` times.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch

from allocator import keep_freed, peak_memory
from analyze.census.background import Beside
from analyze.census.job import POSITIONS_AT_ONCE
from analyze.counts.layer import Index, count, index
from analyze.firing.mask import DeviceRecorder, Firings, Whole
from analyze.firing.mask import record as on_cpu
from analyze.firing.packing import bytes_for
from analyze.forward.layer_by_layer import MicroBatch, ResidualStream
from analyze.forward.weight_prefetch import Weights
from device import Device, exact_sums, resolved
from errors import BEGINS_AGAIN, plainly
from models.checkpoint import Checkpoint, save_checkpoint
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from models.opt import OPT, Block, initialise
from provenance import measured_on
from scripts.measurement import GB, POSITIONS, Figure, answer, clocked, now, tell, text

VOCABULARY = 50_272


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


def forward(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: Device) -> dict[str, float]:
    """The walk over all layers, nothing counted."""
    stream = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids).long(), micro(ids, device), device)
    begun = time.perf_counter()
    for layer, block in enumerate(Weights(checkpoint, dtype, device).blocks(range(layers))):
        for _ in stream.through(block, layer):
            pass
    return {"seconds": now(device) - begun}


def census(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: Device) -> dict[str, float]:
    """The walk, and every statistic of every neuron: n-grams of 1, 2 and 3, positions, firsts and maxima.

    Where the device works beside the host, a layer is counted while the next one is walked, as analyze/run.py does it.
    """
    begun = time.perf_counter()
    rows = index(ids, np.zeros(len(ids), np.uint8), 1, 2, VOCABULARY)
    indexing = time.perf_counter() - begun  # once per corpus
    neurons = checkpoint.config.neurons
    rooms = [np.zeros((ids.size, bytes_for(neurons)), np.uint8) for _ in range(1 + device.asynchronous)]
    few = index(ids[:1].copy(), np.zeros(1, np.uint8), 1, 2, VOCABULARY)  # kernels compile before the clock starts
    warm = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids[:1]).long(), 1, device)
    with closing(Weights(checkpoint, dtype, device, slots=1).blocks(range(1))) as first:
        count(record(device, warm.through(next(first), 0), few.counted, rooms[0][: ids.shape[1]], neurons), few)
    stream = ResidualStream(checkpoint.ends(dtype), torch.from_numpy(ids).long(), micro(ids, device), device)
    begun, walking, counting = time.perf_counter(), 0.0, 0.0
    with Beside(device.asynchronous) as counts:
        for layer, block in enumerate(Weights(checkpoint, dtype, device).blocks(range(layers))):
            spent = [0.0]
            walk = stream.through(block, layer)
            start = time.perf_counter()
            clock = walk if device.asynchronous else clocked(walk, spent)
            recorded_firings = record(device, clock, rows.counted, rooms[layer % len(rooms)], neurons)
            recorded = time.perf_counter()
            counts.do(partial(counted, recorded_firings, rows))
            counting += time.perf_counter() - start - spent[0]
            walking += spent[0]
            parts = f"walk {spent[0]:.2f}, bits {recorded - start - spent[0]:.3f}, counts {time.perf_counter() - recorded:.3f} s"
            print(f"layer {layer}: {parts}", file=sys.stderr)
    found = {"seconds": now(device) - begun, "indexing": indexing}
    return found if device.asynchronous else found | {"statistics": counting, "walk": walking}


def counted(recorded: Firings, rows: Index) -> None:
    """Counted, for the clock alone."""
    count(recorded, rows)


def record(device: Device, walk: Iterator[MicroBatch], counted: np.ndarray, bits: np.ndarray, neurons: int) -> Firings:
    """A layer's firings, recorded where it is computed."""
    if not device.asynchronous:
        return on_cpu(walk, counted, neurons, bits)
    with closing(DeviceRecorder(device, counted, neurons, micro(counted, device) * counted.shape[1])) as recorder:
        return recorder.record(walk, bits, None, Whole(bits))


def micro(ids: np.ndarray, device: Device) -> int:
    """Sequences of a micro-batch: one is the fastest for every way on a CPU; a GPU takes as many positions as a census gives it."""
    return max(1, min(len(ids), POSITIONS_AT_ONCE[device.kind] // ids.shape[1])) if device.asynchronous else 1


def hooks(checkpoint: Checkpoint, ids: np.ndarray, layers: int, dtype: torch.dtype, device: Device) -> dict[str, float]:
    """What people write: transformers, a hook on the input of fc2, and `index_add_` into [vocabulary, neurons]; tokens only."""
    from transformers import OPTForCausalLM

    theirs: Any = OPTForCausalLM.from_pretrained(checkpoint.path, dtype=dtype)
    decoder = theirs.to(device.name).eval().model.decoder
    tables = [torch.zeros(VOCABULARY, checkpoint.config.neurons, device=device.name) for _ in range(layers)]
    current: list[torch.Tensor] = []
    spent = [0.0]

    def hook(table: torch.Tensor) -> Callable[..., None]:
        def add(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            start = time.perf_counter()
            fires = (inputs[0] > 0).float().flatten(0, -2)
            table.index_add_(0, current[0], fires)
            spent[0] += time.perf_counter() - start

        return add

    for block, table in zip(decoder.layers, tables, strict=True):
        block.fc2.register_forward_pre_hook(hook(table))
    at_once, begun = micro(ids, device), time.perf_counter()
    with torch.inference_mode():
        for at in range(0, len(ids), at_once):
            batch = torch.from_numpy(ids[at : at + at_once]).long().to(device.name)
            current[:] = [batch.flatten()]
            decoder(batch)
    found = {"seconds": now(device) - begun}
    return found if device.asynchronous else found | {"statistics": spent[0]}


WAYS: dict[str, Callable[..., dict[str, float]]] = {"forward": forward, "census": census, "hooks": hooks}
WORDS = {
    "forward": "forward alone",
    "census": "forward and all statistics",
    "hooks": "transformers, hooks and index_add_, tokens only",
}


def measure(way: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement, in this process."""
    device = resolved(arguments.device)
    ids = text(max(1, arguments.tokens // arguments.positions), positions=arguments.positions)
    checkpoint = open_checkpoint(str(folder))
    if way != "hooks":
        keep_freed()  # as analyze/run.py does
    with device.current(), exact_sums():
        found = WAYS[way](checkpoint, ids, arguments.layers, getattr(torch, arguments.dtype), device)
    found["peak_memory_bytes"] = peak_memory()
    if peak := device.peak_memory():
        found["peak_gpu_memory_bytes"] = peak
    return found | {"tokens": ids.size}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: medians over rounds; what is divided was measured in the same round."""
    lines = [
        "| | tokens/s | against forward | against hooks | statistics | of the rest | peak memory | of the GPU |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, rounds in results.items():
        cells = [f"{median(r['tokens'] / r['seconds'] for r in rounds):,.0f}"]
        cells += [against(rounds, results.get(other, [])) for other in ("forward", "hooks")]
        counted = [r for r in rounds if "statistics" in r]
        cells.append(f"{median(r['statistics'] for r in counted):.2f} s" if counted else "–")
        cells.append(
            f"{100 * median(r['statistics'] / (r['seconds'] - r['statistics']) for r in counted):.1f} %" if counted else "–"
        )
        cells.append(f"{max(r['peak_memory_bytes'] for r in rounds) / GB:.2f} GB")
        on_gpu = max(r.get("peak_gpu_memory_bytes", 0) for r in rounds)
        cells.append(f"{on_gpu / GB:.2f} GB" if on_gpu else "–")
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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--positions", type=int, default=POSITIONS, help="of a sequence")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.measure:
            way, ckpt = arguments.measure
            print(json.dumps(measure(way, Path(ckpt), arguments)))
            return
        save_checkpoint(model(arguments.layers), Path(folder) / "model", {})
        results: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
        for _ in range(arguments.rounds):
            for way in arguments.ways:
                command = [sys.executable, __file__, *sys.argv[1:], "--measure", way, str(Path(folder) / "model")]
                results[way].append(answer(command))
    title = f"OPT-125m's shape, {arguments.layers} layers, {arguments.tokens:,} tokens, {arguments.dtype}"
    page = f"{title}, {arguments.rounds} rounds; {measured_on()}\n\n{table(results)}"
    file = arguments.out / f"125m_{arguments.layers}_layers_{arguments.tokens}_{arguments.dtype}"
    tell(page, results, file, figures(results))


def figures(results: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Speed of every way, and what the census is beside the others, in words."""
    found = []
    for way, rounds in results.items():
        measured = f"{median(r['tokens'] / r['seconds'] for r in rounds):,.0f} tokens/s"
        for other in ("forward", "hooks"):
            if way == "census" and other in results:
                measured += f", {against(rounds, results[other])} x {WORDS[other]}"
        found.append(Figure(WORDS[way], measured))
    return found


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
