"""tokens -> token store: the files of a store, written as the tokens come, never all in memory, and gone on with after a kill."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, UInt, UInt8

from corpora.store import file_hash
from errors import UserError

SHARD_TOKENS = 100_000_000
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, none left of the user's share, longer than a file may be
GROWING = ("lengths.growing", "domains.growing")  # what becomes offsets.npy and domains.npy


class SplitWriter:
    """Takes the documents of one split in order. `mark` puts what it has on disk and says how far that is; from a mark it goes on."""

    def __init__(self, folder: Path, dtype: str, shard_tokens: int = SHARD_TOKENS, mark: dict[str, Any] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.dtype, self.shard_tokens = folder, np.dtype(dtype).newbyteorder("<"), shard_tokens
        self.documents: int = mark["documents"] if mark else 0
        self._shards: list[dict[str, Any]] = [dict(shard) for shard in mark["shards"]] if mark else []
        sizes = [self.documents * 8, self.documents, *(shard["tokens"] * self.dtype.itemsize for shard in self._shards)]
        names = [*GROWING, *(_shard_name(number) for number in range(len(self._shards)))]
        _expect_bytes({folder / name: size for name, size in zip(names, sizes, strict=True)})
        self._lengths, self._domains = (_opened_at(folder / name, size) for name, size in zip(GROWING, sizes, strict=False))
        self._file: IO[bytes] | None = None
        for beyond in sorted(folder.glob("tokens_*.bin"))[len(self._shards) :]:
            beyond.unlink()
        if self._shards and not self._shards[-1]["sha256"]:
            shard = folder / names[-1]
            self._file = _opened_at(shard, sizes[-1])
            with shard.open("rb") as written:
                self._hash = hashlib.file_digest(written, "sha256")

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._lengths, self._domains, self._file):
            if file is not None:
                file.close()

    def add(
        self, ids: UInt[np.ndarray, " token"], lengths: Int64[np.ndarray, " document"], domains: UInt8[np.ndarray, " document"]
    ) -> None:
        """Documents end to end, closing ids included. One may end in a later shard than it began in."""
        self._lengths.write(lengths.astype("<i8").tobytes())
        self._domains.write(domains.tobytes())
        self.documents += len(lengths)
        while len(ids):
            room = self.shard_tokens - self._shards[-1]["tokens"] if self._file else 0
            if self._file is None or room == 0:
                self._next_shard()
                continue
            self._write(ids[:room])
            ids = ids[room:]

    def mark(self) -> dict[str, Any]:
        """How far this split is, when all of it is on disk. The last shard has no sha256 as long as it grows."""
        for file in (self._lengths, self._domains, self._file):
            if file is not None:
                _to_disk(file)
        return {"documents": self.documents, "shards": [dict(shard) for shard in self._shards]}

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
            entry[name] = {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        documents, tokens = (np.bincount(domains, minlength=len(domain_names)), np.zeros(len(domain_names), dtype=np.int64))
        np.add.at(tokens, domains, lengths)
        entry["of_domain"] = {
            name: {"documents": int(documents[i]), "tokens": int(tokens[i])} for i, name in enumerate(domain_names)
        }
        return entry

    def _write(self, ids: UInt[np.ndarray, " token"]) -> None:
        assert self._file is not None
        raw = ids.astype(self.dtype).tobytes()
        self._file.write(raw)
        self._hash.update(raw)
        self._shards[-1]["tokens"] += len(ids)

    def _next_shard(self) -> None:
        self._end_shard()
        self._file = _opened_at(self.folder / _shard_name(len(self._shards)), 0)
        self._hash = hashlib.sha256()
        self._shards.append({"tokens": 0, "sha256": ""})

    def _end_shard(self) -> None:
        if self._file is not None:
            _to_disk(self._file)
            self._file.close()
            self._shards[-1]["sha256"] = self._hash.hexdigest()
            self._file = None


def _shard_name(number: int) -> str:
    return f"tokens_{number:05d}.bin"


def _expect_bytes(sizes: dict[Path, int]) -> None:
    for file, size in sizes.items():
        if size and (not file.is_file() or file.stat().st_size < size):
            raise UserError(f"{file} should have at least {size:,} bytes: remove the folder {file.parents[1]} and prepare again.")


def _opened_at(file: Path, size: int) -> IO[bytes]:
    """The file cut to its first `size` bytes, to be written on from there."""
    opened = file.open("r+b" if size else "wb")
    opened.truncate(size)
    opened.seek(size)
    return opened


def write_text(file: Path, text: str) -> None:
    """A file that is there whole, its bytes on disk, or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as opened:
        opened.write(text)
        _to_disk(opened)
    beside.replace(file)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """The last file of a store."""
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
