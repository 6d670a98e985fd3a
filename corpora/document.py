"""text -> documents: what a document is, and how the documents of several domains take turns."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ENCODED = 1 << 20  # letters of a text at a time


@dataclass(frozen=True, slots=True)
class Document:
    """One text of one domain, such as a web page, a source file or a sheet of exercises."""

    domain: str
    name: str
    text: str

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text) if self.text.isascii() else sum(map(len, utf8(self.text)))

    @property
    def digest(self) -> bytes:
        """sha256 of the text: what makes two documents the same, and decides who is kept for validation."""
        digest = hashlib.sha256()
        for part in utf8(self.text):
            digest.update(part)
        return digest.digest()


def utf8(text: str) -> Iterator[bytes]:
    """A text's bytes, some after others: of a long text with wide letters, encoded at once, Python takes four for every letter."""
    for begin in range(0, len(text), ENCODED):
        yield text[begin : begin + ENCODED].encode()


def in_turn(domains: Mapping[str, Iterator[Document]], bytes_per_domain: int | None) -> Iterator[Document]:
    """Documents of several domains, the next one always from the domain that has given the fewest bytes.

    So every beginning of a corpus holds its domains in equal parts. A domain ends with its documents, or with the
    one that brings it to `bytes_per_domain`.
    """
    given = dict.fromkeys(domains, 0)
    while given:
        domain = min(given, key=given.__getitem__)
        document = next(domains[domain], None)
        if document is not None:
            yield document
            given[domain] += document.n_bytes
        if document is None or (bytes_per_domain is not None and given[domain] >= bytes_per_domain):
            del given[domain]
