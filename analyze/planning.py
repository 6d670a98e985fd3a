"""A census' shape and budgets -> the plan that is sooner done than any other that fits; or what would make one fit."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from analyze.budgets import Budgets
from analyze.plan import Plan, Shape, lacking
from analyze.scratch import GB
from errors import UserError


def candidates(shape: Shape, residuals: str = "auto", bits: str = "auto") -> Iterator[Plan]:
    """Every plan there is, those that are sooner done first; where something is asked for, only plans that have it."""
    for where in ("memory", "pinned", "file") if shape.gpu else ("memory", "file"):
        if residuals in ("auto", where):
            for slots, (room, rooms) in product((2, 1), _rooms(shape, where)):
                if bits in ("auto", room):
                    yield Plan(shape, where, room, slots, rooms)


def _rooms(shape: Shape, residuals: str) -> list[tuple[str, int]]:
    """Where bits may lie, and how many layers' at once.

    While a GPU computes, the CPU has time to count the layer before. Residual streams in files are ahead of the counts then: not with them.
    """
    both = [("memory", 2)] if shape.gpu and residuals != "file" else []
    return [*both, ("memory", 1), ("file", 1)]


def plan(shape: Shape, budgets: Budgets, has: Budgets, residuals: str = "auto", bits: str = "auto") -> Plan:
    """The first plan that fits into the budgets.

    Raises:
        UserError: none does; names the smallest change after which one does, on a machine that `has` so much.
    """
    possible = list(candidates(shape, residuals, bits))
    if not possible:
        raise UserError(
            f"residuals={residuals}, and bits={bits} do not go together: "
            f"pinned memory is for a GPU, and there are {shape.batches} micro-batches."
        )
    for candidate in possible:
        if candidate.fits(budgets):
            return candidate
    raise UserError(f"{_shortage(possible[0], budgets)}. {_smallest_change(shape, budgets, has, residuals, bits)}")


OPTIONS = {"gpu": "gpu_memory", "memory": "host_memory"}
WORDS = {"gpu": "GPU memory", "memory": "memory", "disk": "disk"}


def _shortage(wanted: Plan, budgets: Budgets) -> str:
    short = [
        f"{_gb(getattr(wanted.needs, where))} of {WORDS[where]} where {_gb(getattr(budgets, where))} may be taken"
        for where in lacking(wanted.needs, budgets)
    ]
    return f"The census of {wanted.shape.sequences * wanted.shape.positions:,} tokens needs {' and '.join(short)}"


def _smallest_change(shape: Shape, budgets: Budgets, has: Budgets, residuals: str, bits: str) -> str:
    """One setting, or one kind of room, that makes it fit; of several the one that changes least."""
    changes: list[tuple[float, str]] = []
    for candidate in candidates(shape, residuals, bits):
        short = lacking(candidate.needs, budgets)
        if len(short) == 1:
            ((where, times),) = short.items()
            need = getattr(candidate.needs, where)
            if where == "disk":
                changes.append((times, f"make {_gb(need)} of room in scratch=, or choose another"))
            elif need <= getattr(has, where):
                changes.append((times, f"{OPTIONS[where]}={need / GB + 0.005:.2f}"))
    if shape.micro > 1 and _any(replace(shape, micro=1), budgets, residuals, bits):
        changes.append((1.0, "micro=1"))
    if fewer := _most_sequences(shape, budgets, residuals, bits):
        changes.append((shape.sequences / fewer, f"tokens={fewer * shape.positions}"))
    if not changes:
        return "No single setting makes it fit: it takes a larger machine, or a smaller model."
    return f"The smallest change that makes it fit: {min(changes)[1]}."


def _any(shape: Shape, budgets: Budgets, residuals: str, bits: str) -> bool:
    return any(candidate.fits(budgets) for candidate in candidates(shape, residuals, bits))


def _most_sequences(shape: Shape, budgets: Budgets, residuals: str, bits: str) -> int:
    """The greatest number of sequences that fit; 0 if not even one does."""
    low, high = 0, shape.sequences
    while high - low > 1:
        middle = (low + high) // 2
        fits = _any(replace(shape, sequences=middle), budgets, residuals, bits)
        low, high = (middle, high) if fits else (low, middle)
    return low


def _gb(size: int) -> str:
    return f"{size / GB:.2f} GB"
