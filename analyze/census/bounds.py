"""A plan -> how long a layer keeps each part of the machine busy, and which of them bounds the walk."""

from dataclasses import dataclass

from analyze.census.memory_plan import Plan

# What is assumed of a machine until it is measured there; docs/performance.md has the formulas.
OF_PEAK = 0.4  # of a GPU's peak arithmetic that a layer's products reach
DISK = 2e9  # bytes a second
PCIE = 20e9  # bytes a second between pinned memory and a GPU
COPYING = 8e9  # bytes a second that one thread copies from pinned memory into the bit matrix
NETWORK = 1e9  # bytes a second that a process sends to the others
GPU_MEMORY = 2e12  # bytes a second that a GPU reads of its own memory, row by row
PASSES = 4  # over a layer's bits on a GPU: by place, and by common unigrams, bigrams and trigrams
PER_BIT = 2 * 0.095 / (131_072 * 3072)  # core-seconds of counting for a token and neuron: docs/LOG.md, 125m's shape on 2 cores
LEFT_ON_HOST = 0.75  # of counting, where a GPU takes its part: rare n-grams and tables


@dataclass(frozen=True)
class Load:
    """What a layer asks of a part of the machine."""

    of: str
    what: str
    seconds: float
    beside: bool = True  # beside everything else; otherwise all else waits


def loads(plan: Plan, cores: int, flops: float) -> list[Load]:
    """What one layer asks of what one process has: so many cores, and `flops` operations a second; and of what all share."""
    s = plan.shape
    computing, moved, bits = ("GPU" if s.gpu else "CPU"), 2 * s.share * s.batch_residuals, s.share * s.batch_bits
    found = [Load(computing, "arithmetic", s.operations / s.walked / s.processes / flops)]
    if s.gpu:
        found.append(Load("PCIe", "weights", s.layer / PCIE, plan.slots > 1))
        found.append(Load("PCIe", "firing bits", bits / PCIE))
        found.append(Load("the thread that copies", "firing bits", bits / COPYING))
        if plan.residuals != "memory":
            found.append(Load("PCIe", "residual streams", moved / PCIE))
    found.append(Load("disk", "weights", s.local * s.layer / DISK, plan.slots > 1 or s.gpu))
    if plan.residuals == "file":
        found.append(Load("disk", "residual streams", s.local * moved / DISK))
    if plan.bits == "file":
        found.append(Load("disk", "firing bits", 2 * s.local * s.bits / DISK))
    found.append(Load("disk", "counts", s.counts / DISK))
    if s.processes > 1:
        found.append(Load("network", "firing bits", bits * (s.processes - 1) / s.processes / NETWORK))
    return [*found, *_counting(plan, cores)]


def _counting(plan: Plan, cores: int) -> list[Load]:
    s, on_cores = plan.shape, f"{cores} core{'s' if cores > 1 else ''}"
    seconds = 8 * s.bits * PER_BIT / cores
    if not plan.on_gpu:
        return [Load(on_cores, "counting", seconds, plan.rooms > 1)]
    there = Load("GPU", "counting", PASSES * s.bits / GPU_MEMORY)
    return [there, Load(on_cores, "counting the rest", LEFT_ON_HOST * seconds, plan.rooms > 1)]


def busy(found: list[Load]) -> dict[str, float]:
    """Seconds that a layer keeps each part of the machine busy, the busiest first."""
    sums: dict[str, float] = {}
    for load in found:
        sums[load.of] = sums.get(load.of, 0.0) + load.seconds
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def layer_seconds(found: list[Load]) -> float:
    """Seconds of a layer: as long as its busiest part works beside the others, and what all wait for."""
    beside = busy([load for load in found if load.beside])
    return max(beside.values()) + sum(load.seconds for load in found if not load.beside)


def waiting(found: list[Load]) -> float:
    """Share of a layer's time in which no arithmetic is done."""
    arithmetic = sum(load.seconds for load in found if load.what == "arithmetic")
    return 1 - arithmetic / layer_seconds(found)
