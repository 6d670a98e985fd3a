"""Several processes, one census: each walks its share of micro-batches, and counts its share of neurons over all of them.

Shares are whole micro-batches, of the shape and with the sequences they have in one process, and whole words of 64 neurons: so the
bits, and the files, are its own.
"""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from analyze.census.launching import launched
from device import cores, local_processes
from errors import UserError

PATIENCE = timedelta(days=30)  # until a process that waits for another gives up: preparing a corpus may take days
T = TypeVar("T")


class OtherEnded(SystemExit):
    """Another process of this census has ended, and has said why; this one ends without a word."""

    def __init__(self) -> None:
        super().__init__(1)


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many; torchrun or srun starts them."""

    rank: int = 0
    world: int = 1
    counting: Any = field(default=None, compare=False, repr=False)  # the process group of the thread that counts: its own order

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, batches: int, rank: int | None = None) -> range:
        """The neighbouring micro-batches that a rank (this one) walks."""
        rank = self.rank if rank is None else rank
        return range(batches * rank // self.world, batches * (rank + 1) // self.world)

    def words(self, words: int, rank: int | None = None) -> range:
        """The neighbouring words of 64 neurons that a rank (this one) counts. The first has some if anyone has."""
        rank = self.rank if rank is None else rank
        each, more = divmod(words, self.world)
        return range(rank * each + min(rank, more), (rank + 1) * each + min(rank + 1, more))

    def neurons(self, neurons: int) -> slice:
        """The neurons of this rank's words."""
        words = self.words(-(-neurons // 64))
        return slice(64 * words.start, max(64 * words.start, min(64 * words.stop, neurons)))

    def told(self, value: T) -> T:
        """What the first rank says."""
        if self.world == 1:
            return value
        said = [value]
        with connected():
            dist.broadcast_object_list(said)
        return said[0]

    def agree(self, value: object) -> bool:
        """Whether every process has the same value."""
        if self.world == 1:
            return True
        said: list[object] = [None] * self.world
        with connected():
            dist.all_gather_object(said, value)
        return all(other == value for other in said)

    def greatest(self, values: Tensor) -> None:
        """Make every value the greatest that any process has."""
        if self.world > 1:
            with connected():
                dist.all_reduce(values, dist.ReduceOp.MAX)

    def least(self, values: Tensor) -> None:
        """Make every value the least that any process has."""
        if self.world > 1:
            with connected():
                dist.all_reduce(values, dist.ReduceOp.MIN)


@contextmanager
def connected() -> Iterator[None]:
    """Talk to other processes; where one of them has ended, so does this one."""
    try:
        yield
    except RuntimeError:  # gloo's, of a connection that is closed
        raise OtherEnded from None


@contextmanager
def one_voice(ranks: Ranks) -> Iterator[None]:
    """Of several processes that end in a mistake, the first to do so says its own."""
    try:
        yield
    except UserError:
        if ranks.world > 1 and not _speaks(ranks):
            raise OtherEnded from None
        raise


def _speaks(ranks: Ranks) -> bool:
    with suppress(RuntimeError):  # the process that keeps the store has ended already
        said: bytes = _joined().compare_set("who says why", "", str(ranks.rank))
        return said.decode() == str(ranks.rank)
    return False


@contextmanager
def all_cores(ranks: Ranks) -> Iterator[None]:
    """Compute with the cores of the other processes on this machine as well, which have nothing to do meanwhile."""
    threads = torch.get_num_threads()
    if ranks.world > 1:
        torch.set_num_threads(max(threads, min(threads * local_processes(), cores())))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def joined() -> Ranks:
    """The processes that torchrun or srun started, joined over gloo; this one alone otherwise."""
    if launched() == 1:
        return Ranks()
    _joined()
    return Ranks(dist.get_rank(), dist.get_world_size(), _counting())


@cache
def _joined() -> Any:
    """Join the processes, once; what they can leave words in for each other."""
    with connected():
        words, rank, world = next(rendezvous("env://"))
        dist.init_process_group("gloo", store=words, rank=rank, world_size=world, timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    return words


@cache
def _counting() -> Any:
    with connected():
        return dist.new_group(timeout=PATIENCE)


def sent(tensor: Tensor, to: int, ranks: Ranks, at_once: int) -> None:
    """Send bytes to a rank, from the thread that counts, so many at once."""
    with connected():
        for piece in torch.split(tensor, at_once):
            dist.send(piece, to, group=ranks.counting)


def received(tensor: Tensor, source: int, ranks: Ranks, at_once: int) -> None:
    """Fill a tensor with what a rank sends in the same way."""
    with connected():
        for piece in torch.split(tensor, at_once):
            dist.recv(piece, source, group=ranks.counting)
