"""How kernels become machine code, and how they use all cores."""

import ast
import hashlib
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numpy.typing import ArrayLike

import analyze

ANALYZE = Path(analyze.__path__[0])


def kernel_files() -> list[Path]:
    """The files whose code is compiled into kernels: those that define some, or the instructions or constants of some."""
    files = [file for file in ANALYZE.rglob("*.py") if re.search(rb"^@(compiled|intrinsic)$", file.read_bytes(), re.M)]
    return sorted({*files, *(source for file in files for source in _sources_of_constants(file))})


def _sources_of_constants(file: Path) -> list[Path]:
    """The files of analyze/ that it imports constants from."""
    imports = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
    modules = [str(node.module) for node in imports if any(alias.name.isupper() for alias in node.names)]
    return [ANALYZE.parent / (name.replace(".", "/") + ".py") for name in modules if name.startswith(f"{ANALYZE.name}.")]


settings: Any = numba.config
if not settings.CACHE_DIR:  # numba itself would not see that a kernel of another file, compiled into this one, has changed
    kernels = b"".join(file.read_bytes() for file in kernel_files())
    settings.CACHE_DIR = str(ANALYZE / "__pycache__" / f"kernels-{hashlib.sha256(kernels).hexdigest()[:12]}")

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
TASKS_PER_CORE = 4  # so that a core that was held up does not hold up the others


def compiled(kernel: F) -> F:
    """Compile with numba, once per machine (kept in `__pycache__`). Kernels run without the interpreter's lock."""
    plain = inspect.unwrap(kernel)  # tests wrap every function with a check of shapes
    return cast(F, numba.njit(nogil=True, cache=True)(plain))


def on_all_cores(work: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> list[R]:
    """Do every task, as many at once as torch uses cores; results in the order of tasks."""
    threads = torch.get_num_threads()
    results: dict[int, R] = {}
    waiting = iter(enumerate(tasks))  # one for all threads: each takes the next task when it is free

    def take() -> None:
        for number, task in waiting:
            results[number] = work(*task)

    alone = threads < 2 or not getattr(work, "signatures", True)  # the first time it compiles, in one thread
    others = [] if alone else [_cores(threads).submit(take) for _ in range(min(threads, len(tasks)) - 1)]
    take()
    for other in others:
        other.result()
    return [results[number] for number in range(len(tasks))]


@cache
def _cores(threads: int) -> ThreadPoolExecutor:
    """Threads beside the one that asks, kept, since they are asked for after every micro-batch."""
    return ThreadPoolExecutor(threads - 1)


def shares(weights: ArrayLike, most: int | None = None) -> list[tuple[int, int]]:
    """Cut `range(len(weights))` into neighbouring shares of about equal weight, some per core."""
    ends = np.cumsum(weights)
    if not len(ends):
        return []
    pieces = min(most or TASKS_PER_CORE * torch.get_num_threads(), len(ends))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, pieces) / pieces, side="right")
    bounds = np.unique(np.concatenate([[0], cuts, [len(ends)]])).tolist()
    return list(itertools.pairwise(bounds))
