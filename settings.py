"""Settings of any program -> refused by their full name where no machine can follow them: NaN, infinity, names that are no names."""

import math
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from checksums import read_lines
from errors import UserError, no_setting
from locks import LOCK

C = TypeVar("C")

AT_ONCE = max(64, 4 * (os.cpu_count() or 1))  # threads or processes; more only stand in each other's way, until none can be made
MOST = {"threads": AT_ONCE, "batch.workers": AT_ONCE, "corpus.workers": AT_ONCE, "live.tokens": 2**31, "time_limit": 1e6}
FOLDERS = ("out", "scratch", "runs", "corpus.store")  # that a program writes into
LONGEST_PART = 255  # bytes of one part of a path, as file systems have it
LONGEST_PATH = 3000  # letters of a whole one
LONGEST_NAME = 150  # bytes; files made from a name are longer than it


def configuration(composed: DictConfig, kind: type[C]) -> C:
    """What hydra composed, as plain dataclasses: from here on no hydra.

    Raises:
        UserError: a setting is out of range; or is none, and was added with a `+`.
    """
    config = OmegaConf.to_object(composed)
    assert isinstance(config, kind)
    known = setting_names(kind)
    for name in _added(config):
        raise UserError(no_setting(name, known))
    return config


def setting_names(kind: type[Any], prefix: str = "") -> list[str]:
    """Full names of all settings of a configuration, and of its parts."""
    names: list[str] = []
    for name, of in get_type_hints(kind).items():
        names += [
            f"{prefix}{name}",
            *(setting_names(of, f"{prefix}{name}.") if is_dataclass(of) and isinstance(of, type) else []),
        ]
    return names


def written_settings(file: Path) -> dict[str, Any]:
    """The settings in a config.yaml that a program of ours wrote; those never hold aliases, of which a few lines can unfold for ever.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    try:
        text = read_lines(file)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise UserError(f"{file} holds aliases, which no program here writes; copy it again.")
        found = OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as broken:
        if isinstance(broken, UserError):
            raise
        reason = (str(broken) or type(broken).__name__).splitlines()[0]
        raise UserError(
            f"{file} cannot be read as settings ({reason}); copy it again, or remove it: then its run is a variant of its own."
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no settings; copy it again.")
    return {str(name): value for name, value in found.items()}


def _added(config: Any, prefix: str = "") -> list[str]:
    """Names of what a configuration has beside its settings."""
    known = [field.name for field in fields(config)]
    found = [f"{prefix}{name}" for name in vars(config) if name not in known]
    parts = [(name, part) for name in known if is_dataclass(part := getattr(config, name))]
    return found + [name for at, part in parts for name in _added(part, f"{prefix}{at}.")]


def check_settings(config: Any) -> None:
    """Look at every setting of a configuration, those of its parts too.

    Raises:
        UserError: a number is not finite, or absurd; a text or a name is none for a file system; a folder is a file.
    """
    check_name("name", getattr(config, "name", ""))
    for name, value in settings_of(config):
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(name, value)
        elif isinstance(value, list):
            _check_list(name, value)
        elif isinstance(value, str):
            _check_text(name, value)


def settings_of(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Full name and value of every setting."""
    named = (
        config.items() if isinstance(config, dict) else [(field.name, getattr(config, field.name)) for field in fields(config)]
    )
    found: list[tuple[str, Any]] = []
    for name, value in named:
        inner = is_dataclass(value) or isinstance(value, dict)
        found += settings_of(value, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", value)]
    return found


def check_name(setting: str, name: str) -> None:
    """`UserError` for a name whose folder would not lie where it is to lie, or cannot be made. Empty is none yet."""
    parts = name.split("/")
    if name and ("\0" in name or any(part in ("", ".", "..") for part in parts)):
        raise UserError(f"{setting}={name[:60]!r} would leave the folder that it is to name; give a name like baseline-1.")
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(f"{setting}={name[:30]}... has {len(name)} letters; give it {LONGEST_NAME} bytes at most.")


def check_new_folder(out: Path, or_empty: bool = False) -> None:
    """`UserError` where a program cannot make a folder: something is there, if only an empty folder, or its name is none."""
    _check_text("folder", str(out))
    try:
        if or_empty and out.is_dir() and all(LOCK.fullmatch(file.name) for file in out.iterdir()):
            return
        there = out.exists() or out.is_symlink()
    except OSError as trouble:
        raise UserError(f"{out} cannot be looked into ({trouble.strerror}); choose another folder.") from None
    if there:
        raise UserError(f"{out} exists already{' and is not empty' if or_empty else ''}; choose another folder.")
    if not next(above for above in out.absolute().parents if above.exists()).is_dir():
        raise UserError(f"{out} would lie in a file; choose another folder.")


def _check_number(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UserError(f"{name}={value} must be a finite number.")
    if abs(value) >= 2**63 and isinstance(value, int):
        raise UserError(f"{name}={str(value)[:40]} must be below 2^63.")
    if value > (most := MOST.get(name, math.inf)):
        raise UserError(f"{name}={value} must be at most {most:,.0f}.")


def _check_list(name: str, values: list[Any]) -> None:
    if wrong := [value for value in values if isinstance(value, int) and not 0 <= value < 2**63]:
        raise UserError(f"{name}={values} holds {wrong[0]}; its numbers must be 0 or more, and below 2^63.")
    for value in values:
        if isinstance(value, str):
            _check_text(name, value)


def _check_text(name: str, text: str) -> None:
    try:
        parts = [part.encode() for part in text.split("/")]
    except UnicodeEncodeError:
        raise UserError(f"{name}={text!r} is no text in UTF-8; rename what it names, as convmv does.") from None
    if "\0" in text or max(map(len, parts)) > LONGEST_PART or len(text) > LONGEST_PATH:
        raise UserError(
            f"{name}={text[:30]!r}... is no path: a part of it is longer than {LONGEST_PART} bytes, or holds a zero byte."
        )
    if name in FOLDERS and Path(text).is_file():
        raise UserError(f"{name}={text} is a file; give a folder.")
