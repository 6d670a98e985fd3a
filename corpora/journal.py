"""documents -> token store: how far an unfinished store is, so that the same preparation goes on after any end."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from corpora.document import Document
from corpora.writing import write_text


@dataclass
class Journal:
    """What of a corpus lies in the files of an unfinished store, up to its last mark. Beyond it their bytes mean nothing."""

    NAME: ClassVar[str] = "journal.json"

    shard_tokens: int  # the setting the shards are cut by
    documents: int = 0  # of the corpus, done
    n_bytes: int = 0  # UTF-8 bytes of their text
    domain_names: list[str] = field(default_factory=list)  # in the order they turned up
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # each one's mark

    def count(self, batch: list[Document]) -> None:
        """These documents are done too."""
        self.documents += len(batch)
        self.n_bytes += sum(document.n_bytes for document in batch)

    @classmethod
    def read(cls, folder: Path) -> "Journal | None":
        """The journal of a folder; None where there is none."""
        file = folder / cls.NAME
        return cls(**json.loads(file.read_text())) if file.is_file() else None

    def write(self, folder: Path) -> None:
        """Whole or not at all; the files it speaks of must be on disk."""
        write_text(folder / self.NAME, json.dumps(asdict(self)))
