"""Several processes, one census: each walks its share of micro-batches and sends its firing bits to the first, which counts.

Shares are whole micro-batches, of the shape and with the sequences they have in one process: so the bits, and the files, are its own.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float32, UInt8
from torch import Tensor

SENT_AT_ONCE = 1 << 28  # bytes
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many; torchrun starts them."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that counts and writes."""
        return self.rank == 0

    def share(self, batches: int, rank: int | None = None) -> range:
        """The neighbouring micro-batches that a rank (this one) walks."""
        rank = self.rank if rank is None else rank
        return range(batches * rank // self.world, batches * (rank + 1) // self.world)

    def told(self, value: T) -> T:
        """What the first rank says."""
        if self.world == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said)
        return said[0]

    def agree(self, value: object) -> bool:
        """Whether every process has the same value."""
        if self.world == 1:
            return True
        said: list[object] = [None] * self.world
        dist.all_gather_object(said, value)
        return all(other == value for other in said)

    def least(self, values: Tensor) -> None:
        """Make every value the least that any process has."""
        if self.world > 1:
            dist.all_reduce(values, dist.ReduceOp.MIN)

    def gather(
        self, bits: UInt8[np.ndarray, "token byte"], max_pre: Float32[np.ndarray, " neuron"], batches: int, rows_of_batch: int
    ) -> None:
        """Fill the first rank's `bits` and `max_pre` with those of the others."""
        if self.first:
            for other in range(1, self.world):
                for part in _parts(bits, self.share(batches, other), rows_of_batch):
                    dist.recv(torch.from_numpy(part), other)
                theirs = torch.empty(len(max_pre))
                dist.recv(theirs, other)
                np.maximum(max_pre, theirs.numpy(), out=max_pre)
        else:
            for part in _parts(bits, self.share(batches), rows_of_batch):
                dist.send(torch.from_numpy(part), 0)
            dist.send(torch.from_numpy(max_pre), 0)


def _parts(bits: UInt8[np.ndarray, "token byte"], batches: range, rows_of_batch: int) -> list[UInt8[np.ndarray, "token byte"]]:
    last = min(len(bits), batches.stop * rows_of_batch)
    at_once = max(1, SENT_AT_ONCE // bits.shape[1])
    return [bits[row : min(row + at_once, last)] for row in range(batches.start * rows_of_batch, last, at_once)]


def joined() -> Ranks:
    """The processes that torchrun started, joined over gloo; this one alone otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())
