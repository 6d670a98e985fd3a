"""text -> documents: the Pile, from local files: one set of files per domain, or the Pile's own files with many domains in each."""

from collections import Counter
from collections.abc import Iterator

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.files import files, found, named_rows, told
from corpora.rows import Texts
from errors import UserError


def pile(config: CorpusConfig) -> Iterator[Document]:
    """The documents of `config.domains`, or those of `config.path` under the domain that `meta.pile_set_name` gives."""
    if config.domains:
        return files(config)
    if config.path is None:
        raise UserError(
            f"corpus={config.name} is read from local files. Give corpus.path='pile/*.jsonl.zst' (lines with meta.pile_set_name), "
            "or a path per domain like corpus.domains='{wikipedia: pile/wikipedia/*.jsonl.zst}'."
        )
    texts = Texts(config.text, config.strict)
    return told(_by_set_name(config.path, texts, config.bytes_per_domain), texts, config.name)


def _by_set_name(path: str, texts: Texts, bytes_per_domain: int | None) -> Iterator[Document]:
    given: Counter[str] = Counter()
    for name, text, beside in named_rows(found(path), texts):
        meta = beside.get("meta")
        if not isinstance(meta, dict) or not isinstance(domain := meta.get("pile_set_name"), str):
            raise UserError(
                f"{name} has no meta.pile_set_name: for files without it name the domain, corpus.domains='{{mine: {path}}}'."
            )
        if bytes_per_domain is None or given[domain] < bytes_per_domain:
            given[domain] += len(text.encode())
            yield Document(domain, name, text)
