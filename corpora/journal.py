"""documents -> token store: how far an unfinished store is, so that the same preparation goes on after any end."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from checksums import file_sha256
from corpora.document import Document
from corpora.store_writer import write_text
from errors import UserError


@dataclass
class Journal:
    """What of a corpus lies in the files of an unfinished store, up to its last mark. Beyond it their bytes mean nothing."""

    NAME: ClassVar[str] = "journal.json"

    shard_tokens: int  # the setting the shards are cut by
    documents: int = 0  # of the corpus, done
    n_bytes: int = 0  # UTF-8 bytes of their text
    domain_names: list[str] = field(default_factory=list)  # in the order they turned up
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # each one's mark
    tokenizer_sha256: str = ""  # of tokenizer.json, which all ids were made with

    def count(self, batch: list[Document]) -> None:
        """These documents are done too."""
        self.documents += len(batch)
        self.n_bytes += sum(document.n_bytes for document in batch)

    @classmethod
    def read(cls, folder: Path) -> "Journal | None":
        """The journal of a folder; None where there is none, and `UserError` for a damaged one."""
        file = folder / cls.NAME
        if not file.is_file():
            return None
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            checksum, journal = said.pop("checksum"), cls(**said)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as mistake:
            raise _damaged(file) from mistake
        if checksum != _checksum(said):
            raise _damaged(file)
        return journal

    def expect_tokenizer(self, folder: Path) -> None:
        """`UserError` where tokenizer.json is not the one that the ids were made with."""
        if file_sha256(folder / "tokenizer.json") != self.tokenizer_sha256:
            raise _damaged(folder / "tokenizer.json")

    def write(self, folder: Path) -> None:
        """Whole or not at all; the files it speaks of must be on disk."""
        said = asdict(self)
        write_text(folder / self.NAME, json.dumps(said | {"checksum": _checksum(said)}))


def _checksum(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is damaged: remove the folder {file.parent} and run the same command again.")
