"""The ranks of a run, and what they tell each other without a GPU: what the first decides, and what any of them wants."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import lightning as L
import torch
from torch import distributed

from errors import MISTAKE
from signals import STOPPED, Stopped

PATIENCE = timedelta(days=30)  # until a rank that waits for the first gives up: a census of a large model takes hours
T = TypeVar("T")


class Together:
    """The processes of a run; on its own, this one."""

    def __init__(self, trainer: L.Trainer) -> None:
        self.first, self.world = trainer.is_global_zero, trainer.world_size
        self.group: Any = None
        if self.world > 1:
            trainer.strategy.setup_environment()  # Lightning would join the ranks in `fit` only; a second time it does nothing
            self.group = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def told(self, decide: Callable[[], T]) -> T:
        """What the first rank decides, or makes; the others wait for it, and end where it fails.

        Raises:
            Exception: what the first rank's raised, on it.
            SystemExit: on the others, with its exit code. Why is the first's to say.
        """
        if self.group is None:
            return decide()
        said: list[Any] = [None, MISTAKE]
        try:
            if self.first:
                said = [decide(), 0]
        except Stopped:
            said = [None, STOPPED]
            raise
        finally:
            distributed.broadcast_object_list(said, group=self.group)
        if said[1]:
            raise SystemExit(said[1])
        decided: T = said[0]
        return decided

    def most(self, *values: float) -> list[float]:
        """The greatest of each that any rank has."""
        if self.group is None:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.group)
        greatest: list[float] = found.tolist()
        return greatest
