"""A bar with steps, loss, tokens per second and time left."""

from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from train.checkpointing import Keeping
from train.module import Training


class Bar(L.Callback):
    """Drawn on a terminal only; elsewhere milestones and metrics.jsonl tell how far it is."""

    def __init__(self, console: Console, keeping: Keeping) -> None:
        self.keeping = keeping
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Begin at the step the run resumes from."""
        name, steps = module.config.name, module.config.steps
        self.task = self.progress.add_task(name, total=steps, completed=trainer.global_step, found="")
        self.progress.start()

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """One step further."""
        self.progress.update(self.task, completed=trainer.global_step, found=self.keeping.said)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self.progress.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """The same after an error, where Lightning calls no teardown."""
        self.progress.stop()
