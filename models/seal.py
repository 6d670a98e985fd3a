"""The checksum that a file of `torch.save` carries in itself: the comment of its zip archive, of every byte before it."""

import os
import zipfile
from pathlib import Path

from xxhash import xxh3_128

from errors import UserError
from models.pickled import ZIP

MARK = b"xxh3 "
LENGTH = len(MARK) + 2 * xxh3_128().digest_size  # of the comment: mark and hexadecimal digits
TAIL = 1 << 16  # bytes at the end of a file that it is looked for in
CHUNK = 1 << 22  # bytes read at a time


def seal(file: Path) -> None:
    """Add the checksum to an archive without a comment. Readers of zip files pass a comment over, torch's among them."""
    with file.open("r+b") as archive:
        archive.seek(-2, os.SEEK_END)
        assert archive.read() == b"\0\0", "the last two bytes are the length of the comment"
        archive.seek(-2, os.SEEK_END)
        archive.write(LENGTH.to_bytes(2, "little"))
    comment = MARK + _checksum(file, file.stat().st_size)
    with file.open("ab") as archive:
        archive.write(comment)


def check_seal(file: Path, advice: str) -> None:
    """Compare the checksum with the bytes. A zip file without one has its own of every entry, which find most damages.

    Raises:
        UserError: the file is not as it was written, with the advice; or it cannot be read.
    """
    try:
        damage = _damage(file)
    except OSError as broken:
        raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None
    if damage:
        raise UserError(f"{file} is damaged: {damage}. {advice}")


def _damage(file: Path) -> str:
    """What is wrong with it; nothing where it is whole, or no zip file."""
    size = file.stat().st_size
    with file.open("rb") as archive:
        begin = archive.read(len(ZIP))
        archive.seek(max(0, size - TAIL))
        end = archive.read()
    if MARK in end:  # also where more bytes follow it
        return "" if end[-LENGTH:] == MARK + _checksum(file, size - LENGTH) else "its checksum is another"
    return _damaged_entry(file) if begin == ZIP else ""


def _damaged_entry(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except OSError:
        raise
    except Exception as broken:  # zipfile and zlib have a dozen for what a damaged entry makes them stumble over
        return str(broken) or type(broken).__name__
    return f"the checksum of {bad} in it is another" if bad else ""


def _checksum(file: Path, end: int) -> bytes:
    """Of the bytes before `end`, in hexadecimal digits."""
    digest, left = xxh3_128(), end
    with file.open("rb") as archive:
        while chunk := archive.read(min(CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode()
