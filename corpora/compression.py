"""file -> bytes: a file as it is, or what a .gz or .zst holds; one that ends early is refused, never half of it read."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from corpora.store_writer import DISK_FULL
from errors import UserError

COMPRESSIONS = (".gz", ".zst")
READ = 1 << 16  # bytes of a compressed file at a time
BUFFER = 1 << 20  # bytes of its content
WIDEST_WINDOW = 1 << 31  # bytes that zstd --long=31 looks back
OTHER_UNICODE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins as UTF-16-LE does


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, decompressed where its name says so.

    Raises:
        UserError: it cannot be read, or a compressed stream in it is damaged or ends early.
    """
    with _said(path), path.open("rb") as file:
        yield _decompressed(path, file)


def content_bytes(path: Path, sample: int) -> int:
    """About how many bytes a compressed file holds, judged by the first `sample` of them."""
    with _said(path), path.open("rb") as file:
        read = len(_decompressed(path, file).read(sample))
        size = path.stat().st_size
        return round(size * read / max(min(file.tell(), size), 1))


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Whatever fails while a file is read ends in a sentence."""
    try:
        yield
    except zstandard.ZstdError as mistake:
        raise UserError(f"{path} is no whole zstandard file ({mistake}): fetch it again.") from mistake
    except (gzip.BadGzipFile, zlib.error, EOFError) as mistake:
        raise UserError(f"{path} is no whole gzip file ({mistake}): fetch it again.") from mistake
    except OSError as mistake:
        if mistake.errno in DISK_FULL:  # of what is written meanwhile
            raise
        raise UserError(f"{path} cannot be read ({mistake.strerror or mistake}): mend it, or leave it out.") from mistake


@contextmanager
def opened_text(path: Path) -> Iterator[io.BufferedReader]:
    """The same, without the byte order mark that UTF-8 text may begin with. `UserError` for UTF-16 and UTF-32."""
    with opened(path) as file:
        if file.peek(4).startswith(OTHER_UNICODE):
            raise UserError(f"{path} is UTF-16 or UTF-32 text: convert it with `iconv -t UTF-8`, or leave it out.")
        if file.peek(3).startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
        yield file


def _decompressed(path: Path, file: io.BufferedReader) -> io.BufferedReader:
    ending = path.suffix.lower()
    if ending in COMPRESSIONS and not file.peek(1):
        raise UserError(f"{path} is empty, not even a compressed file of nothing: fetch it again, or leave it out.")
    if ending == ".gz":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)), BUFFER)
    return io.BufferedReader(_Frames(file), BUFFER) if ending == ".zst" else file


class _Frames(io.RawIOBase):
    """All frames of a .zst, one after another. The library's own reader takes a file that ends inside a frame for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._chunks = self._decompressed(file)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        n = min(len(into), len(self._left))
        into[:n] = self._left[:n]
        self._left = self._left[n:]
        return n

    @staticmethod
    def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=WIDEST_WINDOW)
        frame, compressed, inside = decompressor.decompressobj(), b"", False
        while compressed := compressed or file.read(READ):
            yield frame.decompress(compressed)
            compressed = frame.unused_data if frame.eof else b""
            inside = not frame.eof
            if frame.eof:
                frame = decompressor.decompressobj()
        if inside:
            raise zstandard.ZstdError("it ends inside a frame")
