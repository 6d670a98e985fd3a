"""A census' shape and where its parts lie -> how large each is, and what that takes in all."""

from dataclasses import dataclass
from functools import cached_property

import torch

from analyze.firing.device_sums import chunk_bytes, device_bytes
from analyze.firing.packing import bytes_for
from analyze.forward.residual_store import slabs_for
from analyze.forward.weight_prefetch import layer_bytes
from analyze.machine import Budgets
from device import CPU, CUDA
from models.config import OPTConfig
from models.opt import Block, Decoder
from models.unallocated import unallocated

RESIDUALS = ("memory", "pinned", "file")  # memory: that of the device that computes
BITS = ("memory", "file")
PROGRAM = 300_000_000  # bytes of memory that a process itself takes; with a GPU `PROGRAM_WITH_GPU`
PROGRAM_WITH_GPU = 2_500_000_000
GPU_CONTEXT = 1_000_000_000  # bytes of a GPU that are never ours
INDEX = 96  # bytes of memory for every token: the corpus in the orders that counting needs
TALLIES = 3 * (136 * 4 + 256 * 4 + 101 * 8)  # bytes for every neuron
TABLE_SHARE = 0.1  # of (token, neuron) pairs that the table of tokens is taken to hold
MORE = {"relu": 0, "gelu": 1, "relu_squared": 2}  # tensors like the pre-activations that an activation makes; ReLU works in place


