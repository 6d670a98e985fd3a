"""Pre-activations -> firing bits: one bit matrix [tokens, neurons] a layer, packed along neurons."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from analyze.walk import MicroBatch

UNPACK = 0x0102040810204080  # multiplying eight 0/1 bytes by this collects them, in order, in the top byte


@dataclass
class Firings:
    """What one layer's neurons did at every position, BOS included. Row `s * positions + p` is position p of sequence s."""

    bits: UInt8[np.ndarray, "token byte"]  # bit `n % 8` of byte `n // 8` is neuron n; bits past the last neuron are 0
    neurons: int
    max_pre: Float32[np.ndarray, " neuron"]  # over counted positions; -inf where there are none
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions, in corpus order; -1: never fired


def packed(fires: Bool[Tensor, "token neuron"]) -> UInt8[Tensor, "token byte"]:
    """Pack along neurons, little-endian bits: `numpy.packbits(fires, axis=1, bitorder="little")` where the tensor is."""
    fires = torch.nn.functional.pad(fires, (0, -fires.shape[1] % 8)).contiguous()
    return ((fires.view(torch.int64) * UNPACK) >> 56).to(torch.uint8)


def record(batches: Iterable[MicroBatch], counted: Bool[np.ndarray, "sequence position"], neurons: int) -> Firings:
    """Record a layer as it is walked. `counted` is false at BOS positions."""
    sequences, positions = counted.shape
    bits = np.empty((sequences * positions, -(-neurons // 8)), np.uint8)
    max_pre = np.full(neurons, -np.inf, np.float32)
    first_fired = np.full(neurons, -1, np.int64)
    counted_before = np.concatenate([[0], np.cumsum(counted.ravel())])
    for batch in batches:
        rows = slice(batch.first * positions, (batch.first + len(batch.pre)) * positions)
        pre = batch.pre.flatten(0, 1)
        fires = pre > 0
        bits[rows] = packed(fires).cpu().numpy()
        counts = torch.from_numpy(counted.ravel()[rows]).to(pre.device)
        fires, pre = fires[counts], pre[counts]
        if len(pre):
            np.maximum(max_pre, pre.amax(0).float().cpu().numpy(), out=max_pre)
            _note_first(first_fired, fires, int(counted_before[rows.start]))
    return Firings(bits, neurons, max_pre, first_fired)


def _note_first(first_fired: Int64[np.ndarray, " neuron"], fires: Bool[Tensor, "token neuron"], before: int) -> None:
    new = (first_fired < 0) & fires.any(0).cpu().numpy()
    if new.any():
        first_fired[new] = before + fires[:, torch.from_numpy(new).to(fires.device)].cpu().numpy().argmax(0)


def preactivations_as_batches(pre: Float[Tensor, "sequence position neuron"], micro: int) -> Iterable[MicroBatch]:
    """Pre-activations at hand, as the walk would give them."""
    return (MicroBatch(begin, pre[begin : begin + micro]) for begin in range(0, len(pre), micro))
