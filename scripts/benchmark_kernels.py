"""Kernels of a census beside what they replace: python scripts/benchmark_kernels.py [--device cuda] [--rows 131072] [--neurons 36864]

Packing: pre-activations of a micro-batch -> firing bits, greatest values, first firings; ours (Triton on a GPU, numba on a CPU) and
torch's. Segment sums: the bit matrix's rows by token, ours where the bits are (Triton on a GPU) and on the host's cores (numba). GB/s are
of what must be read and written once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from torch import Tensor

from analyze.firing.device_sums import DeviceSums, OnDevice
from analyze.firing.mask import record
from analyze.firing.packing import NEVER, bytes_for, pack, pack_by_torch
from analyze.firing.segment_sum import HostSums, Segments, segments_of
from analyze.forward.layer_by_layer import MicroBatch
from device import Device, resolved
from errors import BEGINS_AGAIN, plainly
from provenance import measured_on
from scripts.measurement import GB, Figure, now, tell, text

PACKED = 16_384  # rows of a micro-batch
ROUNDS = 5
HALVED = 4  # times, is how rarely neurons fire: on a sixteenth of the tokens
Way = Callable[[Device, Tensor, Tensor, Tensor, Tensor, Tensor, int], None]
Times = dict[str, tuple[float, int]]  # way -> seconds, and bytes that it must move


def seconds(work: Callable[[], object], device: Device) -> float:
    """The median of some rounds; the first, which compiles, is left out."""
    taken = []
    for _ in range(1 + ROUNDS):
        begun = now(device)
        work()
        taken.append(now(device) - begun)
    return median(taken[1:])


def packing(device: Device, rows: int, neurons: int, dtype: torch.dtype) -> Times:
    """A micro-batch's pre-activations, packed in each way."""
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(1024, neurons, generator=generator) - 1.6).to(dtype)[torch.arange(rows) % 1024]
    counted, bits = torch.ones(rows, dtype=torch.bool), torch.empty(rows, bytes_for(neurons), dtype=torch.uint8)
    moved = values.nbytes + bits.nbytes
    there, left_in = device.put(values), (device.put(counted), device.put(bits))
    greatest, first = device.put(torch.full((neurons,), -torch.inf)), device.put(torch.full((neurons,), NEVER))

    def packed_by(way: Way) -> float:
        return seconds(lambda: way(device, there, *left_in, greatest, first, 0), device)

    torchs = {"packing, torch": (packed_by(pack_by_torch), moved)}
    if device.triton:
        return {"packing, Triton": (packed_by(pack), moved)} | torchs
    batch = MicroBatch(0, values[None])
    numbas = seconds(lambda: record([batch], np.ones((1, rows), bool), neurons, bits.numpy()), device)
    return {"packing, numba": (numbas, moved)} | torchs


def sums(device: Device, rows: int, neurons: int) -> Times:
    """Rows of a bit matrix, added up by token."""
    ids = text(1, positions=rows).ravel()
    segments = segments_of(np.unique(ids, return_inverse=True)[1], np.ones(rows, bool), len(np.unique(ids)))
    rng, shape = np.random.default_rng(0), (rows, bytes_for(neurons))
    bits = np.bitwise_and.reduce([rng.integers(0, 256, shape, np.uint8) for _ in range(HALVED)])
    moved = bits.nbytes + 4 * len(segments) * neurons
    found = {"segment sums, numba": (seconds(lambda: _added(HostSums(bits, neurons), segments), device), moved)}
    if device.triton:
        there = DeviceSums(OnDevice(device), device.put(torch.from_numpy(bits)), neurons)
        found["segment sums, Triton"] = (seconds(lambda: _added(there, segments), device), moved)
    return found


def _added(sums: HostSums | DeviceSums, segments: Segments) -> None:
    for _ in sums.in_chunks(segments):
        pass


def copying(device: Device) -> Times:
    """A copy within the device's memory: what its bandwidth is in practice."""
    source, target = (device.empty(1 << (30 if device.asynchronous else 26), dtype=torch.uint8) for _ in range(2))
    return {"a copy within memory": (seconds(lambda: target.copy_(source), device), 2 * source.nbytes)}


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--rows", type=int, default=131_072, help="tokens of the bit matrix")
    parser.add_argument("--neurons", type=int, default=36_864, help="of a layer; 66b has 36,864")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    device, rows, neurons = resolved(arguments.device), arguments.rows, arguments.neurons
    with device.current():
        times = (
            copying(device)
            | packing(device, min(rows, PACKED), neurons, getattr(torch, arguments.dtype))
            | sums(device, rows, neurons)
        )
    rates = {way: moved / taken / GB for way, (taken, moved) in times.items()}
    copied = rates["a copy within memory"]
    lines = ["| | milliseconds | GB/s | of a copy's |", "|---|---:|---:|---:|"]
    for way, (taken, _) in times.items():
        lines.append(f"| {way} | {1000 * taken:,.2f} | {rates[way]:,.1f} | {rates[way] / copied:.2f} |")
    page = f"{neurons:,} neurons, {rows:,} tokens, {arguments.dtype}; {measured_on()}\n\n" + "\n".join(lines) + "\n"
    found = [Figure(way, f"{rate:,.1f} GB/s, {rate / copied:.2f} of a copy's") for way, rate in rates.items()]
    tell(page, times, arguments.out / f"kernels_{device.kind}_{neurons}", found)


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
