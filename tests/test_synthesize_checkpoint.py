"""Random checkpoints of OPT's sizes: the same model in every layout, firing rarely, and never half of one."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reading import read_block, read_model
from transformers import AutoModelForCausalLM

from models.open_checkpoint import open_checkpoint

LAYOUTS = {
    "safetensors": ["--layout", "safetensors"],
    "safetensors-sharded": ["--layout", "safetensors-sharded", "--shard-gb", "0.0005", "--no-prefix"],
    "bin": ["--layout", "bin", "--no-prefix"],
    "bin-sharded": ["--layout", "bin-sharded", "--shard-gb", "0.0005"],
}


@pytest.fixture(autouse=True)
def path_of_its_own() -> Iterator[None]:
    """A script puts the repository on sys.path for itself."""
    before = sys.path.copy()
    yield
    sys.path[:] = before


def synthesize(*words: object) -> None:
    from scripts.synthesize_checkpoint import main

    main(map(str, words))


@torch.no_grad()
def test_every_layout_is_the_same_model_and_fires_as_rarely_as_a_trained_one(tmp_path: Path) -> None:
    models = {}
    for layout, words in LAYOUTS.items():
        synthesize("8m", tmp_path / layout, "--layers", 2, *words)
        models[layout] = open_checkpoint(str(tmp_path / layout))
        assert len(models[layout].files) == (3 if "sharded" in layout else 1)
        first = models["safetensors"]
        for name, stored in models[layout].tensors.items():
            assert stored.dtype == torch.float16 and torch.equal(stored.read(), first.tensors[name].read())
    ids = torch.randint(4, 50_000, (1, 300), generator=torch.Generator().manual_seed(0))
    for layout in ("bin-sharded", "safetensors"):
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / layout, dtype=torch.float32)
        torch.testing.assert_close(read_model(models[layout])(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    _, pre = read_block(models["bin"], 0)(models["bin"].ends(torch.float32).embed(ids))
    frequency = (pre > 0).float().mean((0, 1))
    assert 0.05 < frequency.mean() < 0.2 and (frequency < 0.01).float().mean() > 0.2 and frequency.max() > 0.3


@torch.no_grad()
def test_one_layer_on_disk_stands_for_all(tmp_path: Path) -> None:
    synthesize("8m", tmp_path / "m", "--layout", "bin-sharded", "--one-layer")
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    fc1 = {checkpoint.tensors[f"decoder.layers.{layer}.fc1.weight"] for layer in range(4)}
    assert len(fc1) == 1 and torch.equal(read_block(checkpoint, 3).fc2.weight, read_block(checkpoint, 0).fc2.weight)
    stored = {(t.offset, t.nbytes) for t in checkpoint.tensors.values()}
    assert sum(file.stat().st_size for file in checkpoint.files) < sum(nbytes for _, nbytes in stored) + 50_000
    assert len(AutoModelForCausalLM.from_pretrained(tmp_path / "m").model.decoder.layers) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_leaves_nothing(layout: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))  # the embedding alone has 12.9 MB
    try:
        with pytest.raises(SystemExit, match=f"^error: {tmp_path}/m could not be written .*; nothing is left of it\\.$"):
            synthesize("8m", tmp_path / "m", *LAYOUTS[layout])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


REFUSED = {
    "no room": (["66b", "--layout", "bin", "--dtype", "float32"], r"m needs 262\.9 GB, but .* has 1\.0 GB free"),
    "one layer as safetensors": (["8m", "--one-layer"], "--one-layer needs --layout bin"),
    "there already": (["8m"], "exists already"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_refused_before(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    if said == "exists already":
        (tmp_path / "m").mkdir()
    before = list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=said):
        synthesize(words[0], tmp_path / "m", *words[1:])
    assert list(tmp_path.iterdir()) == before