@dataclass(frozen=True)
class Shape:
    """What is to be computed, as far as it takes room or time."""

    model: OPTConfig
    sequences: int
    positions: int
    micro: int  # sequences of a micro-batch
    dtype: torch.dtype
    walked: int  # layers, up to the last one that is counted
    counted: int  # layers
    gpu: bool = False  # whether what computes has memory of its own, and takes from pinned memory
    triton: bool = False  # whether it can count
    domains: int = 1
    processes: int = 1
    local: int = 1  # processes of one machine, which share its memory, disk and cores

    @property
    def batches(self) -> int:
        """Micro-batches."""
        return -(-self.sequences // self.micro)

    @property
    def share(self) -> int:
        """Micro-batches that one process walks, at most."""
        return -(-self.batches // self.processes)

    @property
    def tokens(self) -> int:
        """Positions, those of sequences that only fill up included."""
        return self.batches * self.micro * self.positions

    @property
    def batch_tokens(self) -> int:
        """Positions of a micro-batch."""
        return self.micro * self.positions

    @cached_property
    def layer(self) -> int:
        """Bytes of the room for a layer's weights."""
        with unallocated():
            tensors = Block(self.model).state_dict().values()
        return layer_bytes((tensor.shape for tensor in tensors), self.dtype)

    @cached_property
    def ends(self) -> int:
        """Bytes of embeddings, in the memory of the device before the first layer."""
        with unallocated():
            tensors = Decoder(self.model, blocks=0).state_dict().values()
        return self.dtype.itemsize * sum(int(tensor.numel()) for tensor in tensors)

    @property
    def batch_residuals(self) -> int:
        """Bytes of a micro-batch's residual streams."""
        return self.batch_tokens * self.model.width * self.dtype.itemsize

    @property
    def batch_bits(self) -> int:
        """Bytes of a micro-batch's firing bits."""
        return self.batch_tokens * bytes_for(self.model.neurons)

    @property
    def bits(self) -> int:
        """Bytes of a layer's firing bits that one process counts: of all neurons, or of its share of them for all tokens."""
        words = bytes_for(self.model.neurons) // 8
        return self.tokens * 8 * -(-words // self.processes)

    @property
    def counts(self) -> int:
        """Bytes of a layer's counts, about: the table of tokens depends on how often neurons fire."""
        n = self.model.neurons
        tokens = min(self.tokens, self.model.vocab_size)
        return n * (4 * self.domains * self.positions + TALLIES) + int(8 * TABLE_SHARE * tokens * n)

    @property
    def working(self) -> int:
        """Bytes that a micro-batch takes while it goes through a block: the most of attention, activation, packing and checking."""
        m, half, stream = self.model, self.dtype.itemsize == 2, self.batch_residuals
        pre = self.batch_tokens * m.neurons * self.dtype.itemsize
        turned = {False: 1, True: 5}[half] if m.positions == "rotary" else 0  # computed in float32
        pairs = m.heads * self.positions**2 if m.positions == "alibi" else 0
        bias = pairs * self.dtype.itemsize  # kept for all layers
        attention = max((7 + turned) * stream + bias, 5 * stream + pairs * (10 if half else 8))  # made in float32
        ffn = bias + 4 * stream + (1 + MORE[m.activation]) * pre
        packing = bias + stream + pre + (self.batch_tokens * m.neurons if self.gpu and not self.triton else 0)
        checking = bias + stream + pre + (2 * pre if half and not self.gpu else 0)  # the last layer's are added up in float32
        return max(attention, ffn, packing, checking) + 8 * self.batch_tokens  # a LayerNorm's means and deviations

    @property
    def projecting(self) -> int:
        """Bytes that projecting a layer onto the vocabulary takes, in float32, after the walk."""
        m = self.model
        matrices = 1 if m.tied else 2  # embedding and unembedding
        return 4 * (matrices * m.vocab_size * m.token_width + m.width * m.neurons + 5 * 256 * m.vocab_size)

    @property
    def operations(self) -> int:
        """Floating-point operations of the walk: two for every weight and token, and attention over half the positions."""
        m = self.model
        weights = 4 * m.width * m.width + 2 * m.width * m.neurons
        return self.tokens * self.walked * (2 * weights + 2 * m.width * self.positions)

    def pinned(self, size: int) -> int:
        """Bytes of memory that `size` bytes take beside the device."""
        return CUDA.pinned_size(size) if self.gpu else CPU.pinned_size(size)


@dataclass(frozen=True)
class Use:
    """Something that takes room."""

    what: str
    where: str  # a field of `Budgets`
    size: int
    times: int = 1  # as many processes of this machine take it there


@dataclass(frozen=True)
class Plan:
    """Where everything lies."""

    shape: Shape
    residuals: str  # one of RESIDUALS
    bits: str  # one of BITS
    slots: int  # layers of weights on the device at once
    rooms: int = 1  # bit matrices; 2: one layer is counted while the next is walked
    on_gpu: bool = False  # bits stay on the GPU too, and are counted there

    def uses(self) -> list[Use]:
        """Everything that takes room while layers are walked, of each process what it takes."""
        found = [*self._of_the_walk(), *self._of_bits()]
        s, each = self.shape, self.shape.local
        if s.processes > 1:
            found.append(Use("counts of a process' share of neurons, about", "memory", 2 * s.counts // s.processes, each))
        found.append(Use("counts of a layer, about", "memory", s.counts if s.processes > 1 else 2 * s.counts))
        found.append(Use(f"counts of {s.counted} layers, about", "disk", s.counted * s.counts))
        found.append(Use("the corpus in order", "memory", INDEX * s.tokens))
        found.append(Use("the program", "memory", PROGRAM_WITH_GPU if s.gpu else PROGRAM, each))
        return found

    def _of_the_walk(self) -> list[Use]:
        s, each = self.shape, self.shape.local
        here, on = ("gpu", 1) if s.gpu else ("memory", each)  # each process has a GPU of its own
        weights = max(self.slots * s.layer, s.ends)
        found = [
            self._residuals(here, on),
            Use(f"weights, {self.slots} of {s.walked} layers at once", here, weights, on),
            Use("a micro-batch in work", here, s.working, on),
        ]
        if s.gpu:
            found.append(Use("the next layer, pinned", "memory", max(s.pinned(s.layer), s.ends), each))
            found.append(Use("2 micro-batches' firing bits on their way", "gpu", 2 * s.batch_bits))
            found.append(Use("2 micro-batches' firing bits on their way, pinned", "memory", 2 * s.pinned(s.batch_bits), each))
            if self.residuals != "memory":
                found.append(Use("2 micro-batches' residual streams on their way", "gpu", 2 * s.batch_residuals))
            if self.residuals == "file":
                found.append(
                    Use("4 micro-batches' residual streams on their way, pinned", "memory", 4 * s.pinned(s.batch_residuals), each)
                )
        return found

    def _residuals(self, here: str, on: int) -> Use:
        s = self.shape
        size = s.share * s.batch_residuals
        if self.residuals == "pinned":
            slabs = slabs_for(s.share, s.batch_residuals)
            return Use("residual streams, pinned", "memory", sum(s.pinned(slab) for slab, _ in slabs), s.local)
        if self.residuals == "file":
            return Use("residual streams, before and after a layer", "disk", 2 * size, s.local)
        return Use("residual streams", here, size, on)

    def _of_bits(self) -> list[Use]:
        s, each = self.shape, self.shape.local
        where, of_layers = "memory" if self.bits == "memory" else "disk", "2 layers" if self.rooms == 2 else "a layer"
        of = ", of a process' share of neurons" if s.processes > 1 else ""
        found = [Use(f"firing bits of {of_layers}{of}", where, self.rooms * s.bits, each)]
        if s.processes > 1:
            found.append(Use("firing bits of a process' micro-batches", where, s.share * s.batch_bits, each))
        if self.on_gpu:
            found.append(Use(f"firing bits of {of_layers} to be counted there{of}", "gpu", self.rooms * s.bits))
            found.append(Use("counting", "gpu", device_bytes(s.tokens, s.domains * s.positions, s.model.neurons)))
            found.append(Use("counts, pinned, two buffers", "memory", 2 * s.pinned(chunk_bytes(s.model.neurons)), each))
        return found

    @property
    def needs(self) -> Budgets:
        """What it takes at its peak: of every GPU, and of a machine's memory and disk by all of its processes."""
        s, uses = self.shape, self.uses()
        gpu, memory, disk = (sum(use.size * use.times for use in uses if use.where == where) for where in vars(Budgets(0, 0, 0)))
        after = INDEX * s.tokens + s.local * (PROGRAM_WITH_GPU if s.gpu else PROGRAM) + s.projecting
        return Budgets(GPU_CONTEXT + max(gpu, s.projecting) if s.gpu else 0, max(memory, after), disk)

    def fits(self, budgets: Budgets) -> bool:
        """Whether it does."""
        return not lacking(self.needs, budgets)


def lacking(needs: Budgets, budgets: Budgets) -> list[str]:
    """Of what there is too little."""
    return [where for where in vars(needs) if getattr(needs, where) > getattr(budgets, where)]
