"""A clean stop before a time limit: finish the step, write last.ckpt, and on SLURM ask for the job to be run again."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from rich.console import Console

from signals import ENDING, WARNINGS, Stopped, watched
from train.checkpointing import Keeping
from train.folder import last_good
from train.module import Training
from train.ranks import Together

EVERY = 1.0  # seconds between two agreements of the ranks, about: a message at every step would be felt where there are many
MARGIN = 3  # times the longest step so far, its validation and writing included, are left before the time limit
OVER = signal.NSIG  # the time limit is near: no signal has this number


class GaveWay(BaseException):
    """What is done beside training is left undone, for a signal has come."""


class Stopping(L.Callback):
    """Stops after a step for which any rank was sent SIGTERM, Ctrl-C or a warning, or when `time_limit` is near.

    A second SIGTERM or Ctrl-C ends the process at once, see signals.py. SLURM sends a warning before the end with
    `#SBATCH --signal=USR1@300`.

    Lightning's own handlers save wherever the signal finds them, on every rank by itself, and in a file that later wins over
    last.ckpt. Ours only make a note; about once a second all ranks agree after the same step, by a message between processes that
    no GPU waits for.
    """

    def __init__(self, keeping: Keeping, together: Together, console: Console, begun: float) -> None:
        self.keeping, self.together, self.console = keeping, together, console
        self.stopped = False  # before the last step, or before what is due at it
        self._gives_way = False  # what is done right now
        self._begun = begun  # when `time_limit` starts to count, by the monotonic clock
        self._step_begun = time.monotonic()
        self._longest = 0.0
        self._noted: signal.Signals | None = None
        self._agreed_at, self._agreed_after = self._step_begun, 0  # when ranks last agreed, and after which step
        self._next = 0  # the step after which they agree again, the same for all

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Take the signals over from Lightning, which gives them back when it is done."""
        for number in (*ENDING, *WARNINGS):
            signal.signal(number, self._note)
        if trainer.world_size > 1:
            # Lightning waits for the device before every step to ask whether a rank was sent SIGTERM; here that is known.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._agreed_at = self._step_begun = time.monotonic()
        self._agreed_after, self._next = trainer.global_step, trainer.global_step + 1

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Stop here, if any rank wants to."""
        now = time.monotonic()
        self._longest, self._step_begun = max(self._longest, now - self._step_begun), now
        if trainer.global_step < self._next:
            return
        requeue, stop = self._agreed(trainer.global_step, now, module.config.time_limit)
        if not stop or trainer.global_step >= module.config.steps:
            return
        self.keeping.resumable(trainer, module)
        trainer.should_stop = self.stopped = True
        if trainer.is_global_zero:
            why = signal.Signals(stop).name if stop in set(signal.Signals) else "the time limit"
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
        """Say what a stop in the middle of something leaves."""
        if isinstance(exception, Stopped) and exception.why and trainer.is_global_zero:
            self._say(f"stopped at once ({exception.why}). {last_good(self.keeping.run)}; the same command goes on.")
            exception.why = ""

    def _note(self, number: int, _frame: Any) -> None:
        if self._noted is not None and number in ENDING and not watched():
            raise Stopped(f"a second {signal.Signals(number).name}")
        self._noted = self._noted or signal.Signals(number)
        if self._gives_way:
            self._gives_way = False
            raise GaveWay

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Do here what can be done at the next start as well, unless this rank is to stop.

        Raises:
            GaveWay: it is.
        """
        try:
            self._gives_way = self._noted is None
            if not self._gives_way:
                raise GaveWay
            yield
        except GaveWay:
            self.stopped = True
            raise
        finally:
            self._gives_way = False

    def _agreed(self, step: int, now: float, limit: float | None) -> tuple[bool, int]:
        """Whether to ask for the job again, and why to stop, each if any rank wants it; and when to agree again.

        Why is the number of a signal, or `OVER`; 0: nobody wants to.

        The slowest rank's time from step to step since the last agreement says how many make about a second.
        """
        until_next = EVERY if self.together.world > 1 else 0.0
        over = limit is not None and now - self._begun + MARGIN * self._longest + until_next > 3600 * limit
        again = self._noted in WARNINGS or (over and self._noted is None)
        pace = (now - self._agreed_at) / (step - self._agreed_after)
        requeue, stop, slowest = self.together.most(float(again), float(self._noted or (OVER if over else 0)), pace)
        self._agreed_at, self._agreed_after = now, step
        self._next = step + (max(1, int(EVERY / max(slowest, 1e-6))) if self.together.world > 1 else 1)
        return bool(requeue), round(stop)

    def _say(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)


def _job() -> str:
    """The name SLURM knows this job by."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
