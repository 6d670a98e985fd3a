"""What a run will take, said before its first step."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from train.data_order import Steps
from train.module import Training


class Plan(L.Callback):
    """Measures one micro-batch on the machine at hand and prints tokens, epochs, parameters, time and disk."""

    def __init__(self, steps: Steps, run: Path, console: Console) -> None:
        self.steps, self.run, self.console = steps, run, console
        self.start, self.seconds = 0, 0.0  # the step it begins at, and what it will take from there

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Print the plan. The trial leaves no trace: gradients are cleared, and dropout is seeded anew before every micro-step."""
        config, order = module.config, self.steps.order
        left = config.steps - trainer.global_step
        seconds = _micro_batch_seconds(trainer, module, self.steps.order.window(0)) * self.steps.micro_steps * left
        self.start, self.seconds = trainer.global_step, seconds
        parameters = sum(p.numel() for p in module.model.parameters())
        milestones = sum(step >= trainer.global_step for step in config.kept_steps)
        disk = 4 * parameters * milestones + 2 * 12 * parameters  # float32 weights; weights and two moments, old and new
        tokens = config.batch.tokens * config.steps
        rows = {
            "run": f"{self.run}  ({config.model.positions} positions, {config.model.norm}-LayerNorm, seed {config.seed})",
            "model": f"{config.model.layers} layers x {config.model.width} wide x {config.model.neurons} neurons, "
            f"{parameters / 1e6:,.1f}M parameters",
            "tokens": f"{config.steps:,} steps x {config.batch.tokens:,} = {tokens / 1e6:,.1f}M tokens",
            "epochs": f"{tokens / (order.per_epoch * order.length):.2f} of {order.split.n_tokens / 1e6:,.1f}M tokens",
            "batch": f"{self.steps.micro_steps} micro-steps x {self.steps.micro} sequences x {config.model.context} positions"
            f" x {self.steps.ranks} ranks",
            "machine": f"{module.device.type}, {trainer.precision}, {torch.get_num_threads()} threads",
            "resuming": f"at step {trainer.global_step:,}" if trainer.global_step else "no",
            "time": f"about {duration(seconds)} for {left:,} steps ({config.batch.tokens * left / seconds:,.0f} tokens/s measured)",
            "disk": f"about {disk / 1e9:.2f} GB: {milestones} milestones and the checkpoint to resume from",
        }
        if config.late_milestones:
            rows["milestones"] = config.late_milestones
        if cannot := config.model.inexpressible:
            rows["their format"] = f"transformers' OPT cannot open them, it has no {' and no '.join(cannot)}; the census can"
        table = Table("plan", "", show_header=False, box=None)
        for name, value in rows.items():
            table.add_row(name, value)
        if trainer.is_global_zero:
            self.console.print(table)


def _micro_batch_seconds(trainer: L.Trainer, module: Training, window: Any) -> float:
    ids = torch.from_numpy(window).to(module.device).expand(module.config.batch.micro, -1)
    for _ in range(2):  # the first pays for warming up
        begin = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            loss = module.loss(ids)
        loss.backward()  # type: ignore[no-untyped-call]
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    module.model.zero_grad(set_to_none=True)
    return seconds


def duration(seconds: float) -> str:
    """A length of time in the unit a person would choose."""
    for unit, length in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
