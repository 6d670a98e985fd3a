"""scripts/prepare_corpus.py as it is met: killed half-way, from a hub that fails, on a disk that is full; always the same bytes."""

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hub import Hub, hub

from corpora.config import CorpusConfig
from corpora.documents import documents
from corpora.openwebtext import REPOSITORY
from corpora.store import TokenStore
from corpora.tokenizer import train_bpe

PROGRAM = str(Path(__file__).parents[2] / "scripts" / "prepare_corpus.py")
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of this machine as OpenWebText's kind of files, and a tokenizer."""
    folder = tmp_path_factory.mktemp("place")
    texts = [document.text for document in documents(CorpusConfig("local", "local", bytes_per_domain=800_000))]
    (folder / "text" / "plain_text" / "train").mkdir(parents=True)
    for i in range(4):
        part = pl.DataFrame({"text": texts[i * len(texts) // 4 : (i + 1) * len(texts) // 4]})
        part.write_parquet(folder / "text" / "plain_text" / "train" / f"{i:04d}.parquet", row_group_size=20)
    train_bpe(texts[:100], 400).save(str(folder / "tokenizer.json"))
    return folder


def command(*settings: str) -> list[str]:
    fixed = ("corpus=openwebtext", "corpus.tokenizer=tokenizer.json", "corpus.mark_bytes=60000", "corpus.validation_share=0.1")
    return [sys.executable, PROGRAM, *fixed, *settings]


def prepare(place: Path, *settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    env = os.environ | QUIET | environment
    return subprocess.run(command(*settings), cwd=place, env=env, capture_output=True, text=True, timeout=600, check=False)


def content(store: Path) -> dict[str, bytes]:
    """Every file of the one store in a folder; nothing else is left there."""
    assert [path.suffix for path in store.iterdir()] == [""], list(store.iterdir())
    (folder,) = store.glob("openwebtext-*")
    TokenStore.open(folder).verify()
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, bytes]:
    """The store that was never interrupted."""
    done = prepare(place, "corpus.path=text", "corpus.store=whole", "corpus.workers=1")
    assert done.returncode == 0, done.stderr
    return content(place / "whole")


def documents_done(store: Path) -> int:
    """What the journal of the unfinished store says."""
    return sum(json.loads(file.read_text())["documents"] for file in store.glob("*.partial/journal.json"))


def killed(place: Path, *settings: str, after: int, **environment: str) -> None:
    """Start the program, and kill -9 it when more than `after` documents are marked as done."""
    store = next(place / setting.partition("=")[2] for setting in settings if setting.startswith("corpus.store="))
    running = subprocess.Popen(
        command(*settings), cwd=place, env=os.environ | QUIET | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while documents_done(store) <= after:
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not [path for path in store.glob("openwebtext-*") if path.suffix != ".partial"], "nothing under a final name"


def test_killed_twice_and_with_other_processes_the_bytes_are_the_same(place: Path, whole: dict[str, bytes]) -> None:
    settings = ("corpus.path=text", "corpus.store=killed", "corpus.workers=2")
    killed(place, *settings, after=0)
    first = documents_done(place / "killed")
    killed(place, *settings, after=first)
    second = documents_done(place / "killed")
    assert 0 < first < second
    done = prepare(place, "corpus.path=text", "corpus.store=killed", "corpus.workers=3")
    assert done.returncode == 0 and f"goes on after the {second:,} documents that are done" in done.stderr, done.stderr
    assert content(place / "killed") == whole


@pytest.fixture
def served(place: Path) -> Iterator[Hub]:
    with hub(place / "text", REPOSITORY) as server:
        yield server


def same_tokens(ours: dict[str, bytes], theirs: dict[str, bytes]) -> bool:
    """Everything but the manifest's account of where the text came from."""
    return {name: c for name, c in ours.items() if name != "manifest.json"} == {
        name: c for name, c in theirs.items() if name != "manifest.json"
    } and json.loads(ours["manifest.json"])["fingerprint"] == json.loads(theirs["manifest.json"])["fingerprint"]


def test_from_the_hub_and_from_its_files_the_tokens_are_the_same(place: Path, served: Hub, whole: dict[str, bytes]) -> None:
    """Also after a file that came damaged and one that did not come; what was read is not fetched again."""
    names = [f"plain_text/train/{i:04d}.parquet" for i in range(4)]
    served.forged.add(names[2])
    failed = prepare(place, "corpus.store=hub", HF_ENDPOINT=served.address)
    assert failed.returncode == 1 and "0002.parquet came damaged from the hub" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stderr and documents_done(place / "hub")
    served.forged.clear()
    served.missing.add(names[3])
    failed = prepare(place, "corpus.store=hub", HF_ENDPOINT=served.address)
    assert failed.returncode == 1 and "cannot be fetched" in failed.stderr and "Traceback" not in failed.stderr, failed.stderr
    served.missing.clear()
    served.sent.clear()
    done = prepare(place, "corpus.store=hub", HF_ENDPOINT=served.address)
    assert done.returncode == 0, done.stderr
    assert names[0] not in served.sent and names[3] in served.sent
    made = content(place / "hub")
    assert same_tokens(made, whole)
    listed = json.loads(made["manifest.json"])["hub"]
    assert [file["name"] for file in listed["files"]] == names and listed["commit"] == "c" * 40
    assert sum(file["documents"] for file in listed["files"]) == sum(
        json.loads(whole["manifest.json"])["splits"][split]["documents"] for split in ("train", "validation")
    )


def test_two_preparations_fetch_in_turn(place: Path, served: Hub) -> None:
    """One would remove the files that the other reads: the second asks for them when the first has done with all."""
    train_bpe(["another tokenizer"], 300).save(str(place / "second.json"))
    started = [
        subprocess.Popen(
            command(f"corpus.tokenizer={name}.json", "corpus.store=both", "corpus.workers=1"),
            cwd=place,
            env=os.environ | QUIET | {"HF_ENDPOINT": served.address},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("tokenizer", "second")
    ]
    said = [running.communicate()[1] for running in started]
    assert [running.returncode for running in started] == [0, 0], said
    assert served.sent == 2 * [f"plain_text/train/{i:04d}.parquet" for i in range(4)]
    assert len(list((place / "both").glob("openwebtext-*/manifest.json"))) == 2 and not list((place / "both").glob(".*.fetched"))


def test_a_disk_that_is_full_is_a_sentence_and_what_is_done_is_kept(place: Path, whole: dict[str, bytes]) -> None:
    """A limit on the size of files fails where a full disk does."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    settings = ("corpus.path=text", "corpus.store=full", "corpus.workers=1")
    failed = subprocess.run(
        command(*settings), cwd=place, env=os.environ | QUIET, capture_output=True, text=True, check=False, preexec_fn=small_files
    )
    said = failed.stderr.strip().splitlines()
    assert failed.returncode == 1 and said[-1].startswith("error: File too large in full; "), failed.stderr
    assert "documents are kept" in said[-1] and documents_done(place / "full")
    assert not [path for path in (place / "full").glob("openwebtext-*") if path.suffix != ".partial"]
    assert prepare(place, *settings).returncode == 0
    assert content(place / "full") == whole


def test_a_corpus_that_is_larger_than_the_disk_is_refused(place: Path) -> None:
    """Ten terabytes of text, all but the first documents a hole."""
    (place / "huge.jsonl").write_text((json.dumps({"text": "a word " * 20_000}) + "\n") * 9)
    os.truncate(place / "huge.jsonl", 10**13)
    failed = prepare(place, "corpus.path=huge.jsonl", "corpus.store=huge")
    (place / "huge.jsonl").unlink()
    said = failed.stderr.strip().splitlines()
    assert failed.returncode == 1 and "needs about" in said[-1] and "corpus.store=FOLDER" in said[-1], failed.stderr
    assert "10000.00 GB of text" in said[0]
    assert not list((place / "huge").glob("openwebtext-*"))


def test_without_a_network_there_is_a_sentence(place: Path) -> None:
    failed = prepare(place, "corpus.store=nothing", HF_HUB_OFFLINE="1")
    (said,) = failed.stderr.strip().splitlines()
    assert failed.returncode == 1 and "OpenWebText is not on this machine" in said and "corpus.path=FOLDER" in said


def test_a_finished_store_is_compared_with_its_checksums(place: Path, whole: dict[str, bytes]) -> None:
    shutil.copytree(place / "whole", place / "damaged")
    (shard,) = (place / "damaged").glob("openwebtext-*/train/tokens_00000.bin")
    good = shard.read_bytes()
    shard.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    done = prepare(place, "corpus.path=text", "corpus.store=damaged")
    assert done.returncode == 1 and "its sha256 is not the manifest's" in done.stderr and "Traceback" not in done.stderr


def test_paths_of_any_letters_and_domains_as_documented(place: Path) -> None:
    """From a shell that gives them as they are: blanks, commas, brackets, letters of any kind, a home folder."""
    folder = place / "my, texts (é)"
    folder.mkdir()
    lines = "\n".join(json.dumps({"body": f"text {i} of one line " * 9}) for i in range(30))
    (folder / "a=1.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "table.csv").write_text("a,b")
    settings = ["corpus=files", "corpus.vocab_size=300", "corpus.text=body", "corpus.validation_share=0.3", "corpus.workers=1"]

    def files(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PROGRAM, *settings, *more]
        env = os.environ | QUIET | {"HOME": str(place), "COLUMNS": "200"}
        return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)

    done = files(f"corpus.path={folder.name}", "corpus.store=~/été")
    assert done.returncode == 0 and "passed over 1 .csv" in done.stderr and list((place / "été").glob("files-*")), done.stderr
    done = files(f"corpus.domains={{x: ~/{folder.name.replace(',', '?')}, y: '{folder}/a=1.jsonl.gz'}}", "corpus.distinct=false")
    assert done.returncode == 0 and "│ x      │" in done.stdout and "│ y      │" in done.stdout, done.stderr
    (folder / "a=1.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-20])
    done = files(f"corpus.path={folder.name}")
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "a=1.jsonl.gz is no whole gzip file" in said and "Traceback" not in done.stderr


def test_a_locale_without_utf_8_is_no_obstacle(place: Path) -> None:
    """Where paths are bytes to Python, which neither polars nor the tokenizer can say."""
    folder = place / "textes é"
    folder.mkdir()
    pl.DataFrame({"text": [f"texte é {i}" for i in range(9)]}).write_parquet(folder / "é.parquet")
    settings = [
        "corpus=files",
        f"corpus.path={folder.name}",
        "corpus.store=magasin é",
        "corpus.vocab_size=280",
        "corpus.workers=1",
    ]
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    command = [sys.executable, PROGRAM, *settings, "corpus.validation_share=0.4"]
    done = subprocess.run(command, cwd=place, env=os.environ | QUIET | ascii_only, capture_output=True, check=False)
    assert done.returncode == 0 and list((place / "magasin é").glob("files-*/manifest.json")), done.stderr
