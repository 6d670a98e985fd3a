"""A clean stop before a time limit: finish the step, write last.ckpt, and on SLURM ask for the job to be run again."""

import os
import signal
import subprocess
import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from rich.console import Console
from torch import distributed

from train.folder import last_good
from train.keeping import Keeping
from train.module import Training

WARNING = signal.SIGUSR1  # SLURM sends it before the end with `#SBATCH --signal=USR1@300`
MARGIN = 3  # times the longest step so far, its validation and writing included, are left before the time limit


class Stopping(L.Callback):
    """Stops after a step for which any rank was sent SIGUSR1, SIGTERM or Ctrl-C, or when `time_limit` is near; at once on a second Ctrl-C.

    Lightning's own handlers save wherever the signal finds them, on every rank by itself, and in a file that later wins over
    last.ckpt. Ours only make a note; after the step all ranks agree, by a message between processes that no GPU waits for.
    """

    def __init__(self, keeping: Keeping, console: Console, begun: float) -> None:
        self.keeping, self.console = keeping, console
        self._begun = begun  # when `time_limit` starts to count, by the monotonic clock
        self._step_begun = time.monotonic()
        self._longest = 0.0
        self._noted: signal.Signals | None = None
        self._group: Any = None

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Take the signals over from Lightning, which gives them back when it is done."""
        for number in (WARNING, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")
            # Lightning waits for the device before every step to ask whether a rank was sent SIGTERM; here that is known.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._step_begun = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Stop here, if any rank wants to."""
        now = time.monotonic()
        self._longest, self._step_begun = max(self._longest, now - self._step_begun), now
        limit = module.config.time_limit
        over = limit is not None and now - self._begun + MARGIN * self._longest > 3600 * limit
        requeue, stop = self._agreed(self._noted == WARNING or (over and self._noted is None), self._noted is not None or over)
        if not stop or trainer.global_step >= module.config.steps:
            return
        self.keeping.resumable(trainer, module)
        trainer.should_stop = True
        if trainer.is_global_zero:
            why = "the time limit" if self._noted is None else signal.Signals(self._noted).name
            said = f"stopped at step {trainer.global_step:,} ({why}); the same command goes on from there"
            self._say(said)
            if requeue and SLURMEnvironment.detect():
                self._requeue()

    def _requeue(self) -> None:
        try:
            subprocess.run(["scontrol", "requeue", _job()], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as mistake:  # a container without it, a job that may not be
            why = mistake.stderr.strip() if isinstance(mistake, subprocess.CalledProcessError) else str(mistake)
            self._say(f"SLURM did not take job {_job()} again ({why}): submit it again")

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Say what a Ctrl-C in the middle of something leaves; Lightning ends the process without a word."""
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            self._say(f"stopped at once. {last_good(self.keeping.run)}; the same command goes on.")

    @property
    def interrupted(self) -> bool:
        """Whether somebody at a terminal wants to be done with it."""
        return self._noted == signal.SIGINT

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self._noted = signal.Signals(number)

    def _agreed(self, *wishes: bool) -> list[bool]:
        """Each wish, if any rank has it."""
        if self._group is None:
            return list(wishes)
        counts = torch.tensor(wishes, dtype=torch.int32)
        distributed.all_reduce(counts, group=self._group)
        return [bool(count) for count in counts]

    def _say(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)


def _job() -> str:
    """The name SLURM knows this job by."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
