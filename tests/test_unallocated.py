"""Modules for their shapes alone: those of a model with memory, and no number drawn."""

from typing import Any

import pytest
import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from models.config import OPTConfig
from models.opt import OPT
from models.unallocated import unallocated


class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of what torch computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("variant", [{}, {"norm": "post", "embed_dim": 16}, {"tied": False, "positions": "none"}], ids=str)
def test_shapes_are_a_model_s_and_nothing_is_drawn(variant: dict[str, Any]) -> None:
    config = OPTConfig(**(tiny.SHAPE | variant))
    with Seen() as seen, unallocated():
        found = OPT(config).state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in OPT(config).state_dict().items()}
    assert all(tensor.is_meta for tensor in found.values())
    assert "empty" in seen.names and not [name for name in seen.names if "normal" in name or "uniform" in name], seen.names
