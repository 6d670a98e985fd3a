"""tokens -> token store: the files of a store, written as the tokens come, never all in memory."""

import hashlib
import json
import os
from array import array
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt

from corpora.store import file_hash

SHARD_TOKENS = 100_000_000


class SplitWriter:
    """Takes the documents of one split in order. Memory: 9 bytes a document."""

    def __init__(self, folder: Path, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        folder.mkdir()
        self.folder, self.dtype, self.shard_tokens = folder, dtype, shard_tokens
        self.offsets = array("q", [0])
        self.domains = bytearray()
        self._shards: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, ids: UInt[np.ndarray, " token"], domain: int) -> None:
        """One document, its closing id included. It may end in a later shard than it began in."""
        self.offsets.append(self.offsets[-1] + len(ids))
        self.domains.append(domain)
        while len(ids):
            room = self.shard_tokens - self._shards[-1]["tokens"] if self._file else 0
            if self._file is None or room == 0:
                self._next_shard()
                continue
            self._write(ids[:room])
            ids = ids[room:]

    def close(self) -> dict[str, Any]:
        """The split's entry in the manifest."""
        self._end_shard()
        offsets, domains = np.array(self.offsets, dtype=np.int64), np.frombuffer(bytes(self.domains), dtype=np.uint8)
        entry: dict[str, Any] = {"shards": self._shards, "documents": len(domains), "tokens": self.offsets[-1]}
        for name, values in (("offsets", offsets), ("domains", domains)):
            file = self.folder / f"{name}.npy"
            with file.open("wb") as opened:
                np.save(opened, values)
                _to_disk(opened)
            entry[name] = {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        return entry

    def count(self, domain_names: list[str]) -> dict[str, dict[str, int]]:
        """Documents and tokens of every domain."""
        documents = Counter(self.domains)
        tokens = np.zeros(len(domain_names), dtype=np.int64)
        np.add.at(tokens, np.frombuffer(bytes(self.domains), dtype=np.uint8), np.diff(np.array(self.offsets, dtype=np.int64)))
        return {name: {"documents": documents[i], "tokens": int(tokens[i])} for i, name in enumerate(domain_names)}

    def _write(self, ids: UInt[np.ndarray, " token"]) -> None:
        assert self._file is not None
        raw = ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
        self._file.write(raw)
        self._hash.update(raw)
        self._shards[-1]["tokens"] += len(ids)

    def _next_shard(self) -> None:
        self._end_shard()
        self._file = (self.folder / f"tokens_{len(self._shards):05d}.bin").open("wb")
        self._hash = hashlib.sha256()
        self._shards.append({"tokens": 0, "sha256": ""})

    def _end_shard(self) -> None:
        if self._file is not None:
            _to_disk(self._file)
            self._file.close()
            self._shards[-1]["sha256"] = self._hash.hexdigest()
            self._file = None


def write_text(file: Path, text: str) -> None:
    """A file whose bytes are on disk when this returns."""
    with file.open("w", encoding="utf-8") as opened:
        opened.write(text)
        _to_disk(opened)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """The last file of a store."""
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
