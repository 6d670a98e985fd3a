"""What is written stands there whole, or as it was, and a disk that is full is a sentence."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from analyze.writing import write_table, write_whole
from errors import UserError

OLD, NEW = pl.DataFrame({"neuron": [1, 2]}), pl.DataFrame({"neuron": range(20_000)})
WRITERS: dict[str, Callable[[Path, bool], None]] = {
    "a page": lambda file, large: write_whole(file, "neuron" * (20_000 if large else 1)),
    "a table": lambda file, large: write_table(file, NEW if large else OLD),
}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The system takes no file larger than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(what: str, tmp_path: Path) -> None:
    write, file = WRITERS[what], tmp_path / "figures" / "x"
    write(file, False)
    before = file.read_bytes()
    with room_for(2000), pytest.raises(UserError, match=r"figures/x could not be written \(File too large\)"):
        write(file, True)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
    write(file, True)
    assert len(file.read_bytes()) > 2000


def test_a_place_that_is_no_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_whole(tmp_path / "file" / "report.html", "page")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", NEW)
    assert pl.read_parquet(tmp_path / "x.parquet").equals(NEW)
