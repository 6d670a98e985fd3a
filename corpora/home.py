"""Paths in settings that begin with `~`: not every shell expands them in `out=~/x`, and none does in `runs=[~/a,~/b]`."""

import re
from pathlib import Path
from typing import Any


def quoted_home(arguments: list[str]) -> list[str]:
    """The arguments of a program with such paths in quotes, without which hydra does not read them."""
    return [re.sub(r"(?<=[=\[,:])(~[^,\]}]*)", r"'\1'", argument) for argument in arguments]


def expand_home(settings: Any, *names: str) -> None:
    """Make these settings, each a path, a list of paths or None, begin with the home folder where they begin with `~`."""
    for name in names:
        given = getattr(settings, name)
        setattr(settings, name, [_expanded(path) for path in given] if isinstance(given, list) else given and _expanded(given))


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path
