"""Damage to files of every kind, drawn by seed, and what the steps make of it that trust them.

A step that trusts a damaged file ends in a sentence that names it, or gives the numbers of the whole folder.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import UserError

Numbers = list[object]
Step = Callable[[Path], Numbers]
FOUND, HARMLESS = "named", "harmless"


@dataclass
class Trusted:
    """A folder that is whole, and the steps that trust its files; each gives the numbers that it makes of them."""

    name: str
    folder: Path
    steps: dict[str, Step]

    def files(self) -> list[Path]:
        """All files, within the folder."""
        return sorted(file.relative_to(self.folder) for file in self.folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Outcome:
    """What came of a damage to a file at one step."""

    of: str  # name of the folder
    kind: str  # of the file
    damage: str
    step: str
    found: str  # named | harmless, or what went wrong


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """One bit is another."""
    at = int(rng.integers(len(content)))
    return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """The end is gone."""
    return content[: int(rng.integers(1, len(content)))] if len(content) > 1 else b""


def swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Four bytes have changed places with four others."""
    a, b = sorted(rng.integers(0, len(content), 2).tolist())
    b = max(b, a + 4)
    return content[:a] + content[b : b + 4] + content[a + 4 : b] + content[a : a + 4] + content[b + 4 :]


def another(content: bytes, rng: np.random.Generator) -> bytes:
    """A number of the text, or a byte, is another."""
    digits = [found.start() for found in re.finditer(rb"[0-9]", content)]
    at = int(rng.choice(digits)) if digits else int(rng.integers(len(content)))
    value = b"%d" % ((int(content[at : at + 1]) + int(rng.integers(1, 10))) % 10) if digits else bytes([content[at] ^ 255])
    return content[:at] + value + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes | None]] = {
    "a flipped bit": flipped,
    "a cut": cut,
    "swapped bytes": swapped,
    "another value": another,
    "more bytes": lambda content, rng: content + rng.bytes(int(rng.integers(1, 20))),
    "emptied": lambda *_: b"",
    "removed": lambda *_: None,
}


def kind_of(file: Path) -> str:
    """Files that differ by a number are of one kind; figures are too."""
    return "figures/*" if "figures" in file.parts else re.sub(r"\d+", "N", str(file))


def outcomes(trusted: Sequence[Trusted], many: int, seed: int) -> Iterator[Outcome]:
    """Do `many` damages, over the folders and their kinds of files in turn, and undo each."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as room:
        kept, whole, kinds = {}, {}, []
        for one in trusted:
            kept[one.name] = Path(shutil.copytree(one.folder, Path(room) / one.name, symlinks=True))
            for name, step in one.steps.items():
                whole[one.name, name] = step(one.folder)
                _restore(one, kept[one.name])
            kinds += [(one, kind) for kind in sorted({kind_of(file) for file in one.files()})]
        order = [pair for _ in range(-(-many // len(kinds))) for pair in (kinds[i] for i in rng.permutation(len(kinds)))]
        for one, kind in order[:many]:
            file = rng.choice([str(file) for file in one.files() if kind_of(file) == kind])
            damage = str(rng.choice(list(DAMAGES)))
            content = (one.folder / file).read_bytes()
            changed = DAMAGES[damage](content, rng) if content else b"\0"
            for name, step in one.steps.items():
                _put(one.folder / file, changed)
                found = HARMLESS if changed == content else _outcome(one, step, one.folder / file, whole[one.name, name])
                yield Outcome(one.name, kind, damage, name, found)
                _restore(one, kept[one.name])


def _put(file: Path, content: bytes | None) -> None:
    file.unlink()  # files of several names are damaged under one
    if content is not None:
        file.write_bytes(content)


def _restore(one: Trusted, kept: Path) -> None:
    shutil.rmtree(one.folder)
    shutil.copytree(kept, one.folder, symlinks=True)


def _outcome(one: Trusted, step: Step, file: Path, whole: Numbers) -> str:
    try:
        return HARMLESS if step(one.folder) == whole else "OTHER NUMBERS"
    except UserError as mistake:
        return FOUND if _named(file, str(mistake)) else f"NOT NAMED: {mistake}"
    except BaseException as mistake:
        if isinstance(mistake, KeyboardInterrupt):
            raise
        return f"TRACEBACK: {type(mistake).__name__}: {mistake}"


def _named(file: Path, sentence: str) -> bool:
    """Whether it names the file, or its folder and the file; a store's manifest may be named as the store."""
    is_named = file.name in sentence or file.name == "manifest.json"
    return str(file) in sentence or (is_named and str(file.parent) in sentence)


def report(found: Sequence[Outcome]) -> str:
    """A line for every kind of file: damages at each step, how many ended in a sentence and how many changed nothing; then the rest."""
    counts = Counter((o.of, o.kind, o.found if o.found in (FOUND, HARMLESS) else "wrong") for o in found)
    kinds = sorted({(o.of, o.kind) for o in found})
    lines = [f"{'folder':16} {'kind of file':42} named harmless wrong"]
    lines += [
        f"{of:16} {kind:42} {counts[of, kind, FOUND]:5} {counts[of, kind, HARMLESS]:8} {counts[of, kind, 'wrong']:5}"
        for of, kind in kinds
    ]
    sums = (sum(n for key, n in counts.items() if key[2] == what) for what in (FOUND, HARMLESS, "wrong"))
    lines.append("{:59} {:5} {:8} {:5}".format("all", *sums))
    return "\n".join(lines + [f"{o.of} {o.kind}, {o.damage}, at {o.step}: {o.found}" for o in wrong(found)])


def wrong(found: Sequence[Outcome]) -> list[Outcome]:
    """Those that are neither a sentence that names the file nor the same numbers."""
    return [o for o in found if o.found not in (FOUND, HARMLESS)]
