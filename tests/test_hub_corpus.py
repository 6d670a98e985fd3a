"""Any data set through `datasets`: folders of save_to_disk and of parquet; what cannot be had ends in a sentence."""

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from corpora import hub, notices
from corpora.config import CorpusConfig
from corpora.documents import documents
from corpora.prepare import token_store
from errors import UserError

TEXTS = [f"text {i} of a data set, " * 9 for i in range(40)]


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusConfig:
    """One part of a saved data set, with a text that is null; another part, and a folder of parquet files."""
    datasets.disable_progress_bars()
    train = datasets.Dataset.from_dict({"text": [None, *TEXTS], "number": range(len(TEXTS) + 1)})
    other = datasets.Dataset.from_dict({"text": ["another part"], "number": [1]})
    datasets.DatasetDict({"train": train, "test": other}).save_to_disk(tmp_path / "parts")
    train.save_to_disk(tmp_path / "saved")
    (tmp_path / "files").mkdir()
    train.to_parquet(tmp_path / "files" / "train.parquet")
    settings = {"vocab_size": 300, "validation_share": 0.3, "store": str(tmp_path / "stores")}
    return CorpusConfig("mine", "hub", path=str(tmp_path / "saved"), **settings)  # type: ignore[arg-type]


def texts(config: CorpusConfig) -> list[str]:
    return [document.text for document in documents(config)]


@pytest.mark.parametrize("kind", ["saved", "parts", "files"])
def test_a_folder_gives_its_texts(corpus: CorpusConfig, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    notices.announce.cache_clear()
    config = replace(corpus, path=str(Path(str(corpus.path)).with_name(kind)))
    assert texts(config) == TEXTS
    assert "1 row without a text in 'text' left out, namely " in capsys.readouterr().err
    assert [d.text for d in documents(config, 7)] == TEXTS[7:]
    assert texts(replace(config, bytes_per_domain=1000)) == TEXTS[: 1 + 1000 // len(TEXTS[0])]
    with pytest.raises(UserError, match=r"row 1 has no text .*corpus\.strict=false"):
        texts(replace(config, strict=True))


def test_a_part_is_named(corpus: CorpusConfig, tmp_path: Path) -> None:
    assert texts(replace(corpus, path=str(tmp_path / "parts"), part="test")) == ["another part"]
    with pytest.raises(UserError, match=r"corpus\.part=dev is none of the parts of .*: train, test"):
        documents(replace(corpus, path=str(tmp_path / "parts"), part="dev"))
    with pytest.raises(UserError, match=r"Bad split.*Name one with corpus\.part=NAME"):
        documents(replace(corpus, path=str(tmp_path / "files"), part="dev"))
    with pytest.raises(UserError, match=r"'en' not found.*Name one with corpus\.subset=NAME"):
        documents(replace(corpus, path=str(tmp_path / "files"), subset="en"))


def test_a_column_is_named(corpus: CorpusConfig) -> None:
    with pytest.raises(UserError, match=r"no column 'body', only text, number"):
        documents(replace(corpus, text="body"))
    with pytest.raises(UserError, match=r"the column 'number' of .* holds .*int64.*, not text"):
        documents(replace(corpus, text="number"))


def test_a_store_is_made_and_found_again(corpus: CorpusConfig, tmp_path: Path) -> None:
    """The same texts of another folder are another store of the same tokens; another part is none of them."""
    made = token_store(corpus)
    assert token_store(corpus).folder == made.folder
    parts = token_store(replace(corpus, path=str(tmp_path / "parts")))
    assert parts.folder != made.folder and parts.fingerprint == made.fingerprint
    with pytest.raises(UserError, match="split empty"):
        token_store(replace(corpus, path=str(tmp_path / "parts"), part="test"))


def test_a_damaged_or_foreign_folder_is_a_sentence(corpus: CorpusConfig, tmp_path: Path) -> None:
    for state, sentence in (("{", "cannot be read"), ("{}", "cannot be read")):
        (tmp_path / "saved" / "state.json").write_text(state)
        with pytest.raises(UserError, match=sentence):
            documents(corpus)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match=r"scripts are no longer supported.*refs/convert/parquet"):
        documents(replace(corpus, path=str(tmp_path / "script")))


def test_without_a_network_there_is_a_sentence(corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the store that was made when there was one is taken."""
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"allenai/c4 cannot be read: .*Run this where there is a network, or give corpus\.path=FOLDER"
    ):
        token_store(replace(corpus, path="allenai/c4", subset="en"))
