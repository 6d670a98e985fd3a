"""Checkpoint -> blocks, one layer after another: each is read from disk while the one before computes."""

import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch
from torch import Tensor

from analyze.budgets import free_memory
from analyze.casting import as_numbers, cast
from analyze.streams import event, stream
from models.checkpoint import Checkpoint
from models.opt import Block
from models.reads import Room
from models.weights import Stored, contiguous

ALIGNED = 256  # bytes; every tensor of a slab begins at a multiple, as a GPU likes it
PIECE = 1 << 24  # bytes that are cast at once
KEPT_IN_CACHE = 0.5  # of free memory: a larger checkpoint is read past the system's cache of files, which would not keep it


@dataclass
class Slot:
    """Room for the weights of one layer where they are computed with, and the block whose parameters they are."""

    block: Block
    slab: Tensor  # of bytes, on the device
    events: "Events | None"  # on a GPU


@dataclass
class Events:
    """When a GPU may use a slot's weights, and when they may be written over."""

    ready: torch.cuda.Event = field(default_factory=event)
    free: torch.cuda.Event = field(default_factory=event)


class Weights:
    """The blocks of a checkpoint in some dtype on a device. Their room is allocated once, and layers take turns in it.

    On a CPU a thread reads the next layer into the slot that is not computed with. On a GPU it reads into one pinned slab, which
    a stream of its own copies into that slot; the stream waits until the slot is free, the computation until it is ready.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, slots: int = 2) -> None:
        self.checkpoint, self.device = checkpoint, device
        with torch.device("meta"):
            block = Block(checkpoint.config)
        self.shapes = {name: tensor.shape for name, tensor in block.state_dict().items()}
        self.dtype = dtype
        self.slots = [self._slot() for _ in range(slots)]
        self.pinned = torch.empty(self.size, dtype=torch.uint8, pin_memory=True) if device.type == "cuda" else None
        self.room = Room(PIECE)
        self.directly = sum(file.stat().st_size for file in checkpoint.files) > free_memory() * KEPT_IN_CACHE
        self.seconds = 0.0  # that a CPU waited for weights
        self.waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []  # before and after every wait of a GPU

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
        slab = torch.empty(self.size, dtype=torch.uint8, device=self.device)
        with torch.device("meta"):
            block = Block(self.checkpoint.config)
        block.load_state_dict(self._views(slab), assign=True)
        return Slot(block.eval().requires_grad_(False), slab, Events() if self.device.type == "cuda" else None)

    def blocks(self, layers: range) -> Generator[Block, None, None]:
        """The blocks of `layers`. Each stands until the next is asked for.

        Raises:
            UserError: a tensor cannot be read, or holds what is no number.
        """
        free: SimpleQueue[Slot | None] = SimpleQueue()
        ready: SimpleQueue[Slot | BaseException] = SimpleQueue()
        for slot in self.slots:
            free.put(slot)
        reader = threading.Thread(target=self._read_ahead, args=(layers, free, ready), daemon=True)
        reader.start()
        try:
            for layer in layers:
                slot = self._next(ready)
                self.checkpoint.check_finite(layer, slot.block)
                yield slot.block
                if slot.events is not None:
                    slot.events.free.record()
                free.put(slot)
        finally:
            free.put(None)
            reader.join()

    def _next(self, ready: "SimpleQueue[Slot | BaseException]") -> Slot:
        begun = time.perf_counter()
        before = event(timing=True) if self.pinned is not None else None
        if before is not None:
            before.record()
        slot = ready.get()
        if isinstance(slot, BaseException):
            raise slot
        self.seconds += time.perf_counter() - begun
        if slot.events is not None and before is not None:
            slot.events.ready.wait()
            after = event(timing=True)
            after.record()
            self.waits.append((before, after))
        return slot

    def _read_ahead(self, layers: range, free: "SimpleQueue[Slot | None]", ready: "SimpleQueue[Slot | BaseException]") -> None:
        copies = stream(self.device) if self.pinned is not None else None
        try:
            if copies is not None:
                torch.cuda.set_device(self.device)
                copies.wait_stream(torch.cuda.default_stream(self.device))  # what used the slots' memory before is done with it
            for layer in layers:
                if self.pinned is not None and copies is not None:
                    copies.synchronize()  # the slab's last layer is on the GPU
                    self._read(layer, self.pinned)  # while every slot may still be in use
                slot = free.get()
                if slot is None:
                    return
                if slot.events is None:
                    self._read(layer, slot.slab)
                elif self.pinned is not None and copies is not None:
                    with torch.cuda.stream(copies):
                        slot.events.free.wait()
                        slot.slab.copy_(self.pinned, non_blocking=True)
                        slot.events.ready.record()
                ready.put(slot)
        except BaseException as mistake:  # it is raised where the block was asked for
            ready.put(mistake)
        finally:
            if copies is not None:
                copies.synchronize()  # before anything else uses the slots' memory

    def _read(self, layer: int, slab: Tensor) -> None:
        tensors = self.checkpoint.layer_tensors(layer)
        for name, view in self._views(slab).items():
            read_as(tensors[name], view, self.room, self.directly)

    def waited(self) -> float:
        """Seconds that computing stood still for want of weights, the first layer's included."""
        if not self.waits:
            return self.seconds
        torch.cuda.synchronize(self.device)
        milliseconds: float = sum(before.elapsed_time(after) for before, after in self.waits)
        return milliseconds / 1000


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
