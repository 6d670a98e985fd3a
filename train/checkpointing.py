"""What a run leaves on disk while it goes: milestones, the checkpoint to resume from, lines of metrics."""

from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from xxhash import xxh3_128

from corpora.tokenizer import bos_id, open_tokenizer
from files import whole_file, write_whole
from models.checkpoint import save_checkpoint
from models.milestone import TOKENIZER
from models.seal import seal
from train.divergence import Watch
from train.folder import last_checkpoint, on_disk
from train.metrics import METRICS, Metrics
from train.module import Training
from train.ranks import Together
from train.throughput import Throughput
from train.validation import validation_loss


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written straight to disk, sealed, and under their name when whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write one."""
        with whole_file(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as trouble:  # what torch makes of a full disk
                raise OSError(str(trouble).splitlines()[0]) from trouble
            seal(file)


class Keeping(L.Callback):
    """After every optimizer step: log, validate, keep a milestone, write last.ckpt, each when its turn has come."""

    def __init__(
        self,
        run: Path,
        metrics: Metrics,
        windows: torch.Tensor,
        watch: Watch,
        throughput: Throughput,
        together: Together,
        console: Console,
    ) -> None:
        self.run, self.metrics, self.windows, self.watch, self.throughput = run, metrics, windows, watch, throughput
        self.together, self.console = together, console
        self.val_loss: float | None = None  # of the latest validation
        self._kept = 0  # the step of last.ckpt
        self.said = ""  # the latest line of metrics, for the progress bar

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Forget lines of steps that will be made again; keep the untrained model if asked."""
        if trainer.is_global_zero:
            with on_disk(self.run):
                lines = self.metrics.forget_after(trainer.global_step)
            if trainer.global_step and not lines:
                self._say(f"{self.metrics.file} has no line up to step {trainer.global_step:,}: it begins after it")
        if trainer.global_step == 0 and 0 in module.config.kept_steps:
            self.val_loss = validation_loss(module, self.windows)
            self._milestone(module)
        self._kept = trainer.global_step
        self.throughput.start(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Do what this step asks for."""
        config, step = module.config, trainer.global_step
        milestone = step in config.kept_steps
        validate = milestone or step % config.validation.every == 0 or step == config.steps
        if validate or step % config.log_every == 0 or step == 1:
            self._log(trainer, module, validate=validate)
        if milestone:
            self._milestone(module)
        if milestone or step % config.checkpoint_every == 0 or step == config.steps:
            self.resumable(trainer, module)

    def on_save_checkpoint(self, trainer: L.Trainer, module: Training, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Put beside the weights what the lines of metrics must be when a run goes on from them, and the tokenizer in a census."""
        checkpoint[METRICS] = self.metrics.kept()
        if trainer.is_global_zero:
            checkpoint[TOKENIZER] = xxh3_128(self._tokenizer).hexdigest()

    def resumable(self, trainer: L.Trainer, module: Training) -> None:
        """Write last.ckpt, unless it holds this step already; never a state that went wrong."""
        if self._kept == trainer.global_step:
            return
        self.watch.look(trainer, module)
        with self.throughput.paused(), on_disk(self.run):
            trainer.save_checkpoint(last_checkpoint(self.run))
        self._kept = trainer.global_step

    def _log(self, trainer: L.Trainer, module: Training, *, validate: bool) -> None:
        step = trainer.global_step
        loss, norm = self.watch.look(trainer, module)
        speed = self.throughput.measured(step)
        with self.throughput.paused():
            val_loss = self.val_loss = validation_loss(module, self.windows) if validate else None
            lr = module.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
            found = {"loss": loss, "val_loss": val_loss, "lr": lr, "grad_norm": norm}
            if trainer.is_global_zero:
                with on_disk(self.run):
                    self.metrics.log(step=step, tokens=step * module.config.batch.tokens, **found, **speed)
        self.said = f"loss {loss:.3f}  {speed['tokens_per_second']:,.0f} tokens/s"

    def _milestone(self, module: Training) -> None:
        with self.throughput.paused():
            self.together.told(lambda: self._write_milestone(module))

    def _write_milestone(self, module: Training) -> None:
        folder = self.run / "milestones" / f"step_{module.global_step:09d}"
        tokenizer = self.run / TOKENIZER
        with on_disk(self.run):
            if not tokenizer.is_file() or tokenizer.read_bytes() != self._tokenizer:
                write_whole(tokenizer, self._tokenizer)
                self._say(f"{tokenizer} was damaged, or gone; it is written again")
            bos = bos_id(open_tokenizer(str(tokenizer)))
            save_checkpoint(module.model, folder, module.state | {"val_loss": self.val_loss}, tokenizer, bos)
        self._say(f"milestone {folder}  validation loss {self.val_loss:.3f}")

    @cached_property
    def _tokenizer(self) -> bytes:
        """The run's own, as this start has written it: a file can be damaged while a run lasts."""
        return (self.run / TOKENIZER).read_bytes()

    def _say(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)
