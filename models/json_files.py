"""A JSON file of a checkpoint -> its object; what is no object, or says one thing twice, ends in a sentence."""

import json
from pathlib import Path
from typing import Any

from errors import UserError


def read_object(file: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        UserError: the file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as broken:
        reason = broken.strerror if isinstance(broken, OSError) else str(broken).splitlines()[0][:200]
        raise UserError(f"{file} cannot be read as JSON ({reason}); copy or download it again.") from None
    if not isinstance(entries, dict):
        raise UserError(f"{file} holds no JSON object; copy or download it again.")
    return entries


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where it gives a name two values."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise ValueError(f"it says {name!r} twice: {str(found[name])[:60]} and {str(value)[:60]}")
        found[name] = value
    return found


WORDS = {"int": "number of 0 or more", "str": "text", "dict": "object"}


def entry(entries: dict[str, Any], name: str, kind: type[Any], file: Path) -> Any:
    """An entry of this kind, or None where there is none. `UserError` for another kind, or a number below 0."""
    value = entries.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise UserError(f"{file}: {name}={str(value)[:40]} is no {WORDS[kind.__name__]}.")
    return value
