"""Statistics of firings, a file each: a module of this folder that has a `RECORDER` adds its columns to neurons.parquet.

docs/extending.md adds one.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from analyze.counts.recorder import Recorder


@cache
def recorders() -> tuple[Recorder, ...]:
    """All of them, by the names of their files."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return tuple(module.RECORDER for module in modules)
