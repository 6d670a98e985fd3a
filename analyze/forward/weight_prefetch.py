"""Checkpoint -> blocks, one layer after another: each is read from disk while the one before computes."""

import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from torch import Tensor

from analyze.forward.dtype_cast import as_numbers, cast
from analyze.machine import free_memory
from device import Device, Event, Stream
from models.checkpoint import Checkpoint
from models.disk_reads import Room
from models.opt import Block
from models.tensor_places import Stored, contiguous
from models.unallocated import unallocated

ALIGNED = 256  # bytes; every tensor of a slab begins at a multiple, as a GPU likes it
PIECE = 1 << 24  # bytes that are cast at once
KEPT_IN_CACHE = 0.5  # of free memory: a larger checkpoint is read past the system's cache of files, which would not keep it


@dataclass
class Slot:
    """Room for the weights of one layer where they are computed with, and the block whose parameters they are."""

    block: Block
    slab: Tensor  # of bytes, on the device
    free: Event | None = None  # the computation is done with its last layer
    ready: Event | None = None  # its layer is there


class Weights:
    """The blocks of a checkpoint in some dtype on a device. Their room is allocated once, and layers take turns in it.

    On a CPU a thread reads the next layer into the slot that is not computed with. On a GPU it reads into one pinned slab, which
    a stream of its own copies into that slot; the stream waits until the slot is free, the computation until it is ready.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: Device, slots: int = 2) -> None:
        self.checkpoint, self.device = checkpoint, device
        with unallocated():
            block = Block(checkpoint.config)
        self.shapes = {name: tensor.shape for name, tensor in block.state_dict().items()}
        self.dtype = dtype
        self.slots = [self._slot() for _ in range(slots)]
        self.pinned = device.pinned(self.size) if device.asynchronous else None
        self.room = Room(PIECE)
        self.directly = sum(file.stat().st_size for file in checkpoint.files) > free_memory() * KEPT_IN_CACHE
        self.seconds = 0.0  # that a CPU waited for weights
        self.waits: list[tuple[Event, Event]] = []  # before and after every wait of a GPU

    @property
    def size(self) -> int:
        """Bytes of a layer."""
        return layer_bytes(self.shapes.values(), self.dtype)

    def _views(self, slab: Tensor) -> dict[str, Tensor]:
        """The tensors of a layer in a slab of bytes."""
        views, at = {}, 0
        for name, shape in self.shapes.items():
            size = shape.numel() * self.dtype.itemsize
            views[name] = slab[at : at + size].view(self.dtype).view(shape)
            at += _aligned(size)
        return views

    def _slot(self) -> Slot:
        slab = self.device.empty(self.size, dtype=torch.uint8)
        with unallocated():
            block = Block(self.checkpoint.config)
        block.load_state_dict(self._views(slab), assign=True)
        return Slot(block.eval().requires_grad_(False), slab)

    def blocks(self, layers: range) -> Generator[Block, None, None]:
        """The blocks of `layers`. Each stands until the next is asked for.

        Raises:
            UserError: a tensor cannot be read, or holds what is no number.
        """
        free: SimpleQueue[Slot | None] = SimpleQueue()
        ready: SimpleQueue[Slot | BaseException] = SimpleQueue()
        for slot in self.slots:
            free.put(slot)
        allocated = self.device.computing.record()  # what used the slots' memory before
        reader = threading.Thread(target=self._read_ahead, args=(layers, allocated, free, ready), daemon=True)
        reader.start()
        try:
            for _ in layers:
                slot = self._next(ready)
                yield slot.block
                slot.free = self.device.computing.record()
                free.put(slot)
        finally:
            free.put(None)
            reader.join()

    def _next(self, ready: "SimpleQueue[Slot | BaseException]") -> Slot:
        begun = time.perf_counter()
        before = self.device.computing.record(timing=True) if self.pinned is not None else None
        slot = ready.get()
        if isinstance(slot, BaseException):
            raise slot
        self.seconds += time.perf_counter() - begun
        if before is not None and slot.ready is not None:
            self.device.computing.wait(slot.ready)
            self.waits.append((before, self.device.computing.record(timing=True)))
        return slot

    def _read_ahead(
        self, layers: range, allocated: Event, free: "SimpleQueue[Slot | None]", ready: "SimpleQueue[Slot | BaseException]"
    ) -> None:
        try:
            if self.pinned is None:
                self._into_slots(layers, free, ready)
            else:
                self._by_copies(layers, self.pinned, allocated, free, ready)
        except BaseException as mistake:  # it is raised where the block was asked for
            ready.put(mistake)

    def _into_slots(self, layers: range, free: "SimpleQueue[Slot | None]", ready: "SimpleQueue[Slot | BaseException]") -> None:
        for layer in layers:
            if (slot := free.get()) is None:
                return
            self._read(layer, slot.slab)
            ready.put(slot)

    def _by_copies(
        self,
        layers: range,
        pinned: Tensor,
        allocated: Event,
        free: "SimpleQueue[Slot | None]",
        ready: "SimpleQueue[Slot | BaseException]",
    ) -> None:
        copies: Stream = self.device.stream()
        copies.wait(allocated)
        try:
            for layer in layers:
                copies.synchronize()  # the slab's last layer is on the device
                self._read(layer, pinned)  # while every slot may still be in use
                if (slot := free.get()) is None:
                    return
                if slot.free is not None:
                    copies.wait(slot.free)
                copies.copy(pinned, slot.slab)
                slot.ready = copies.record()
                ready.put(slot)
        finally:
            copies.synchronize()  # before anything else uses the slots' memory

    def _read(self, layer: int, slab: Tensor) -> None:
        tensors = self.checkpoint.layer_tensors(layer)
        views = self._views(slab)
        for name, view in views.items():
            read_as(tensors[name], view, self.room, self.directly)
        self.checkpoint.check_finite(layer, views)

    def waited(self) -> float:
        """Seconds that computing stood still for want of weights, the first layer's included."""
        if not self.waits:
            return self.seconds
        self.device.synchronize()
        return sum(after.seconds_since(before) for before, after in self.waits)


@torch.no_grad()
def read_as(stored: Stored, into: Tensor, room: Room, directly: bool = False) -> None:
    """Read a tensor from disk into one in main memory, cast on the way, piece by piece; `directly`: past the system's cache."""
    flat, itemsize = into.view(-1), stored.dtype.itemsize
    if stored.stride != contiguous(stored.shape):
        into.copy_(stored.read())
    elif stored.dtype == into.dtype and not directly:
        stored.read_into(flat.view(torch.uint8))
    else:
        at = stored.offset
        for part in torch.split(flat, room.size // itemsize):
            size = part.numel() * itemsize
            cast(as_numbers(room.read(stored.file, at, size, directly), stored.dtype), part)
            at += size


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def layer_bytes(shapes: Iterable[torch.Size], dtype: torch.dtype) -> int:
    """Bytes of a slab that takes tensors of these shapes."""
    return sum(_aligned(shape.numel() * dtype.itemsize) for shape in shapes)
