"""Pre-activations -> firing bits: one bit matrix [tokens, neurons] a layer, packed along neurons."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8, UInt64
from numba.cpython.unsafe.numbers import trailing_zeros
from torch import Tensor

from analyze.firing.packing import NEVER, bytes_for, pack
from analyze.firing.signs import signs_of_64
from analyze.firing.staging import Staging
from analyze.forward.layer_by_layer import MicroBatch
from analyze.jit import compiled, on_all_cores, shares
from device import Device

INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass
class Firings:
    """What one layer's neurons did at every position, BOS included. Row `s * positions + p` is position p of sequence s."""

    bits: UInt8[np.ndarray, "token byte"]  # bit `n % 8` of byte `n // 8` is neuron n; bits past the last neuron are 0
    neurons: int
    max_pre: Float32[np.ndarray, " neuron"]  # over counted positions; -inf where there are none
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions, in corpus order; -1: never fired
    on_device: UInt8[Tensor, "token byte"] | None = None  # the same bits where they were computed, if they were left there
    device: Device | None = None  # which has `on_device`


@dataclass
class Extremes:
    """What the pack step finds beside the bits, over the counted rows so far."""

    max_pre: Float32[np.ndarray, " neuron"]
    first: Int64[np.ndarray, " neuron"]  # row of the first firing; NEVER: none

    @classmethod
    def of(cls, neurons: int) -> "Extremes":
        """Of no rows at all."""
        return cls(np.full(neurons, -np.inf, np.float32), np.full(neurons, NEVER))


@runtime_checkable
class Sink(Protocol):
    """Takes the bits of micro-batches in order."""

    def room(self, first: int, rows: int) -> UInt8[np.ndarray, "token byte"]:
        """Where rows from `first` on are to be written."""

    def written(self, last: int) -> None:
        """The rows up to `last` are."""

    def finish(self) -> None:
        """All micro-batches were written."""


@dataclass
class Whole:
    """One bit matrix that takes all rows."""

    bits: UInt8[np.ndarray, "token byte"]

    def room(self, first: int, rows: int) -> UInt8[np.ndarray, "token byte"]:
        """The rows themselves."""
        return self.bits[first : first + rows]

    def written(self, last: int) -> None:
        """Nothing is left to do."""

    def finish(self) -> None:
        """Nothing is left to do."""


def record(
    batches: Iterable[MicroBatch],
    counted: Bool[np.ndarray, "sequence position"],
    neurons: int,
    bits: UInt8[np.ndarray, "token byte"] | None = None,
    sink: Sink | None = None,
) -> Firings:
    """Record a layer on a CPU, into `bits` if given, by way of `sink` if given. `counted` is false at BOS positions."""
    sequences, positions = counted.shape
    bits = np.zeros((sequences * positions, bytes_for(neurons)), np.uint8) if bits is None else bits
    sink, found, flat = sink or Whole(bits), Extremes.of(neurons), counted.ravel()
    for batch in batches:
        first, pre = batch.first * positions, batch.pre.detach().flatten(0, 1)
        _pack_on_cpu(pre, flat[first : first + len(pre)], sink.room(first, len(pre)), found, first)
        sink.written(first + len(pre))
    sink.finish()
    return Firings(bits, neurons, found.max_pre, counted_index(found.first, counted))


class DeviceRecorder:
    """Records layers on a device that computes beside the host; bits come through `staging`, greatest values at a layer's end."""

    def __init__(self, device: Device, counted: Bool[np.ndarray, "sequence position"], neurons: int, rows: int) -> None:
        self.device, self.counted, self.neurons = device, counted, neurons
        self.on_device = device.put(torch.from_numpy(np.ascontiguousarray(counted.ravel())))
        self.staging = Staging(device, rows, bytes_for(neurons))

    def record(
        self, batches: Iterable[MicroBatch], bits: UInt8[np.ndarray, "token byte"], matrix: Tensor | None, sink: Sink
    ) -> Firings:
        """Record a layer, as `record` does; in `matrix`, if given, the bits stay on the device too."""
        device, positions = self.device, self.counted.shape[1]
        none = Extremes.of(self.neurons)
        max_pre, first_row = (device.put(torch.from_numpy(array)) for array in (none.max_pre, none.first))
        for batch in batches:
            first, pre = batch.first * positions, batch.pre.flatten(0, 1)
            rows = slice(first, first + len(pre))
            here = self.staging.buffer(len(pre)) if matrix is None else matrix[rows]
            with device.current():
                pack(device, pre, self.on_device[rows], here, max_pre, first_row, first)
            self.staging.send(here, partial(_write, sink, first))
        self.staging.finish()
        sink.finish()
        found = Extremes(device.fetch(max_pre).numpy(), device.fetch(first_row).numpy())
        return Firings(bits, self.neurons, found.max_pre, counted_index(found.first, self.counted), matrix, device)

    def close(self) -> None:
        """End what works beside."""
        self.staging.close()


