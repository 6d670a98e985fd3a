"""tokens -> token store: ids on disk, memory-mapped, with a manifest that says what they are.

tokenizer.json  manifest.json
train/ validation/
    tokens_00000.bin ...   raw little-endian uint16, or uint32 where ids go beyond 65,535
    offsets.npy            int64 [documents + 1], in tokens; a document includes the BOS id that closes it
    domains.npy            uint8 [documents], an index into the manifest's domain_names
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt, UInt8

from checksums import damaged
from errors import UserError

FORMAT = 1
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class TokenSplit:
    """The tokens of one split, document after document."""

    folder: Path
    dtype: str  # of the shards
    shard_tokens: tuple[int, ...]  # tokens of each shard

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " border"]:
        """Where each document starts, in tokens, and at the end where the last one stops."""
        return np.load(self.folder / "offsets.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def domains(self) -> UInt8[np.ndarray, " document"]:
        """The domain of each document."""
        return np.load(self.folder / "domains.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @property
    def n_tokens(self) -> int:
        return sum(self.shard_tokens)

    @property
    def n_documents(self) -> int:
        return len(self.offsets) - 1

    def documents(self, start: int, stop: int) -> Int64[np.ndarray, " document"]:
        """Numbers of the documents that tokens `start` to `stop` lie in: two binary searches in memory-mapped offsets."""
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start} to {stop} of a split of {self.n_tokens}")
        if start == stop:
            return np.empty(0, dtype=np.int64)
        first, last = np.searchsorted(self.offsets, [start, stop - 1], side="right") - 1
        return np.arange(first, last + 1, dtype=np.int64)

    def document(self, number: int) -> UInt[np.ndarray, " token"]:
        """Ids of one document, the closing one included."""
        return self.read(int(self.offsets[number]), int(self.offsets[number + 1]))

    def read(self, start: int, stop: int) -> UInt[np.ndarray, " token"]:
        """Ids `start` to `stop` of the split, read-only, in the store's own dtype."""
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start} to {stop} of a split of {self.n_tokens}")
        first, last = np.searchsorted(self._borders, [start, max(start, stop - 1)], side="right") - 1
        parts = [self._shards[i][max(start - self._borders[i], 0) : stop - self._borders[i]] for i in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def _borders(self) -> Int64[np.ndarray, " shard"]:
        return np.cumsum([0, *self.shard_tokens], dtype=np.int64)[:-1]

    @cached_property
    def _shards(self) -> list[UInt[np.ndarray, " token"]]:
        return [np.memmap(file, dtype=self.dtype, mode="r") for file in self.shard_files]

    @property
    def shard_files(self) -> list[Path]:
        return [self.folder / f"tokens_{number:05d}.bin" for number in range(len(self.shard_tokens))]


@dataclass(frozen=True)
class TokenStore:
    """A prepared corpus: folder and manifest."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """A store whose manifest is whole and whose files have the sizes it gives; `UserError` for a damaged one."""
        file = folder / "manifest.json"
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as mistake:
            raise UserError(
                f"{folder} is not a token store: its manifest.json is missing or broken. {_again(folder)}"
            ) from mistake
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            what = manifest.get("format") if isinstance(manifest, dict) else None
            raise UserError(f"{folder} is a token store of format {what}, not {FORMAT}. {_again(folder)}")
        store = cls(folder, manifest)
        try:
            whole = manifest["fingerprint"] == fingerprint(manifest) and manifest.get("checksum", whole_checksum(manifest)) == (
                whole_checksum(manifest)
            )
            sizes = store._sizes()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as mistake:
            raise UserError(f"{file} is damaged: it lacks what a manifest says. {_again(folder)}") from mistake
        if not whole:
            raise UserError(f"{file} is damaged: its checksum is another. {_again(folder)}")
        for part, size in sizes.items():
            if not part.is_file() or part.stat().st_size != size:
                raise UserError(f"{part} is damaged: it should have {size:,} bytes. {_again(folder)}")
        store._compare("tokenizer.json")
        return store

    def split(self, name: str) -> TokenSplit:
        """`train` or `validation`, every byte of it compared with the manifest's checksums."""
        if name not in SPLITS:
            raise UserError(f"split={name!r} is none of {', '.join(SPLITS)}, all.")
        self._compare(f"{name}/")
        return self._split(name)

    def _split(self, name: str) -> TokenSplit:
        shards = self.manifest["splits"][name]["shards"]
        return TokenSplit(self.folder / name, self.manifest["dtype"], tuple(shard["tokens"] for shard in shards))

    def verify(self) -> None:
        """Read every byte and compare its hash with the manifest's; `UserError` for the first file that differs."""
        self._compare("")

    def _compare(self, beginning: str) -> None:
        hashes = {self.folder / name: digest for name, digest in self._hashes().items() if name.startswith(beginning)}
        if wrong := damaged(hashes):
            raise UserError(f"{wrong[0]} is damaged: its sha256 is not the manifest's. {_again(self.folder)}")

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the content: two stores with the same one hold the same tokens."""
        return str(self.manifest["fingerprint"])

    @property
    def domain_names(self) -> list[str]:
        return list(self.manifest["domain_names"])

    @property
    def bos_id(self) -> int:
        return int(self.manifest["bos_id"])

    @property
    def vocab_size(self) -> int:
        return int(self.manifest["vocab_size"])

    def _sizes(self) -> dict[Path, int]:
        width = np.dtype(self.manifest["dtype"]).itemsize
        sizes = {self.tokenizer_file: self.manifest["tokenizer"]["bytes"]}
        for name in SPLITS:
            entry = self.manifest["splits"][name]
            split = self._split(name)
            sizes |= {file: width * n for file, n in zip(split.shard_files, split.shard_tokens, strict=True)}
            sizes |= {
                split.folder / "offsets.npy": entry["offsets"]["bytes"],
                split.folder / "domains.npy": entry["domains"]["bytes"],
            }
        return sizes

    def _hashes(self) -> dict[str, str]:
        hashes = {"tokenizer.json": self.manifest["tokenizer"]["file_sha256"]}
        for name in SPLITS:
            entry = self.manifest["splits"][name]
            hashes |= {f"{name}/tokens_{number:05d}.bin": shard["sha256"] for number, shard in enumerate(entry["shards"])}
            hashes |= {f"{name}/{part}.npy": entry[part]["sha256"] for part in ("offsets", "domains")}
        return hashes


def fingerprint(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest's content: ids, document borders, domains, tokenizer; not where the text came from."""
    content = {key: manifest[key] for key in ("format", "vocab_size", "bos_id", "dtype", "domain_names", "splits")}
    content["tokenizer"] = manifest["tokenizer"]["sha256"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def whole_checksum(manifest: dict[str, Any]) -> str:
    """sha256 of all that a manifest says, where the text came from included."""
    said = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _again(folder: Path) -> str:
    return f"Remove that folder ({folder}) and run scripts/prepare_corpus.py again."
