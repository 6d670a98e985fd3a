"""Paths and names in settings: `~` at their beginning, and signs that hydra reads as its own.

Not every shell expands `~` in `out=~/x`, none does in `runs=[~/a,~/b]`; and hydra parses `ckpt=a b=(1),é.ckpt` before we see it.
"""

import re
from pathlib import Path
from typing import Any

from errors import UserError

PATHS = ("ckpt", "out", "untrained", "null", "scratch", "runs", "corpus.path", "corpus.store", "corpus.tokenizer")
TEXTS = ("name", "corpus.name", "corpus.text", "corpus.subset", "corpus.part", "wandb.project")  # names that are no paths
LISTS = ("runs", "censuses")
DOMAINS = "corpus.domains"
PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.:+%*@?|-]*$", re.ASCII)  # what hydra takes for a string and nothing else
OTHER = re.compile(r"(null|true|false|yes|no|on|off|inf|nan|\.\d.*)$", re.IGNORECASE)
QUOTES = "'\""
QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")$""")
ELEMENT = re.compile(r"""\s*'[^']*'|\s*"[^"]*"|[^,]+""")
ITEM = re.compile(r"""\s*('[^']*'|"[^"]*"|[^:,'"]+?)\s*:\s*('[^']*'|"[^"]*"|.*?)\s*(?:,(?=[^:,]+:)|$)""")


def quoted_paths(arguments: list[str]) -> list[str]:
    """The arguments of a program as hydra reads them: paths in quotes, domains as what is added to those of the YAML.

    With --multirun a comma separates values, and `choice(...)` lists them: such an argument is left as it is.
    """
    sweeps = any(argument in ("-m", "--multirun") for argument in arguments)
    return [_quoted(argument, sweeps) for argument in arguments]


def _quoted(argument: str, sweeps: bool) -> str:
    name, equals, value = argument.partition("=")
    bare = name.lstrip("+")
    if not equals or value in ("", "null") or QUOTED.match(value) or "${" in value:
        return argument
    if bare == DOMAINS and value.startswith("{") and value.endswith("}"):
        items = ", ".join(f"{key.strip(QUOTES)}: {_quotes(path)}" for key, path in ITEM.findall(value[1:-1]) if key)
        return f"++{DOMAINS}={{{items}}}"
    if bare.startswith(f"{DOMAINS}."):
        return f"++{bare}={_quotes(value)}"
    if bare in LISTS and value.startswith("[") and value.endswith("]"):
        return f"{name}=[{','.join(_quotes(path.strip()) for path in ELEMENT.findall(value[1:-1]))}]"
    if bare in PATHS + TEXTS and not (sweeps and re.search(r",|^\w+\(", value)):
        return f"{name}={_quotes(value)}"
    return argument


def _quotes(value: str) -> str:
    if QUOTED.match(value) or (PLAIN.match(value) and not OTHER.match(value)):
        return value
    escaped = re.sub(r"""(\\*)(['"]|$)""", lambda end: end[1] * 2 + (f"\\{end[2]}" if end[2] == "'" else end[2]), value)
    return f"'{escaped}'"


def expand_home(settings: Any, *names: str) -> None:
    """Make these settings (a path, a list or a dict of paths, or None) begin with the home folder where they begin with `~`."""
    for name in names:
        given = getattr(settings, name)
        if isinstance(given, dict):
            setattr(settings, name, {key: expanded(path) for key, path in given.items()})
        elif given:
            setattr(settings, name, [expanded(path) for path in given] if isinstance(given, list) else expanded(given))


def expanded(path: str) -> str:
    """The path with the home folder for its `~`. `UserError` where there is no such folder."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as mistake:
        raise UserError(f"{path} begins with a home folder that cannot be found: write the whole path.") from mistake
