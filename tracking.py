"""A mirror of a program's numbers on wandb, offline unless asked otherwise. Whatever happens to it never stops the program.

wandb only ever writes to disk here. With `mode=online` a second program sends what is written while it is being written; the first
never waits for it, nor for a network.
"""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from errors import UserError

MODES = ("offline", "online", "disabled")
AXES = ("step", "tokens")  # ours, in every row; wandb's own counter says nothing
GRACE = 60  # seconds that the sender may go on after the program has ended
# In the background: starts the sender, reads until the program closes its end of the line or dies, and ends the sender after a while.
SENDING = """exec 3<&0
{ "$@" 3<&- & sender=$!; cat <&3 > /dev/null
  for second in $(seq $GRACE); do kill -0 $sender 2> /dev/null || exit 0; sleep 1; done
  kill $sender 2> /dev/null; } < /dev/null &"""


@dataclass
class WandbConfig:
    """Where the mirror stands."""

    mode: str = "offline"  # offline | online | disabled
    project: str = "neuron-census"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"wandb.mode={self.mode!r} is none of {', '.join(MODES)}.")


def run_id(run: Path) -> str:
    """The id by which wandb knows a training run: made once, kept in `RUN/wandb/id`, shared by all that is logged of it."""
    file = run / "wandb" / "id"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        known = stream.read().strip()
        if not known:
            known = uuid4().hex[:8]
            stream.write(known + "\n")
    return known


def without_seed(name: str) -> str:
    """A run's name without its seed: what runs of one variant have in common; "baseline" where the seed is all of it."""
    return re.sub(r"[-_]?seed[-_=]?\d+", "", name).strip("-_") or "baseline"


class Mirror:
    """A part of a wandb run whose every metric is drawn against our own `step`; silent, and gone after its first trouble.

    All mirrors of one `folder` are parts of one run: of a training run that was resumed, and of the censuses taken of it later.
    """

    def __init__(
        self, config: WandbConfig, folder: Path, name: str, group: str, settings: dict[str, Any], console: Console
    ) -> None:
        self.console, self.folder = console, folder
        self._run: Any = None
        self._line: int | None = None  # open while the program lives; the sender listens at the other end
        if config.mode != "disabled":
            self._guarded(lambda: self._open(config, name, group, settings))

    def log(self, values: dict[str, Any]) -> None:
        """Send one row; `step` is among the values."""
        if self._run is not None:
            self._guarded(lambda: self._run.log(values))

    def images(self, files: list[Path], place: dict[str, Any], prefix: str = "figures") -> None:
        """Send figures under their file names; `place` is where on the axes."""
        if self._run is not None and files:
            self._guarded(lambda: self._run.log({f"{prefix}/{file.stem}": _image(file) for file in files} | place))

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]], place: dict[str, Any]) -> None:
        """Send a table."""
        if self._run is not None and rows:
            self._guarded(lambda: self._run.log({name: _table(columns, rows)} | place))

    def close(self) -> None:
        """Finish; what is not sent yet, the sender sends for a while."""
        if self._run is not None:
            self._guarded(lambda: self._run.finish())
        if self._line is not None:
            os.close(self._line)
            left = f"wandb sends what is left for up to {GRACE} s; `wandb beta sync {self.folder / 'wandb'}` sends what then is missing"
            self.console.print(left, markup=False, highlight=False, soft_wrap=True)
        self._run = self._line = None

    def _open(self, config: WandbConfig, name: str, group: str, settings: dict[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off")
        with _a_second_of_its_own(self.folder, run_id(self.folder)) as known:
            where: Any = {"project": config.project, "name": name, "group": without_seed(group), "dir": self.folder}
            told = settings | {"variant": without_seed(group)}
            self._run = wandb.init(
                **where, mode="offline", id=known, resume="allow", config=told, settings=quiet, reinit="create_new"
            )
        for axis in AXES:
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric=AXES[0])
        if config.mode == "online":
            self._send(Path(self._run.settings.sync_dir))

    def _send(self, part: Path) -> None:
        command = [sys.executable, "-m", "wandb", "beta", "sync", "--live", str(part)]
        here, self._line = os.pipe()
        with (self.folder / "wandb" / "sending.log").open("ab") as log, os.fdopen(here) as line:
            shell, grace = ["sh", "-c", SENDING, "sh", *command], os.environ | {"GRACE": str(GRACE)}
            subprocess.run(shell, stdin=line, stdout=log, stderr=log, env=grace, start_new_session=True, check=True)

    def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as trouble:  # wandb's own errors, a full disk: the program goes on without it
            self.console.print(f"wandb is left out from here on: {trouble}", style="yellow", markup=False)
            self._run = None


@contextmanager
def _a_second_of_its_own(folder: Path, known: str) -> Iterator[str]:
    """wandb names its folders by second and id, so two parts of a run must not begin in the same second."""
    with (folder / "wandb" / "id").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while list((folder / "wandb").glob(f"*run-{time.strftime('%Y%m%d_%H%M%S')}-{known}")):
            time.sleep(0.05)
        yield known


def _image(file: Path) -> Any:
    import wandb

    return wandb.Image(str(file))


def _table(columns: Sequence[str], rows: list[list[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=rows)