def _write(sink: Sink, first: int, rows: UInt8[np.ndarray, "token byte"]) -> None:
    sink.room(first, len(rows))[:] = rows
    sink.written(first + len(rows))


def counted_index(
    rows: Int64[np.ndarray, " neuron"], counted: Bool[np.ndarray, "sequence position"]
) -> Int64[np.ndarray, " neuron"]:
    """The index among counted positions, in corpus order, of the position in each row; -1 for `NEVER`."""
    before = np.cumsum(counted.ravel()) - 1
    return np.where(rows == NEVER, -1, before[np.where(rows == NEVER, 0, rows)])


def _pack_on_cpu(
    pre: Float[Tensor, "token neuron"], counted: Bool[np.ndarray, " token"], bits: UInt8[np.ndarray, "token byte"],
    found: Extremes, offset: int,
) -> None:  # fmt: skip
    """One pass over the pre-activations, which are too many for a cache; they are read as integers, which order like floats.

    Row i is row `offset` + i of the layer.
    """
    kind = INTEGERS[pre.dtype]
    values = pre.contiguous().view(kind).numpy()
    never = np.zeros(64 * (bits.shape[1] // 8), bool)
    never[: len(found.first)] = found.first == NEVER
    waiting = np.packbits(never, bitorder="little").view(np.uint64)
    cores = max(1, torch.get_num_threads() // 2)  # the others still wait, busily, for torch's next product
    tasks = [(values, counted, bits, waiting, a, b) for a, b in shares(np.ones(len(values)), cores)]
    greatest, rows = zip(*on_all_cores(_pack, tasks), strict=True)
    if counted.any():
        keys = torch.from_numpy(np.max(greatest, axis=0))
        values_of = torch.where(keys < 0, keys ^ torch.iinfo(kind).max, keys).view(pre.dtype).float()
        np.maximum(found.max_pre, values_of.add_(0.0).numpy(), out=found.max_pre)  # -0 + 0 is 0
    of_tasks = np.array(rows)[:, : len(found.first)]
    first = np.where(of_tasks < 0, NEVER, of_tasks + offset).min(0)
    np.minimum(found.first, first, out=found.first)


@compiled
def _pack(
    values: Int[np.ndarray, "token neuron"], counted: Bool[np.ndarray, " token"], bits: UInt8[np.ndarray, "token byte"],
    waiting: UInt64[np.ndarray, " word"], first: int, last: int,
) -> tuple[Int[np.ndarray, " neuron"], Int64[np.ndarray, " bit"]]:  # fmt: skip
    """Write the bits of rows `first` to `last`; returns, of counted ones, every neuron's greatest key and the row where it first fires.

    -1: it does not, or it is not `waiting`, for it has fired before. A float read as an integer has the right sign; of two negative
    ones the greater integer is the lesser float, so all bits but the sign are flipped there.
    """
    neurons, words = values.shape[1], bits.view(np.uint64)
    whole = neurons // 64
    flip = values.dtype.type(np.iinfo(values.dtype).max)
    greatest = np.full(neurons, np.iinfo(values.dtype).min, values.dtype)
    fired, unseen = np.full(64 * words.shape[1], -1), waiting.copy()
    for row in range(first, last):
        for w in range(whole):
            words[row, w] = signs_of_64(values, row * neurons + 64 * w)  # type: ignore[call-arg]
            if counted[row]:  # in the same breath, so that values come from memory once
                for n in range(64 * w, 64 * w + 64):
                    greatest[n] = max(greatest[n], values[row, n] ^ ((values[row, n] >> 63) & flip))
        if whole < words.shape[1]:
            words[row, whole] = 0
            for n in range(64 * whole, neurons):
                words[row, whole] |= np.uint64(values[row, n] > 0) << np.uint64(n - 64 * whole)
                if counted[row]:
                    greatest[n] = max(greatest[n], values[row, n] ^ ((values[row, n] >> 63) & flip))
        if counted[row]:
            note_first(words[row], row, unseen, fired)
    return greatest, fired


@compiled
def note_first(
    fires: UInt64[np.ndarray, " word"], row: int, unseen: UInt64[np.ndarray, " word"], fired: Int64[np.ndarray, " bit"]
) -> None:
    """Put down `row` for the neurons that fire in it and have not been seen to fire."""
    for w in range(len(fires)):
        new = fires[w] & unseen[w]
        if new:
            unseen[w] &= ~new
            while new:
                fired[64 * w + np.int64(trailing_zeros(new))] = row  # type: ignore[call-arg]
                new &= new - np.uint64(1)
