"""A census' shape and budgets -> the plan that is sooner done than any other that fits; or what would make one fit."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from analyze.budgets import Budgets
from analyze.plan import Plan, Shape, lacking
from analyze.scratch import GB
from errors import UserError

PASSES = 64  # most passes that are tried


def candidates(shape: Shape, residuals: str = "auto", passes: int | None = None, bits: str = "auto") -> Iterator[Plan]:
    """Every plan there is, those that are sooner done first; where something is asked for, only plans that have it.

    On a GPU more passes come before files: they read the weights again, but move each residual stream over the disk never.
    On a CPU, which is slow, files come before passes: they take less room, and a kill costs less.
    """
    memory = ("memory", "pinned") if shape.gpu else ("memory",)
    one, more = [1], range(2, min(PASSES, shape.batches) + 1)
    in_passes = product(more, memory)
    in_files = product(one, ("file",))
    ways = [*product(one, memory), *(in_passes if shape.gpu else in_files), *(in_files if shape.gpu else in_passes)]
    if passes is not None:
        ways = [(passes, where) for where in (*memory, "file") if passes == 1 or where != "file"]
    for number, where in ways:
        if residuals in ("auto", where):
            for slots, (room, rooms) in product((2, 1), _rooms(shape, where, number)):
                if bits in ("auto", room):
                    yield Plan(shape, where, room, number, slots, rooms)


def _rooms(shape: Shape, residuals: str, passes: int) -> list[tuple[str, int]]:
    """Where bits may lie, and how many layers' at once.

    While a GPU walks, the CPU has time to count the layer before. Residual streams in files are ahead of the counts then: not with them.
    """
    both = [("memory", 2)] if shape.gpu and residuals != "file" else []
    return [*both, ("memory", 1), ("file", 1)] if passes == 1 else [("file", 1)]


def plan(
    shape: Shape, budgets: Budgets, has: Budgets, residuals: str = "auto", passes: int | None = None, bits: str = "auto"
) -> Plan:
    """The first plan that fits into the budgets.

    Raises:
        UserError: none does; names the smallest change after which one does, on a machine that `has` so much.
    """
    possible = list(candidates(shape, residuals, passes, bits))
    if not possible:
        raise UserError(
            f"residuals={residuals}, passes={passes} and bits={bits} do not go together: several passes keep residual streams in "
            f"memory and bits in files, pinned memory is for a GPU, and there are {shape.batches} micro-batches."
        )
    for candidate in possible:
        if candidate.fits(budgets):
            return candidate
    raise UserError(f"{_shortage(possible[0], budgets)}. {_smallest_change(shape, budgets, has, residuals, passes, bits)}")


OPTIONS = {"gpu": "gpu_memory", "memory": "host_memory"}
WORDS = {"gpu": "GPU memory", "memory": "memory", "disk": "disk"}


def _shortage(wanted: Plan, budgets: Budgets) -> str:
    short = [
        f"{_gb(getattr(wanted.needs, where))} of {WORDS[where]} where {_gb(getattr(budgets, where))} may be taken"
        for where in lacking(wanted.needs, budgets)
    ]
    return f"The census of {wanted.shape.sequences * wanted.shape.positions:,} tokens needs {' and '.join(short)}"


def _smallest_change(shape: Shape, budgets: Budgets, has: Budgets, residuals: str, passes: int | None, bits: str) -> str:
    """One setting, or one kind of room, that makes it fit; of several the one that changes least."""
    changes: list[tuple[float, str]] = []
    for candidate in candidates(shape, residuals, passes, bits):
        short = lacking(candidate.needs, budgets)
        if len(short) == 1:
            ((where, times),) = short.items()
            need = getattr(candidate.needs, where)
            if where == "disk":
                changes.append((times, f"make {_gb(need)} of room in scratch=, or choose another"))
            elif need <= getattr(has, where):
                changes.append((times, f"{OPTIONS[where]}={need / GB + 0.005:.2f}"))
    if shape.micro > 1 and _any(replace(shape, micro=1), budgets, residuals, passes, bits):
        changes.append((1.0, "micro=1"))
    if fewer := _most_sequences(shape, budgets, residuals, passes, bits):
        changes.append((shape.sequences / fewer, f"tokens={fewer * shape.positions}"))
    if not changes:
        return "No single setting makes it fit: it takes a larger machine, or a smaller model."
    return f"The smallest change that makes it fit: {min(changes)[1]}."


def _any(shape: Shape, budgets: Budgets, residuals: str, passes: int | None, bits: str) -> bool:
    return any(candidate.fits(budgets) for candidate in candidates(shape, residuals, passes, bits))


def _most_sequences(shape: Shape, budgets: Budgets, residuals: str, passes: int | None, bits: str) -> int:
    """The greatest number of sequences that fit; 0 if not even one does."""
    low, high = 0, shape.sequences
    while high - low > 1:
        middle = (low + high) // 2
        fits = _any(replace(shape, sequences=middle), budgets, residuals, passes, bits)
        low, high = (middle, high) if fits else (low, middle)
    return low


def _gb(size: int) -> str:
    return f"{size / GB:.2f} GB"
