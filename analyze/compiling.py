"""How kernels become machine code, and how they use all cores."""

import hashlib
import inspect
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numpy.typing import ArrayLike

HERE = Path(__file__).parent
settings: Any = numba.config
if not settings.CACHE_DIR:  # numba itself would not see that a kernel of another file, compiled into this one, has changed
    kernels = b"".join(file.read_bytes() for file in sorted(HERE.glob("*.py")) if b"@compiled" in file.read_bytes())
    settings.CACHE_DIR = str(HERE / "__pycache__" / f"kernels-{hashlib.sha256(kernels).hexdigest()[:12]}")

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
TASKS_PER_CORE = 4  # so that a core that was held up does not hold up the others


def compiled(kernel: F) -> F:
    """Compile with numba, once per machine (kept in `__pycache__`). Kernels run without the interpreter's lock."""
    plain = inspect.unwrap(kernel)  # tests wrap every function with a check of shapes
    return cast(F, numba.njit(nogil=True, cache=True)(plain))


def on_all_cores(work: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> list[R]:
    """Do every task, as many at once as torch uses cores; results in the order of tasks."""
    alone = (
        len(tasks) if torch.get_num_threads() < 2 else int(not getattr(work, "signatures", True))
    )  # 1: compile, in this thread
    done = [work(*task) for task in tasks[:alone]]
    if not tasks[alone:]:
        return done
    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        return done + list(cores.map(lambda task: work(*task), tasks[alone:]))


def shares(weights: ArrayLike, most: int | None = None) -> list[tuple[int, int]]:
    """Cut `range(len(weights))` into neighbouring shares of about equal weight, some per core."""
    ends = np.cumsum(weights)
    if not len(ends):
        return []
    pieces = min(most or TASKS_PER_CORE * torch.get_num_threads(), len(ends))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, pieces) / pieces, side="right")
    bounds = np.unique(np.concatenate([[0], cuts, [len(ends)]])).tolist()
    return list(itertools.pairwise(bounds))
