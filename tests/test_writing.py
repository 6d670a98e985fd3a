"""What is written stands there whole, or as it was, and a disk that is full is a sentence."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from analyze.storage.tables import write_table
from errors import UserError
from files import remove_unfinished, temporary, whole_folder, write_whole
from locks import only_writer

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


def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "step_000000010"
    for words in ("old", "new"):
        with whole_folder(folder) as unfinished:
            (unfinished / "config.json").write_text(words)
            assert not folder.exists() or (folder / "config.json").read_text() == "old"
        assert (folder / "config.json").read_text() == words and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as unfinished:
        (unfinished / "config.json").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "config.json").read_text() == "new" and list(tmp_path.iterdir()) == [folder]


def test_an_older_folder_comes_back_where_the_new_one_cannot_take_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "milestone"
    folder.mkdir()
    (folder / "config.json").write_text("old")
    taken: list[Path] = []
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if target == folder and not taken:
            taken.append(path)
            raise OSError(28, "No space left on device")
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(OSError, match="No space"), whole_folder(folder) as unfinished:
            (unfinished / "config.json").write_text("new")
    assert taken and (folder / "config.json").read_text() == "old" and list(tmp_path.iterdir()) == [folder]


def test_bytes_and_names_are_on_the_disk_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    write_whole(tmp_path / "meta.json", "{}")
    assert flushed == [f".meta.json.{os.getpid()}.partial", tmp_path.name]
    flushed.clear()
    with whole_folder(tmp_path / "m") as unfinished:
        (unfinished / "a").write_text("")
    assert flushed == ["a", f".m.{os.getpid()}.partial", tmp_path.name]


def test_two_processes_never_share_a_temporary_name() -> None:
    assert str(os.getpid()) in temporary(Path("layers") / "layer_000.safetensors").name


def left(*files: Path) -> None:
    """What killed writers leave: half a file, or half a folder."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")


def test_what_the_killed_left_of_a_folder_goes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    left(run / "layers" / ".layer_000.safetensors.123.partial", run / ".step_1.older.99.partial" / "tokens" / "x", run / "kept")
    left(tmp_path / ".run.123.partial" / "x", tmp_path / ".run.older.123.partial" / "x")
    others = [tmp_path / ".other.123.partial", run / ".notes.partial", run / "kept"]  # another folder's; none of ours
    left(*others)
    remove_unfinished(run)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    """A census in the folder of its run, which is gone on with; and what appears beside it when it is whole."""
    run = tmp_path / "run"
    theirs = [run / "census" / "layers" / ".layer_000.safetensors.5.partial", run / ".model.5.partial" / "x"]
    ours = run / "census_2" / ".meta.json.5.partial"
    left(*theirs, ours)
    with only_writer(run / "census", "out="), only_writer(run / "model", "out="):
        remove_unfinished(run)
    assert all(file.exists() for file in theirs) and not ours.exists()
    left(ours)
    remove_unfinished(run, deep=False)
    assert ours.exists() and not theirs[1].exists()
