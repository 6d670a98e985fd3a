"""This machine's own text: three domains, readable, always the same."""

import sysconfig
from pathlib import Path
from random import Random

import pytest

from corpora.config import CorpusConfig
from corpora.documents import documents
from corpora.local import docstrings, readable

CONFIG = CorpusConfig("local", "local", bytes_per_domain=150_000)


def test_three_domains_each_with_its_bytes_and_always_the_same() -> None:
    first = list(documents(CONFIG))
    assert first == list(documents(CONFIG))
    for domain in ("code", "prose", "mathematics"):
        assert sum(len(document.text.encode()) for document in first if document.domain == domain) >= 150_000
    code, prose = ({document.name for document in first if document.domain == domain} for domain in ("code", "prose"))
    assert code and prose and not code & prose


def test_a_module_gives_its_source_or_its_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: dict.fromkeys(("stdlib", "purelib", "platlib"), str(tmp_path)))
    words = ["a", "neuron", "is", "dead", "when", "it", "never", "fires", "on", "any", "token", "of", "the", "text"]
    for i in range(40):
        told = " ".join(Random(i).choices(words, k=60))
        (tmp_path / f"m{i}.py").write_text(f'"""{told}"""\n\n\ndef f():\n    """And {told[:50]}."""\n')
    (tmp_path / "LICENSE.txt").write_text(" ".join(Random(99).choices(words, k=60)))
    (tmp_path / "m40.py").write_text("# This file was automatically generated.\n" + (tmp_path / "m0.py").read_text())
    (tmp_path / "m41.py").write_bytes(b"# caf\xe9\n" + (tmp_path / "m0.py").read_bytes())
    names = {domain: [d.name for d in documents(CONFIG) if d.domain == domain] for domain in ("code", "prose")}
    assert names["code"] and names["prose"] and sorted(names["code"] + names["prose"]) == sorted(f"m{i}.py" for i in range(40))


def test_readable_text_is_words() -> None:
    sentence = "".join(
        f"The {word} of a neuron is what makes it fire at last. " for word in ("head", "tail", "body", "edge", "sign")
    )
    assert readable(sentence)
    assert not readable("short")
    assert not readable(", ".join(map(str, Random(0).choices(range(10**6), k=200))))
    assert not readable("the same line again\n" * 400)
    assert not readable("нейрон и его слово, " * 30)


def test_docstrings_of_module_class_and_method_in_order() -> None:
    source = '"""A."""\nclass C:\n    """B."""\n    def f(self):\n        """C\n\n        c."""\ndef g(): pass\n'
    assert docstrings(source) == ["A.", "B.", "C\n\nc."]
    assert docstrings(source + "def (") == []
