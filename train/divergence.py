"""Losses and gradient norms of every step, fetched from the device only when something is written; trouble stops the run."""

import json
import math
from collections import deque
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from errors import UserError
from files import write_whole
from train.data_order import Steps
from train.folder import kept_step, last_good
from train.module import Training


class Watch(L.Callback):
    """Stops a run at the first step whose loss or gradient is not a number, or whose loss lies far above those before it.

    What it remembers is saved with the run, so that a resumed run stops where an uninterrupted one does.
    """

    def __init__(self, run: Path, steps: Steps) -> None:
        self.run, self.steps = run, steps
        self._recent: deque[float] = deque()  # losses
        self._latest = (math.nan, math.nan)
        self._waiting: list[tuple[int, Tensor, Tensor]] = []  # steps, losses and norms still on the device

    def state_dict(self) -> dict[str, Any]:
        """The losses that the next ones are compared with."""
        return {"recent": list(self._recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them again."""
        self._recent = deque(state_dict["recent"])

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Remember as many losses as are asked for."""
        self._recent = deque(self._recent, maxlen=module.config.watch.window)

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Keep what the step found, without waiting for the device."""
        self._waiting.append((trainer.global_step, outputs["loss"], outputs["grad_norm"]))

    def look(self, trainer: L.Trainer, module: Training) -> tuple[float, float]:
        """Loss, mean over ranks, and gradient norm of the latest step, after a look at every step since the last look.

        Raises:
            UserError: one of them is not a number, or a spike.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return self._latest
        found = torch.stack([torch.stack([loss.float(), norm.float()]) for _, loss, norm in waiting])
        if trainer.world_size > 1:
            found = trainer.strategy.reduce(found, reduce_op="mean")
        values = found.tolist()
        for (step, _, _), (loss, norm) in zip(waiting, values, strict=True):
            self._judge(trainer, module, step, loss, norm)
            self._recent.append(loss)
        self._latest = (values[-1][0], values[-1][1])
        return self._latest

    def _judge(self, trainer: L.Trainer, module: Training, step: int, loss: float, norm: float) -> None:
        watch = module.config.watch
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"The loss ({loss}) or its gradient ({norm}) at step {step} is not a number"
            advice = "a lower optimizer.learning_rate or a longer warm-up, under another name=..., may help"
        elif watch.spike is not None and len(self._recent) == watch.window and loss > self._mean() + watch.spike:
            what = (
                f"The loss at step {step} is {loss:.3f}, more than {watch.spike} above the {self._mean():.3f} of the steps before"
            )
            advice = "the same command with watch.spike=null goes on from there regardless"
        else:
            return
        documents = self.steps.documents(step - 1)
        if trainer.is_global_zero:
            self._report(step, loss, norm, documents)
        some = ", ".join(map(str, documents[:3])) + (f" and {len(documents) - 3} more" if len(documents) > 3 else "")
        raise UserError(
            f"{what}; its batch has the documents {some}, all named in {self.run / 'stopped.json'}. "
            f"{last_good(self.run)}; {advice}."
        )

    def _mean(self) -> float:
        return sum(self._recent) / len(self._recent)

    def _report(self, step: int, loss: float, norm: float, documents: list[int]) -> None:
        found = {
            "step": step,
            "loss": loss if math.isfinite(loss) else str(loss),
            "grad_norm": norm if math.isfinite(norm) else str(norm),
            "losses_before": list(self._recent),
            "last_good_step": kept_step(self.run),
            "split": "train",
            "documents": documents,
        }
        write_whole(self.run / "stopped.json", json.dumps(found, indent=1) + "\n")
