"""A mirror of a program's numbers on wandb, offline unless asked otherwise. Whatever happens to it never stops the program.

wandb only ever writes to disk here. With `mode=online` a second program sends what is written while it is being written; the first
never waits for it, nor for a network. Of wandb's variables in the environment those are followed that cannot mix two runs.
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
from hub_access import UNASKED

MODES = ("auto", "online", "offline", "disabled")
PROJECT = "neuron-census"
WANDB_MODES = {  # in WANDB_MODE -> ours
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "dryrun": "offline",  # as it was called
    "run": "online",  # as it was called
    "shared": "online",  # all processes that log to a run are parts of it here
}
YES, NO = ("1", "true", "yes", "on", "t", "y"), ("0", "false", "no", "off", "f", "n")
# Which run this is: its folder knows. What the environment of a later command says would mix it with another.
OF_A_RUN = ["RUN_ID", "RESUME", "RESUME_FROM", "FORK_FROM", "NAME", "RUN_NAME", "RUN_GROUP", "DIR", "ROOT_DIR", "SWEEP_ID"]
DECIDED = ["MODE", "DISABLED", "PROJECT", "SILENT", "QUIET", "CONSOLE", "REINIT", "CONFIG", "CONFIG_PATHS", "SERVICE", "LAUNCH"]
HIDDEN = [f"WANDB_{name}" for name in OF_A_RUN + DECIDED]  # from wandb; SERVICE is that of another program
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

    mode: str = "auto"  # auto | online | offline | disabled; auto: that of WANDB_MODE or WANDB_DISABLED, offline without them
    project: str | None = None  # null: that of WANDB_PROJECT, neuron-census without it

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"wandb.mode={self.mode!r} must be one of {', '.join(MODES)}.")


def decided(config: WandbConfig, console: Console) -> WandbConfig:
    """The settings with nothing left open: what is given, then the environment, then the default. What the environment decides is said.

    Raises:
        UserError: WANDB_MODE or WANDB_DISABLED is left to decide, and holds nonsense.
    """
    mode, by = mode_of_environment() if config.mode == "auto" else (config.mode, "")
    project = config.project or os.environ.get("WANDB_PROJECT") or PROJECT
    notes = [f"wandb.mode={mode}, by {by} of the environment"] if by else []
    if mode != "disabled" and project not in (config.project, PROJECT):
        notes.append(f"wandb.project={project}, by WANDB_PROJECT of the environment")
    if mode != "disabled" and (others := [f"WANDB_{name}" for name in OF_A_RUN if os.environ.get(f"WANDB_{name}")]):
        notes.append(f"wandb does not follow {', '.join(others)} of the environment: a run folder has its own id, name and group")
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return WandbConfig(mode, project)


def mode_of_environment() -> tuple[str, str]:
    """The mode that the environment asks for, and the variable that does; offline, and nothing, where none does.

    Raises:
        UserError: WANDB_MODE or WANDB_DISABLED holds nonsense.
    """
    asked, disabled = (os.environ.get(name, "").strip() for name in ("WANDB_MODE", "WANDB_DISABLED"))
    way_out = "of the environment must be {}; correct it, or unset it."
    if disabled and disabled.lower() not in YES + NO:
        raise UserError(f"WANDB_DISABLED={disabled!r} {way_out.format('true or false')}")
    if asked and asked.lower() not in WANDB_MODES:
        raise UserError(f"WANDB_MODE={asked!r} {way_out.format('one of ' + ', '.join(WANDB_MODES))}")
    if disabled.lower() in YES:
        return "disabled", f"WANDB_DISABLED={disabled}"
    return (WANDB_MODES[asked.lower()], f"WANDB_MODE={asked}") if asked else ("offline", "")


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
        assert config.mode != "auto", "decided() comes first"
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
        with _environment_of_wandb():
            self._begin(config, name, group, settings)
        for axis in AXES:
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric=AXES[0])
        if config.mode == "online":
            self._send(Path(self._run.settings.sync_dir))

    def _begin(self, config: WandbConfig, name: str, group: str, settings: dict[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", sagemaker_disable=True)  # SageMaker would make an id of its own
        with _a_second_of_its_own(self.folder, run_id(self.folder)) as known:
            where: Any = {"project": config.project, "name": name, "group": without_seed(group), "dir": self.folder}
            told = settings | {"variant": without_seed(group)}
            self._run = wandb.init(
                **where, mode="offline", id=known, resume="allow", config=told, settings=quiet, reinit="create_new"
            )

    def _send(self, part: Path) -> None:
        command = [sys.executable, "-m", "wandb", "beta", "sync", "--live", str(part)]
        here, self._line = os.pipe()
        with (self.folder / "wandb" / "sending.log").open("ab") as log, os.fdopen(here) as line:
            shell, grace = ["sh", "-c", SENDING, "sh", *command], environment_of_wandb() | {"GRACE": str(GRACE)}
            subprocess.run(shell, stdin=line, stdout=log, stderr=log, env=grace, start_new_session=True, check=True)

    def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as trouble:  # wandb's own errors, a full disk: the program goes on without it
            why = " ".join(str(trouble).split("[type=")[0].split())[:200]  # of pydantic's several lines what is wrong
            self.console.print(f"wandb is left out from here on: {why}", style="yellow", markup=False, soft_wrap=True)
            self._run = None


def environment_of_wandb() -> dict[str, str]:
    """What a process of wandb's finds in its environment."""
    return UNASKED | {name: value for name, value in os.environ.items() if name not in HIDDEN}


@contextmanager
def _environment_of_wandb() -> Iterator[None]:
    """wandb takes settings, also of what it sends of itself, from the environment when it is first set up, whatever `init` is told."""
    kept = {name: os.environ.pop(name) for name in HIDDEN if name in os.environ}
    os.environ["WANDB_MODE"] = "offline"
    try:
        yield
    finally:
        del os.environ["WANDB_MODE"]
        os.environ |= kept


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
