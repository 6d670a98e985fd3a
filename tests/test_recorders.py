"""The statistic of docs/extending.md, as it stands there: a plain loop gives the same, in pieces and at once, and everything shows it."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import tiny

from analyze.counts import layer as layer_module
from analyze.counts import merge as merge_module
from analyze.counts.layer import Index, LayerCounts, count, index
from analyze.counts.merge import merged_counts, merged_index
from analyze.counts.recorder import Recorder
from analyze.firing.mask import Firings

HERE = Path(__file__).parents[1]
EXAMPLE = re.findall(r"```python\n(.*?)```", (HERE / "docs/extending.md").read_text(encoding="utf-8"), re.S)[0]
BOS = 2


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    module = ModuleType("longest_run")
    exec(EXAMPLE, vars(module))
    found: Recorder = module.RECORDER
    for user in (layer_module, merge_module):
        monkeypatch.setattr(user, "recorders", lambda: (found,))
    return found


def firings(fires: np.ndarray) -> Firings:
    """Of fires[sequence, position, neuron]."""
    rows = fires.reshape(-1, fires.shape[2])
    neurons = fires.shape[2]
    bits = np.packbits(rows, axis=1, bitorder="little")
    padded = np.zeros((len(bits), -(-neurons // 64) * 8), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return Firings(padded, neurons, np.zeros(neurons, np.float32), np.zeros(neurons, np.int64))


def corpus_of(ids: np.ndarray) -> Index:
    return index(ids.astype(np.int32), np.zeros(len(ids), np.uint8), 1, BOS, 20)


def longest(fires: list[bool]) -> int:
    return max((len(list(run)) for value, run in itertools.groupby(fires) if value), default=0)


def test_a_plain_loop_gives_the_same_in_pieces_and_at_once(recorder: Recorder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 20, (6, 12))
    ids[:, 0], ids[1, 5] = BOS, BOS  # a position that is not counted is passed over
    fires = rng.random((6, 12, 70)) < rng.random(70)
    whole = count(firings(fires), corpus_of(ids), None)
    expected = [
        max(longest([fires[s, p, n] for p in range(12) if ids[s, p] != BOS]) for s in range(6)) for n in range(fires.shape[2])
    ]
    assert whole.of(recorder.name)["length"].tolist() == expected
    parts = [count(firings(fires[:, :, some]), corpus_of(ids), None) for some in (slice(0, 64), slice(64, 70))]
    assert tiny.joined_neurons(parts).of(recorder.name)["length"].tolist() == expected
    shards = [(count(firings(fires[some]), of := corpus_of(ids[some]), None), of) for some in (slice(0, 2), slice(2, 6))]
    (a, ia), (b, ib) = shards
    assert merged_counts(a, b, ia, ib, merged_index(ia, ib, BOS), None).of(recorder.name)["length"].tolist() == expected
    whole.save(tmp_path / "layer_000.safetensors")
    assert LayerCounts.load(tmp_path / "layer_000.safetensors").of(recorder.name)["length"].tolist() == expected


def test_counts_without_recorders_are_as_they_were(tmp_path: Path) -> None:
    ids = np.arange(24).reshape(2, 12) % 17 + 3
    counted = count(firings(np.ones((2, 12, 5), bool)), corpus_of(ids))
    assert not counted.recorded
    counted.save(tmp_path / "layer_000.safetensors")
    assert not LayerCounts.load(tmp_path / "layer_000.safetensors").recorded


@pytest.mark.long
def test_a_file_in_the_folder_is_enough(tmp_path: Path) -> None:
    """A copy of the project with the example in it: the column stands in the table, on the page, in its glossary and in the docs."""
    copy = tmp_path / "copy"
    for name in ("analyze", "models", "corpora", "train", "conf", "docs", "scripts"):
        shutil.copytree(HERE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in HERE.glob("*.py"):
        shutil.copyfile(file, copy / file.name)
    tiny.saved(tmp_path / "model", tiny.random_model())
    ids = np.random.default_rng(0).integers(3, 40, (20, 24)).astype(np.uint16)
    np.save(tmp_path / "ids.npy", ids)
    asked = ["ckpt=model", "corpus=tokens", "corpus.path=ids.npy", "out=out", "wandb.mode=disabled", "device=cpu"]

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(copy / program), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert run("analyze/run.py", *asked, "layers=0").returncode == 0
    (copy / "analyze" / "counts" / "recorders" / "longest_run.py").write_text(EXAMPLE)
    refused = run("analyze/run.py", *asked)
    assert refused.returncode == 1 and "another recorders" in refused.stderr
    assert run("analyze/draw.py", "out=out").returncode == 0
    assert pl.read_parquet(tmp_path / "out" / "neurons.parquet")["longest_run"].null_count() == 44
    done = run("analyze/run.py", *asked[:3], "out=new", *asked[4:])
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "new" / "neurons.parquet")
    assert found["longest_run"].gt(1).any() and found.filter(pl.col("longest_run") > pl.col("n_fired")).is_empty()
    assert json.loads((tmp_path / "new" / "meta.json").read_text())["identity"]["recorders"] == ["longest_run"]
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert "<dt>longest run</dt><dd>The greatest number of consecutive tokens" in page
    assert run("scripts/definitions.py").returncode == 0
    assert "| `longest_run` | positions |" in (copy / "docs/definitions.md").read_text(encoding="utf-8")
