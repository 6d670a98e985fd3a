"""A census' shape and budgets -> the plan that is sooner done than any other that fits; or what each would need."""

from dataclasses import replace

from analyze.census.memory_plan import Plan, Shape, lacking
from analyze.machine import GB, Budgets
from errors import UserError

# residual streams, bits, slots of weights, rooms for bits, counted on the GPU: what is sooner done comes first. Residual streams in
# files are ahead of the counts if one layer is counted beside the next, and a kill would lose that layer: one room with them.
ON_A_GPU = (
    ("memory", "memory", 2, 2, True),
    ("memory", "memory", 2, 2, False),
    ("pinned", "memory", 2, 2, True),
    ("pinned", "memory", 2, 2, False),
    ("memory", "memory", 2, 1, False),
    ("pinned", "memory", 2, 1, False),
    ("memory", "file", 2, 1, False),
    ("pinned", "file", 2, 1, False),
    ("file", "memory", 2, 1, False),
    ("file", "file", 2, 1, False),
    ("file", "file", 1, 1, False),
)
ON_A_CPU = (  # which has no cores to spare for counting one layer beside the next
    ("memory", "memory", 2, 1, False),
    ("memory", "file", 2, 1, False),
    ("memory", "memory", 1, 1, False),
    ("memory", "file", 1, 1, False),
    ("file", "memory", 2, 1, False),
    ("file", "file", 2, 1, False),
    ("file", "memory", 1, 1, False),
    ("file", "file", 1, 1, False),
)

ONLY_ON_A_GPU = "residuals=pinned is for a GPU; on a CPU take residuals=memory, file or auto."


def candidates(shape: Shape, residuals: str = "auto", bits: str = "auto") -> list[Plan]:
    """Every plan there is, those that are sooner done first; where something is asked for, only plans that have it."""
    plans = [Plan(shape, *layout) for layout in (ON_A_GPU if shape.gpu else ON_A_CPU)]
    asked = [plan for plan in plans if residuals in ("auto", plan.residuals) and bits in ("auto", plan.bits)]
    counts_there = shape.triton and shape.processes == 1  # of several, each has all rows of its neurons in main memory alone
    return [plan for plan in asked if counts_there or not plan.on_gpu]


def first_that_fits(shape: Shape, budgets: Budgets, residuals: str = "auto", bits: str = "auto") -> Plan:
    """The first plan that fits into the budgets.

    Raises:
        UserError: none does; shows what each needs, and names a change after which one fits.
    """
    possible = candidates(shape, residuals, bits)
    if not possible:
        raise UserError(ONLY_ON_A_GPU)
    for candidate in possible:
        if candidate.fits(budgets):
            return candidate
    tokens = f"{shape.sequences * shape.positions:,} tokens"
    raise UserError(
        f"The census of {tokens} does not fit. GB needed, and allowed:\n{_table(possible, budgets)}\n"
        f"{_change(shape, budgets, residuals, bits)}"
    )


def _table(possible: list[Plan], budgets: Budgets) -> str:
    """A row for each layout that needs less of something than those before it; `*`: more than is allowed."""
    lines = [f"  {'residual streams':18}{'bits':24}{'GPU':>9} {'memory':>9} {'disk':>9} "]
    least: list[Budgets] = []
    for candidate in possible:
        needs, short = candidate.needs, lacking(candidate.needs, budgets)
        if any(not lacking(before, needs) for before in least):
            continue
        least.append(needs)
        sizes = [f"{getattr(needs, where) / GB:9.2f}{'*' if where in short else ' '}" for where in vars(needs)]
        bits = f"{candidate.bits}, {candidate.rooms} of them{' and on the GPU' if candidate.on_gpu else ''}"
        lines.append(f"  {candidate.residuals:18}{candidate.bits if candidate.rooms == 1 else bits:24}{''.join(sizes)}")
    allowed = [f"{size / GB:9.2f} " for size in vars(budgets).values()]
    return "\n".join([*lines, f"  {'allowed':42}{''.join(allowed)}"])


def _change(shape: Shape, budgets: Budgets, residuals: str, bits: str) -> str:
    """The setting to change: smaller micro-batches if they are enough, else fewer tokens."""

    def fits(smaller: Shape) -> bool:
        return any(candidate.fits(budgets) for candidate in candidates(smaller, residuals, bits))

    if (residuals, bits) != ("auto", "auto") and any(candidate.fits(budgets) for candidate in candidates(shape)):
        return "With residuals=auto and bits=auto it fits."
    if shape.micro > 1 and fits(replace(shape, micro=1)):
        return "It fits with micro=1."
    low, high = 0, shape.sequences
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(replace(shape, sequences=middle)) else (low, middle)
    if low:
        return f"The most that fits: tokens={low * shape.positions}."
    return "Not even one sequence fits: it takes more room (gpu_memory=, host_memory=, scratch=) or a smaller model."
