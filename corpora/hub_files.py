"""Before text -> documents: a data set's parquet files from the hub, fetched one ahead of the one that is read, removed once read."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread

import polars as pl

from checksums import file_sha256
from corpora.store_writer import write_text
from errors import UserError
from hub_access import reachable

FOOTER = 1 << 20  # bytes of a parquet file's end that mostly hold its whole footer


@dataclass(frozen=True)
class HubFile:
    """One file of a data set on the hub."""

    name: str
    n_bytes: int
    sha256: str
    documents: int


@dataclass(frozen=True)
class Listing:
    """The parquet files of one commit of a data set, in order."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def documents(self) -> int:
        return sum(file.documents for file in self.files)

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)


def listing(repository: str, revision: str, folder: Path) -> Listing:
    """What the hub has now, or what it had when `folder` was first asked for it: a preparation stays with one commit."""
    kept = folder / "listing.json"
    if not kept.is_file():
        if not reachable():
            raise ConnectionError("the hub cannot be reached")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(asdict(_listing(repository, revision)), indent=1))
    read = json.loads(kept.read_text(encoding="utf-8"))
    return Listing(read["repository"], read["commit"], tuple(HubFile(**file) for file in read["files"]))


def _listing(repository: str, revision: str) -> Listing:
    from huggingface_hub import HfApi  # here: a second, that the other sources need not wait

    found = HfApi().dataset_info(repository, revision=revision, files_metadata=True)
    assert found.sha and found.siblings
    parquet = sorted((file for file in found.siblings if file.rfilename.endswith(".parquet")), key=lambda file: file.rfilename)
    whole = [(file.rfilename, int(file.size or 0), str(file.lfs.sha256)) for file in parquet if file.lfs]
    commit = found.sha
    with ThreadPoolExecutor(8) as threads:
        rows = threads.map(lambda file: _rows(repository, commit, file[0], file[1]), whole)
        return Listing(repository, commit, tuple(HubFile(*file, n) for file, n in zip(whole, rows, strict=True)))


def _rows(repository: str, commit: str, name: str, size: int) -> int:
    """Rows of a parquet file, from its footer alone: polars reads a file that is all hole before it."""
    end = _end(repository, commit, name, size, FOOTER)
    footer = int.from_bytes(end[-8:-4], "little") + 8
    if footer > len(end):
        end = _end(repository, commit, name, size, footer)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.truncate(size)
        file.seek(size - len(end))
        file.write(end)
        file.flush()
        return int(pl.scan_parquet(file.name, glob=False).select(pl.len()).collect().item())


def _end(repository: str, commit: str, name: str, size: int, n: int) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, http_backoff  # type: ignore[attr-defined]

    url = hf_hub_url(repository, name, repo_type="dataset", revision=commit)
    headers = build_hf_headers() | {"Range": f"bytes={max(size - n, 0)}-{size - 1}"}
    answer = http_backoff("GET", url, headers=headers, follow_redirects=True)
    answer.raise_for_status()
    return bytes(answer.content)[-n:]


def fetched(listed: Listing, folder: Path, first: int = 0) -> Iterator[Path]:
    """The files from the `first`-th on, each whole and with the hub's checksum, the next fetched meanwhile.

    A file is removed when the one after the next is asked for. What a kill leaves half fetched is gone on with.
    """
    files = listed.files[first:]
    coming = [_coming(listed, file, folder) for file in files[:1]]
    for number in range(len(files)):
        copy = coming.pop().result()
        coming = [_coming(listed, file, folder) for file in files[number + 1 : number + 2]]
        yield copy
        if number:
            (folder / files[number - 1].name).unlink(missing_ok=True)


def _coming(listed: Listing, file: HubFile, folder: Path) -> "Future[Path]":
    """A file that is being fetched, by a thread that keeps nobody from stopping."""
    future: Future[Path] = Future()

    def fetch() -> None:
        try:
            future.set_result(_fetch(listed, file, folder))
        except BaseException as mistake:  # whoever asks for the file gets it
            future.set_exception(mistake)

    Thread(target=fetch, daemon=True).start()
    return future


def _fetch(listed: Listing, file: HubFile, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    copy = folder / file.name
    if not copy.is_file() or copy.stat().st_size != file.n_bytes:
        hf_hub_download(listed.repository, file.name, repo_type="dataset", revision=listed.commit, local_dir=folder)
    if file_sha256(copy) != file.sha256:
        copy.unlink()
        raise UserError(f"{file.name} came damaged from the hub, its sha256 is another: run the same command again.")
    return copy
