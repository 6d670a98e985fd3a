"""A model's shapes without its memory: modules built here are on `meta`, and nothing is drawn for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWN = {nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}  # by nn.Embedding and nn.Linear


class _Undrawn(TorchFunctionMode):
    """torch draws numbers on `meta` by code that brings in its compiler, about a second of imports."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in DRAWN:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **kwargs or {})


@contextmanager
def unallocated() -> Iterator[None]:
    """Build modules for their shapes alone."""
    with torch.device("meta"), _Undrawn():
        yield
