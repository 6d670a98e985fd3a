"""file -> rows: the elements of a JSON list, one after another, however long the list."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from corpora.compression import opened_text
from errors import UserError

CHARACTERS = 1 << 20  # read at least, at a time
SPACE = " \t\r\n"


def elements(path: Path) -> Iterator[object]:
    """The elements of the list that a file holds.

    Raises:
        UserError: the file is no whole list, or no UTF-8.
    """
    decoder, number = json.JSONDecoder(), 1
    buffer = _Buffer(path)
    buffer.skip("[")
    while not buffer.at("]"):
        if number > 1 and not buffer.skip(","):
            raise _broken(path, number)
        while True:
            try:
                element, end = decoder.raw_decode(buffer.text, buffer.start)
                if end < len(buffer.text):  # else a number may go on
                    break
            except (ValueError, RecursionError) as mistake:
                if isinstance(mistake, RecursionError) or buffer.ended:
                    raise _broken(path, number) from mistake
            if not buffer.more():
                raise _broken(path, number)
        yield element
        buffer.start, number = end, number + 1
    buffer.skip("]")
    if buffer.rest():
        raise _broken(path, number)


def _broken(path: Path, number: int) -> UserError:
    return UserError(f'{path} is no whole JSON list (item {number}): expected [{{"text": "..."}}, ...].')


class _Buffer:
    """The part of a text that is being read; it doubles until an element fits, so that every character is tried a few times."""

    def __init__(self, path: Path) -> None:
        self.text, self.start, self.ended = "", 0, False
        self._chunks = _chunks(path)

    def more(self) -> bool:
        """Read as much again as is there; false at the end of the file."""
        parts, wanted = [self.text[self.start :]], max(CHARACTERS, len(self.text) - self.start)
        while wanted > 0 and not self.ended:
            chunk = next(self._chunks, None)
            self.ended = chunk is None
            parts.append(chunk or "")
            wanted -= len(parts[-1])
        grown = len(parts) > 1 and any(parts[1:])
        self.text, self.start = "".join(parts), 0
        return grown

    def at(self, sign: str) -> bool:
        """Whether this stands next, spaces aside."""
        return self._next() == sign

    def skip(self, sign: str) -> bool:
        """Step over this if it stands next, and over the spaces after it."""
        there = self._next() == sign
        self.start += there
        self._next()
        return there

    def rest(self) -> bool:
        """Whether anything else follows."""
        return self._next() != ""

    def _next(self) -> str:
        while True:
            while self.start < len(self.text) and self.text[self.start] in SPACE:
                self.start += 1
            if self.start < len(self.text) or not self.more():
                return self.text[self.start : self.start + 1]


def _chunks(path: Path) -> Iterator[str]:
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with opened_text(path) as file:
        try:
            while raw := file.read(CHARACTERS):
                yield decoder.decode(raw)
                done += len(raw)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as mistake:
            raise UserError(
                f"{path} is not UTF-8 text (about byte {done + mistake.start}): convert it, or leave it out."
            ) from mistake
