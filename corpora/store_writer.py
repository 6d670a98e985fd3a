"""tokens -> token store: the files of a store, written as the tokens come, never all in memory, and gone on with after a kill."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, UInt, UInt8

from checksums import damaged, file_sha256
from errors import UserError
from files import whole_file

SHARD_TOKENS = 100_000_000
WRITTEN = 10_000_000  # tokens at a time
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, none left of the user's share, longer than a file may be
GROWING = ("lengths.growing", "domains.growing")  # what becomes offsets.npy and domains.npy


class SplitWriter:
    """Takes the documents of one split in order. `mark` puts what it has on disk and says how far that is; from a mark it goes on."""

    def __init__(self, folder: Path, dtype: str, shard_tokens: int = SHARD_TOKENS, mark: dict[str, Any] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.dtype, self.shard_tokens = folder, np.dtype(dtype).newbyteorder("<"), shard_tokens
        self.documents: int = mark["documents"] if mark else 0
        self._shards: list[dict[str, Any]] = [dict(shard) for shard in mark["shards"]] if mark else []
        self._growing: dict[str, _Growing] = {}
        self._shard: _Growing | None = None
        try:
            self._go_on(mark)
        except BaseException:
            self.__exit__()
            raise

    def _go_on(self, mark: dict[str, Any] | None) -> None:
        """Open the files at the mark; `UserError` where what stands before it is not what was written."""
        folder = self.folder
        shards = [folder / _shard_name(number) for number in range(len(self._shards))]
        _expect_bytes({shard: kept["tokens"] * self.dtype.itemsize for shard, kept in zip(shards, self._shards, strict=True)})
        for name, width in zip(GROWING, (8, 1), strict=True):
            self._growing[name] = _Growing(folder / name, self.documents * width, mark[name] if mark else None)
        for beyond in sorted(folder.glob("tokens_*.bin"))[len(self._shards) :]:
            beyond.unlink()
        if self._shards and not self._shards[-1]["sha256"]:
            last = self._shards[-1]
            self._shard = _Growing(shards.pop(), last["tokens"] * self.dtype.itemsize, last.pop("so_far"))
        if wrong := damaged({shard: kept["sha256"] for shard, kept in zip(shards, self._shards, strict=False)}):
            raise _damaged(wrong[0])

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._growing.values(), self._shard):
            if file is not None:
                file.close()

    def add(
        self, ids: UInt[np.ndarray, " token"], lengths: Int64[np.ndarray, " document"], domains: UInt8[np.ndarray, " document"]
    ) -> None:
        """Documents end to end, closing ids included. One may end in a later shard than it began in."""
        for name, values in zip(GROWING, (lengths.astype("<i8"), domains), strict=True):
            self._growing[name].write(values.tobytes())
        self.documents += len(lengths)
        while len(ids):  # a long document in parts, of which there are copies meanwhile
            room = self.shard_tokens - self._shards[-1]["tokens"] if self._shard else 0
            if self._shard is None or room == 0:
                self._next_shard()
                continue
            self._write(ids[: min(room, WRITTEN)])
            ids = ids[min(room, WRITTEN) :]

    def mark(self) -> dict[str, Any]:
        """How far this split is, when all of it is on disk. The last shard has no sha256 as long as it grows, but one so far."""
        for file in (*self._growing.values(), self._shard):
            if file is not None:
                file.to_disk()
        shards = [dict(shard) for shard in self._shards]
        if self._shard is not None:
            shards[-1]["so_far"] = self._shard.sha256
        return {"documents": self.documents, "shards": shards} | {name: file.sha256 for name, file in self._growing.items()}

    def close(self, domain_names: list[str]) -> dict[str, Any]:
        """The split's entry in the manifest."""
        self._end_shard()
        self.mark()
        lengths = np.fromfile(self.folder / GROWING[0], dtype="<i8")
        domains = np.fromfile(self.folder / GROWING[1], dtype=np.uint8)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
        entry: dict[str, Any] = {"shards": self._shards, "documents": len(domains), "tokens": int(offsets[-1])}
        for name, values in (("offsets", offsets), ("domains", domains)):
            file = self.folder / f"{name}.npy"
            with file.open("wb") as opened:
                np.save(opened, values)
                _to_disk(opened)
            entry[name] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        documents, tokens = (np.bincount(domains, minlength=len(domain_names)), np.zeros(len(domain_names), dtype=np.int64))
        np.add.at(tokens, domains, lengths)
        entry["of_domain"] = {
            name: {"documents": int(documents[i]), "tokens": int(tokens[i])} for i, name in enumerate(domain_names)
        }
        return entry

    def _write(self, ids: UInt[np.ndarray, " token"]) -> None:
        assert self._shard is not None
        self._shard.write(ids.astype(self.dtype).tobytes())
        self._shards[-1]["tokens"] += len(ids)

    def _next_shard(self) -> None:
        self._end_shard()
        self._shard = _Growing(self.folder / _shard_name(len(self._shards)))
        self._shards.append({"tokens": 0, "sha256": ""})

    def _end_shard(self) -> None:
        if self._shard is not None:
            self._shard.to_disk()
            self._shard.close()
            self._shards[-1]["sha256"] = self._shard.sha256
            self._shard = None


class _Growing:
    """A file that bytes are added to after its first `size`, and the sha256 of all of them.

    Raises:
        UserError: its first bytes have another sha256 than `expected`.
    """

    def __init__(self, path: Path, size: int = 0, expected: str | None = None) -> None:
        _expect_bytes({path: size})
        self._file = _opened_at(path, size)
        with path.open("rb") as written:
            self._hash = hashlib.file_digest(written, "sha256")
        if expected is not None and self.sha256 != expected:
            self.close()
            raise _damaged(path)

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._hash.hexdigest()

    def write(self, raw: bytes) -> None:
        self._file.write(raw)
        self._hash.update(raw)

    def to_disk(self) -> None:
        _to_disk(self._file)

    def close(self) -> None:
        self._file.close()


def _shard_name(number: int) -> str:
    return f"tokens_{number:05d}.bin"


def _expect_bytes(sizes: dict[Path, int]) -> None:
    for file, size in sizes.items():
        if size and (not file.is_file() or file.stat().st_size < size):
            raise UserError(f"{file} should have at least {size:,} bytes: remove the folder {file.parents[1]} and prepare again.")


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is damaged: remove the folder {file.parents[1]} and run the same command again.")


def _opened_at(file: Path, size: int) -> IO[bytes]:
    """The file cut to its first `size` bytes, to be written on from there."""
    opened = file.open("r+b" if size else "wb")
    opened.truncate(size)
    opened.seek(size)
    return opened


def write_text(file: Path, text: str) -> None:
    """A text file that is there whole, its bytes on disk, or not at all."""
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """The last file of a store."""
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
