"""Arrays <-> one safetensors file that carries the checksum of all its other bytes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from xxhash import xxh3_128

from analyze.storage.direct_write import NO_CHECKSUM, checksum_entry, save_arrays
from analyze.storage.formats import FORMAT, WITH_CHECKSUMS, is_live, without
from checksums import CHECKSUM, Damaged, state
from errors import UserError
from files import whole_file

KINDS = {"BOOL": "bool", "F32": "float32"} | {
    f"{kind}{bits}": f"{kind}{bits}".replace("U", "uint").replace("I", "int") for kind in "UI" for bits in (8, 16, 32, 64)
}
NARROW = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
OLDER = {"corpus"}  # all that files of older formats, which had no checksum, say about their arrays
S = TypeVar("S", bound="Stored")


class Named(dict[str, np.ndarray]):
    """Arrays under names that no dataclass knows; a field of this type defaults to none."""


class Stored:
    """A dataclass of arrays, or of such dataclasses, that is one safetensors file; integers take there as few bytes as hold them.

    A field with a default may be None, and be missing in files of older formats.
    """

    def save(self, file: Path, about: dict[str, str] | None = None) -> None:
        """Write the file whole: it appears under its name when its last byte is on disk."""
        save({name: narrow(array) for name, array in arrays_of(self).items()}, file, about)

    @classmethod
    def load(cls: type[S], file: Path, mapped: bool = False) -> S:
        """Read the file; `mapped`: arrays that are stored in their own size stay in it, and all processes of a machine share them.

        Raises:
            UserError: it is damaged, not there, or of a format that lacks something.
        """
        content = opened(file)
        if lacks := [name for name in names_of(cls) if name not in content.arrays]:
            raise UserError(
                f"{file} lacks {', '.join(lacks)}: it is of a census of format {content.format}, this version counts into format "
                f"{FORMAT}. Take the census anew with this version: the command that made it, with another out=."
            )
        try:
            made: S = made_of(cls, content.arrays if mapped else {name: np.array(a) for name, a in content.arrays.items()})
            return made
        except TypeError as broken:
            raise damaged(file, str(broken)) from None


@dataclass(frozen=True)
class Content:
    """What a file holds, every byte of it as it was written."""

    arrays: dict[str, np.ndarray]  # read when they are looked at; who writes to one writes to a copy of its own
    about: dict[str, str]  # what `save` was told to write about them
    format: str  # of the census it was written for


def save(arrays: Mapping[str, np.ndarray], file: Path, about: dict[str, str] | None = None) -> None:
    """Write arrays as they are into a file that appears under its name when its last byte is on disk."""
    with whole_file(file) as unfinished:
        save_arrays(arrays, unfinished, {"format": str(FORMAT)} | (about or {}))


def opened(file: Path) -> Content:
    """A file's arrays. Files of older formats carry no checksum, and are read as they are.

    Raises:
        UserError: it is damaged, or not there.
    """
    try:
        about, start = dict(_about(*state(file))), _start(file)
        content = np.asarray(np.memmap(file, np.uint8, "c"))
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        arrays = {name: _array(content[start:], entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise UserError(f"{file} is missing: {_anew(file)}.") from None
    except OSError as broken:
        raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None
    except (SafetensorError, ValueError, KeyError) as broken:
        raise damaged(file, str(broken)) from None
    return Content(arrays, about, about.pop("format", f"{WITH_CHECKSUMS - 1} or older"))


def damaged(file: Path, reason: str) -> Damaged:
    """What a damaged file of counts is told as."""
    return Damaged(f"{file} is damaged ({reason.splitlines()[0][:200]}): delete it, and {_anew(file)}.")


def _anew(file: Path) -> str:
    folder = file.parent.parent if file.parent.name in ("layers", "writes") else file.parent
    return without(folder) if is_live(folder) else "the analyze/run.py command that made this census makes it anew"


@cache
def _about(file: Path, *_: int) -> Mapping[str, str]:
    """What is written about the arrays, the checksum aside, after it was compared. A file that has not changed since is not read again."""
    with safe_open(file, framework="numpy") as stored:  # checks that the header is whole and speaks of the whole file
        about = dict(stored.metadata() or {})
    checksum = about.pop(CHECKSUM, None)
    if checksum is None:
        if not set(about) <= OLDER:
            raise ValueError("it has no checksum")
        return about
    content, start = np.memmap(file, np.uint8, "r"), _start(file)
    digest = xxh3_128(content[:start].tobytes().replace(checksum_entry(checksum), checksum_entry(NO_CHECKSUM)))
    digest.update(content[start:].data)
    if digest.hexdigest() != checksum:
        raise ValueError("its checksum is another")
    return about


def _start(file: Path) -> int:
    """Where the arrays begin."""
    with file.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def _array(content: UInt8[np.ndarray, " byte"], entry: dict[str, Any]) -> np.ndarray:
    begin, end = entry["data_offsets"]
    found: np.ndarray = content[begin:end].view(KINDS[entry["dtype"]]).reshape(entry["shape"])
    return found


def arrays_of(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """The arrays of a dataclass, those of a dataclass within it as `field.field`."""
    if value is None:
        return {}
    if isinstance(value, np.ndarray):
        return {name: np.ascontiguousarray(value)}
    if isinstance(value, Named):
        return {f"{name}.{key}": np.ascontiguousarray(array) for key, array in value.items()}
    parts = [arrays_of(getattr(value, f.name), _within(name, f)) for f in fields(value)]
    return {name: array for part in parts for name, array in part.items()}


def names_of(kind: Any, name: str = "") -> Iterator[str]:
    """The names that `arrays_of` gives to the arrays that every instance has."""
    if not is_dataclass(kind):
        yield name
        return
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING:
            yield from names_of(f.type, _within(name, f))


def _within(name: str, field: Field[Any]) -> str:
    return f"{name}.{field.name}" if name else field.name


def narrow(array: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them all; what is no integer as it is."""
    if array.dtype.kind not in "iu" or not array.size:
        return array
    least, greatest = array.min(), array.max()
    fits = (kind for kind in NARROW if np.iinfo(kind).min <= least and greatest <= np.iinfo(kind).max)
    smallest = next(fits, array.dtype)
    return array.astype(smallest) if np.dtype(smallest).itemsize < array.itemsize else array


def made_of(kind: Any, arrays: Mapping[str, np.ndarray], name: str = "") -> Any:
    """The dataclass again; a field with a default that has no arrays keeps it."""
    if kind is Named:
        return Named({other.removeprefix(f"{name}."): array for other, array in arrays.items() if other.startswith(f"{name}.")})
    if not is_dataclass(kind):
        array, wanted = arrays[name], np.dtype(kind.dtypes[0])
        if array.dtype == f"u{wanted}":  # a narrow type; what was taken into it fits
            return array.view(wanted)
        return array.astype(wanted, copy=False)
    parts = {f.name: made_of(_kind(f), arrays, _within(name, f)) for f in fields(kind) if _is_in(arrays, f, name)}
    return kind(**parts)  # type: ignore[operator]


def _is_in(arrays: Mapping[str, np.ndarray], field: Field[Any], name: str) -> bool:
    within = _within(name, field)
    needed = field.default is MISSING and field.default_factory is MISSING
    return needed or any(other == within or other.startswith(f"{within}.") for other in arrays)


def _kind(field: Field[Any]) -> Any:
    """A field's type, without the None that it may be."""
    return next((kind for kind in get_args(field.type) if kind is not NoneType), field.type)
