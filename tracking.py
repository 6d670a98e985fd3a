"""A mirror of a program's numbers on wandb, offline unless asked otherwise. Whatever happens to it never stops the program."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from errors import UserError

MODES = ("offline", "online", "disabled")


@dataclass
class WandbConfig:
    """Where the mirror stands."""

    mode: str = "offline"  # offline | online | disabled
    project: str = "neuron-census"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"wandb.mode={self.mode!r} is none of {', '.join(MODES)}.")


class Mirror:
    """A wandb run whose every metric is drawn against our own `step`; silent, and gone after its first trouble."""

    def __init__(
        self, config: WandbConfig, folder: Path, name: str, group: str, settings: dict[str, Any], console: Console
    ) -> None:
        self.console = console
        self._run: Any = None
        if config.mode != "disabled":
            self._guarded(lambda: self._open(config, folder, name, group, settings))

    def log(self, values: dict[str, Any]) -> None:
        """Send one row; `step` is among the values."""
        if self._run is not None:
            self._guarded(lambda: self._run.log(values))

    def images(self, files: list[Path], step: int | None) -> None:
        """Send figures under their file names."""
        if self._run is not None and files:
            self._guarded(lambda: self._run.log({f"figures/{file.stem}": _image(file) for file in files} | {"step": step or 0}))

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._guarded(lambda: self._run.finish())

    def _open(self, config: WandbConfig, folder: Path, name: str, group: str, settings: dict[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, init_timeout=30)
        where: Any = {"project": config.project, "name": name, "group": group, "dir": folder, "mode": config.mode}
        self._run = wandb.init(**where, config=settings, settings=quiet)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as trouble:  # wandb's own errors, a broken network, a full disk: the program goes on without it
            self.console.print(f"wandb is left out from here on: {trouble}", style="yellow", markup=False)
            self._run = None


def _image(file: Path) -> Any:
    import wandb

    return wandb.Image(str(file))
