"""A census' shape and where its parts lie -> how large each is, what that takes in all, and how much arithmetic there is."""

from dataclasses import dataclass

from analyze.budgets import Budgets
from models.config import OPTConfig

RESIDUALS = ("memory", "pinned", "file")  # memory: that of the device that computes
BITS = ("memory", "file")
PROGRAM = 300_000_000  # bytes of memory that the program itself takes; with a GPU `PROGRAM_WITH_GPU`
PROGRAM_WITH_GPU = 2_500_000_000
GPU_CONTEXT = 1_000_000_000  # bytes of a GPU that are never ours
INDEX = 96  # bytes of memory for every token: the corpus in the orders that counting needs
TALLIES = 3 * (136 * 4 + 256 * 4 + 101 * 8)  # bytes for every neuron
TABLE_SHARE = 0.1  # of (token, neuron) pairs that the table of tokens is taken to hold


@dataclass(frozen=True)
class Shape:
    """What is to be computed, as far as it takes room or time."""

    model: OPTConfig
    sequences: int
    positions: int
    micro: int  # sequences of a micro-batch
    itemsize: int  # bytes of a number
    walked: int  # layers, up to the last one that is counted
    counted: int  # layers
    gpu: bool
    domains: int = 1
    processes: int = 1

    @property
    def batches(self) -> int:
        """Micro-batches."""
        return -(-self.sequences // self.micro)

    @property
    def tokens(self) -> int:
        """Positions, those of sequences that only fill up included."""
        return self.batches * self.micro * self.positions

    @property
    def layer(self) -> int:
        """Bytes of a layer's weights."""
        m = self.model
        return (4 * m.width * m.width + 2 * m.width * m.neurons + 9 * m.width + m.neurons) * self.itemsize

    @property
    def bits(self) -> int:
        """Bytes of a layer's firing bits."""
        return self.tokens * 8 * -(-self.model.neurons // 64)

    @property
    def residuals(self) -> int:
        """Bytes of all residual streams."""
        return self.tokens * self.model.width * self.itemsize

    @property
    def counts(self) -> int:
        """Bytes of a layer's counts, about: the table of tokens depends on how often neurons fire."""
        n = self.model.neurons
        tokens = min(self.tokens, self.model.vocab_size)
        return n * (4 * self.domains * self.positions + TALLIES) + int(8 * TABLE_SHARE * tokens * n)

    @property
    def working(self) -> int:
        """Bytes that a micro-batch takes while it goes through a block: pre-activations, about eight times the stream, and bits."""
        m, rows = self.model, self.micro * self.positions
        packing = 4 + self.itemsize if self.gpu else 0
        return rows * (8 * m.width * self.itemsize + m.neurons * (self.itemsize + packing))

    @property
    def ends(self) -> int:
        """Bytes of embeddings, in the memory of the device before the first layer."""
        m = self.model
        return (m.vocab_size * m.token_width + m.context * m.width) * self.itemsize

    @property
    def projecting(self) -> int:
        """Bytes that projecting a layer onto the vocabulary takes, in float32, after the walk."""
        m = self.model
        return 4 * (m.vocab_size * m.token_width + m.width * m.neurons + 5 * 256 * m.vocab_size)

    @property
    def operations(self) -> int:
        """Floating-point operations of the walk: two for every weight and token, and attention over half the positions."""
        m = self.model
        weights = 4 * m.width * m.width + 2 * m.width * m.neurons
        return self.tokens * self.walked * (2 * weights + 2 * m.width * self.positions)


@dataclass(frozen=True)
class Use:
    """Something that takes room."""

    what: str
    where: str  # a field of `Budgets`
    size: int


@dataclass(frozen=True)
class Plan:
    """Where everything lies."""

    shape: Shape
    residuals: str  # one of RESIDUALS
    bits: str  # one of BITS
    slots: int  # layers of weights on the device at once
    rooms: int = 1  # bit matrices in memory; 2: one layer is counted while the next is computed
    on_gpu: bool = False  # bits also stay on the GPU, and are counted there

    def uses(self) -> list[Use]:
        """Everything that takes room while layers are walked."""
        s, here = self.shape, "gpu" if self.shape.gpu else "memory"
        of_pass = s.residuals
        per_process = s.processes if here == "memory" else 1
        found = [Use("residual streams", *self._residuals(of_pass, here))]
        found.append(
            Use(f"weights, {self.slots} of {s.walked} layers at once", here, per_process * max(self.slots * s.layer, s.ends))
        )
        if s.gpu:
            found.append(Use("the next layer, pinned", "memory", s.processes * max(s.layer, s.ends)))
        if self.residuals == "pinned":
            found.append(Use("2 micro-batches on their way", "gpu", 2 * s.micro * s.positions * s.model.width * s.itemsize))
        found.append(Use("a micro-batch in work", here, per_process * s.working))
        of_layers = "2 layers" if self.rooms == 2 else "a layer"
        found.append(Use(f"firing bits of {of_layers}", "memory" if self.bits == "memory" else "disk", self.rooms * s.bits))
        found.append(Use("counts of a layer, about", "memory", 2 * s.counts))
        found.append(Use(f"counts of {s.counted} layers, about", "disk", s.counted * s.counts))
        found.append(Use("the corpus in order, and the program", "memory", INDEX * s.tokens + self._program()))
        return found

    def _program(self) -> int:
        return self.shape.processes * (PROGRAM_WITH_GPU if self.shape.gpu else PROGRAM)

    def _residuals(self, of_pass: int, here: str) -> tuple[str, int]:
        if self.residuals == "file":
            return "disk", 2 * of_pass
        if self.residuals == "pinned":
            return "memory", of_pass
        return here, -(-of_pass // self.shape.processes) if here == "gpu" else of_pass

    @property
    def needs(self) -> Budgets:
        """What it takes at its peak."""
        s = self.shape
        sums = {where: sum(use.size for use in self.uses() if use.where == where) for where in ("gpu", "memory", "disk")}
        after = INDEX * s.tokens + self._program() + s.projecting
        memory = max(sums["memory"], after)
        gpu = GPU_CONTEXT + max(sums["gpu"], s.projecting) if s.gpu else 0
        return Budgets(gpu, memory, sums["disk"])

    def fits(self, budgets: Budgets) -> bool:
        """Whether it does."""
        return not lacking(self.needs, budgets)


def lacking(needs: Budgets, budgets: Budgets) -> dict[str, float]:
    """Of what there is too little, and how many times as much it takes."""
    pairs = {where: (getattr(needs, where), getattr(budgets, where)) for where in vars(needs)}
    return {where: need / max(have, 1) for where, (need, have) in pairs.items() if need > have}
