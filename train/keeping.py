"""What a run leaves on disk while it goes: milestones, the checkpoint to resume from, lines of metrics."""

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console

from errors import UserError
from models.checkpoint import save_checkpoint
from train.metrics import Metrics
from train.module import Training
from train.validation import validation_loss


def last_checkpoint(run: Path) -> Path:
    """The file a run resumes from."""
    return run / "checkpoints" / "last.ckpt"


class Keeping(L.Callback):
    """After every optimizer step: log, validate, keep a milestone, write last.ckpt, each when its turn has come."""

    def __init__(self, run: Path, metrics: Metrics, windows: torch.Tensor, console: Console) -> None:
        self.run, self.metrics, self.windows, self.console = run, metrics, windows, console
        self.val_loss: float | None = None  # of the latest validation
        self.said = ""  # the latest line of metrics, for the progress bar
        self._clock = (time.perf_counter(), 0)  # when, and at which step, the last line was logged

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Forget lines of steps that will be made again; keep the untrained model if asked."""
        self.metrics.forget_after(trainer.global_step)
        self._clock = (time.perf_counter(), trainer.global_step)
        if trainer.global_step == 0 and 0 in module.config.milestones:
            self._milestone(trainer, module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Do what this step asks for."""
        config, step = module.config, trainer.global_step
        milestone = step in config.milestones
        validate = milestone or step % config.validation.every == 0 or step == config.steps
        if validate or step % config.log_every == 0 or step == 1:
            self._log(trainer, module, outputs, validate=validate)
        if milestone:
            self._milestone(trainer, module)
        if milestone or step % config.checkpoint_every == 0 or step == config.steps:
            self._resumable(trainer)

    def _log(self, trainer: L.Trainer, module: Training, outputs: Any, *, validate: bool) -> None:
        step, tokens = trainer.global_step, trainer.global_step * module.config.batch.tokens
        loss, norm = float(outputs["loss"]), float(outputs["grad_norm"])
        if loss != loss or norm != norm:
            raise UserError(
                f"The loss at step {step} is not a number. The last good state is {last_checkpoint(self.run)}; "
                "a lower optimizer.learning_rate or a longer warm-up may help."
            )
        then, at = self._clock
        rate = (step - at) * module.config.batch.tokens / max(time.perf_counter() - then, 1e-9)
        val_loss = self.val_loss = self._validate(trainer, module) if validate else None
        lr = module.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        if trainer.is_global_zero:
            found = {"loss": loss, "val_loss": val_loss, "lr": lr, "grad_norm": norm, "tokens_per_second": round(rate, 1)}
            self.metrics.log(step=step, tokens=tokens, **found)
        self.said = f"loss {loss:.3f}  {rate:,.0f} tokens/s"
        self._clock = (time.perf_counter(), step)

    def _validate(self, trainer: L.Trainer, module: Training) -> float:
        with trainer.precision_plugin.forward_context():
            return validation_loss(module.model, self.windows, module.config.batch.micro, module.device)

    def _milestone(self, trainer: L.Trainer, module: Training) -> None:
        if trainer.is_global_zero:
            step = trainer.global_step
            val_loss = self._validate(trainer, module) if step == 0 else self.val_loss
            state = {"step": step, "tokens": step * module.config.batch.tokens, "val_loss": val_loss, "name": module.config.name}
            tokenizer = self.run / "tokenizer.json"
            folder = self.run / "milestones" / f"step_{step:09d}"
            save_checkpoint(module.model, folder, state, tokenizer if tokenizer.is_file() else None)
            self.console.print(
                f"milestone {folder}  validation loss {val_loss:.3f}", markup=False, highlight=False, soft_wrap=True
            )
        trainer.strategy.barrier()

    def _resumable(self, trainer: L.Trainer) -> None:
        file = last_checkpoint(self.run)
        partial = file.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(file)
        trainer.strategy.barrier()
