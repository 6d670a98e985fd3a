"""A checkpoint is an index of places on disk: the bytes are there, nothing else is read, nothing runs, and damage is a sentence."""

import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import layouts
import pytest
import tiny
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, PREFIXES
from reading import read_block

from analyze.forward.weight_prefetch import Weights
from device import CPU
from errors import UserError
from models.open_checkpoint import open_checkpoint
from models.pickled import plain_values
from models.tensor_places import Stored, safetensors_index

EVERY = [*LAYOUTS, "legacy bin"]


def written(folder: Path, layout: str, prefix: str = "model.", **changed: torch.Tensor | None) -> list[Path]:
    """A small model in this layout; `changed` tensors have other values, or are left out where None. Underscores stand for dots."""
    model = tiny.random_model()
    weights = layouts.weights_of(model, prefix)
    for name in list(weights):
        if (short := name.removeprefix(f"{prefix}decoder.").replace(".", "_")) in changed:
            if (tensor := changed.pop(short)) is None:
                del weights[name]
            else:
                weights[name] = tensor
    assert not changed
    return layouts.write(folder, model, weights, layout.removeprefix("legacy "), legacy="legacy" in layout)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", EVERY)
def test_every_tensor_is_where_the_index_says(layout: str, prefix: str, tmp_path: Path) -> None:
    files = written(tmp_path / "m", layout, prefix)
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    assert checkpoint.tensors["decoder.layers.0.fc1.weight"].dtype == torch.float16 and checkpoint.files == files
    for name, tensor in tiny.random_model().state_dict().items():
        stored = checkpoint.tensors[name]
        there = stored.file.read_bytes()[stored.offset : stored.offset + stored.nbytes]
        assert there == tensor.half().numpy().tobytes() and stored.shape == tuple(tensor.shape)
        assert torch.equal(stored.read(), tensor.half())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("layout", EVERY)
def test_layers_that_take_turns_in_a_slab_are_the_blocks(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    written(tmp_path / "m", layout)
    checkpoint, expected = open_checkpoint(str(tmp_path / "m")), tiny.random_model().state_dict()
    weights = Weights(checkpoint, dtype, CPU(), slots=1)
    slab, layers = weights.slots[0].slab, range(checkpoint.config.layers)
    for layer, block in zip(layers, weights.blocks(layers), strict=True):
        for name, tensor in block.state_dict().items():
            assert tensor.dtype == dtype and torch.equal(tensor, expected[f"decoder.layers.{layer}.{name}"].half().to(dtype))
            assert tensor.untyped_storage().data_ptr() == slab.data_ptr(), "no copy"
            assert (tensor.data_ptr() - slab.data_ptr()) % 64 == 0, "as a GPU likes it"


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_share_skip_and_turn_are_read_as_torch_reads_them(legacy: bool, tmp_path: Path) -> None:
    whole = torch.arange(60.0).view(6, 10)
    kept: dict[str, Any] = {
        "whole": whole,
        "rows": whole[2:4],
        "turned": whole.T,
        "apart": whole[::2, 1::3],
        "one": whole[1, 1],
        "none": whole[:0],
    }
    kept |= {"parameter": torch.nn.Parameter(whole[0]), "bfloat16": whole.bfloat16(), "number": 7, "list": [1.5, "a", None]}
    torch.save(kept, tmp_path / "x.bin", _use_new_zipfile_serialization=not legacy)
    found, theirs = plain_values(tmp_path / "x.bin"), torch.load(tmp_path / "x.bin", weights_only=True)
    for name, expected in theirs.items():
        if isinstance(expected, torch.Tensor):
            assert torch.equal(found[name].read(), expected) and found[name].dtype == expected.dtype
        else:
            assert found[name] == expected
    assert found["turned"].file == tmp_path / "x.bin" and found["turned"].offset == found["whole"].offset


def test_a_file_larger_than_any_memory_is_indexed(tmp_path: Path) -> None:
    shape = [9216, 36864]
    entries = {f"layer {n}": {"dtype": "F16", "shape": shape, "data_offsets": [n * S, (n + 1) * S]} for n in range(1000)}
    header = json.dumps(entries).encode()
    with (tmp_path / "x.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + 1000 * S)  # 680 GB, none of them written
    found = safetensors_index(tmp_path / "x.safetensors")
    assert found["layer 999"] == Stored(
        tmp_path / "x.safetensors", 8 + len(header) + 999 * S, torch.float16, (9216, 36864), (36864, 1)
    )


S = 2 * 9216 * 36864


class Runs:
    """What a hostile file holds."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("layout", ["bin", "bin-sharded", "legacy bin"])
def test_a_pickle_that_would_run_code_does_not(layout: str, tmp_path: Path) -> None:
    file = written(tmp_path / "m", layout)[-1]
    torch.save({"weights": Runs(f"touch {tmp_path}/ran")}, file, _use_new_zipfile_serialization="legacy" not in layout)
    with pytest.raises(
        UserError, match=r"it asks for (posix|nt)\.system, which is neither a tensor nor a plain value\.$"
    ) as said:
        open_checkpoint(str(tmp_path / "m"))
    assert file.name in str(said.value) and not (tmp_path / "ran").exists()


def test_a_pickle_cannot_change_how_the_next_one_is_read(tmp_path: Path) -> None:
    """The opcode BUILD sets attributes; on whatever a global stands for, too."""
    wild = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x05\x00\x00\x00shapeK\x01s\x86b."
    with zipfile.ZipFile(tmp_path / "wild.bin", "w") as archive:
        archive.writestr("wild/data.pkl", wild)
    plain_values(tmp_path / "wild.bin")
    torch.save({"x": torch.ones(3)}, tmp_path / "tame.bin")
    assert torch.equal(plain_values(tmp_path / "tame.bin")["x"].read(), torch.ones(3))


MISTAKES = {
    "a tensor missing": ({"layers_1_fc1_weight": None}, r"lacks decoder\.layers\.1\.fc1\.weight\.$"),
    "an unexpected one": ({}, r"has the unexpected decoder\.layers\.2\.fc1\.bias"),
    "a wrong shape": (
        {"layers_1_fc1_weight": torch.zeros(44, 31)},
        r"fc1\.weight is \(44, 31\), but config\.json asks for \(44, 32\)\.$",
    ),
    "another type": ({"layers_1_fc1_bias": torch.zeros(44, dtype=torch.int8)}, r"fc1\.bias is torch\.int8; only floating-point"),
}


@pytest.mark.parametrize("layout", EVERY)
@pytest.mark.parametrize(("changed", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistaken_checkpoint_is_a_sentence(
    layout: str, changed: dict[str, torch.Tensor | None], said: str, tmp_path: Path
) -> None:
    written(tmp_path / "m", layout, "model.", **changed)
    if not changed:
        config = json.loads((tmp_path / "m" / "config.json").read_text())
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(UserError, match=said):
        open_checkpoint(str(tmp_path / "m"))


@pytest.mark.parametrize("layout", EVERY)
def test_weights_that_are_not_numbers_are_named(layout: str, tmp_path: Path) -> None:
    weight = torch.full((44, 32), 0.1).half()
    weight[43, 31] = float("nan")
    written(tmp_path / "m", layout, layers_1_fc1_weight=weight)
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    read_block(checkpoint, 0)
    with pytest.raises(UserError, match=r"decoder\.layers\.1\.fc1\.weight holds NaN or infinity"):
        read_block(checkpoint, 1)


def test_weights_too_large_for_float16_are_named(tmp_path: Path) -> None:
    model = tiny.random_model()
    tiny.block(model, 2).fc2.bias.data[3] = 1e6
    layouts.write(tmp_path / "m", model, layouts.weights_of(model, dtype=torch.float32), "bin")
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    read_block(checkpoint, 2)
    with pytest.raises(UserError, match=r"layers\.2\.fc2\.bias holds NaN or infinity in float16"):
        read_block(checkpoint, 2, torch.float16)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "sharded" in layout])
def test_a_missing_shard_is_named(layout: str, tmp_path: Path) -> None:
    written(tmp_path / "m", layout)[1].unlink()
    with pytest.raises(UserError, match=r"lacks .*-00002-of-00003\..*, which .*index\.json names"):
        open_checkpoint(str(tmp_path / "m"))


@pytest.mark.parametrize("layout", EVERY)
def test_a_truncated_file_is_named_wherever_it_ends(layout: str, tmp_path: Path) -> None:
    file = written(tmp_path / "m", layout)[-1]
    content = file.read_bytes()
    for kept in [0, 1, 8, 60, *range(100, len(content), len(content) // 7), len(content) - 1]:
        file.write_bytes(content[:kept])
        with pytest.raises(UserError, match=file.name):
            open_checkpoint(str(tmp_path / "m"))


def test_a_file_cut_after_it_was_opened_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "m", "safetensors")[0]
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    os.truncate(file, 1000)
    with pytest.raises(UserError, match=r"model\.safetensors ends within a tensor"):
        read_block(checkpoint, 2)


@pytest.mark.parametrize("layout", ["safetensors", "bin", "legacy bin"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3000), put=st.binary(min_size=1, max_size=4))
@example(at=625, put=b"\x04")  # the length of an entry's header within the zip
def test_any_other_damage_is_a_sentence_too(layout: str, tmp_path: Path, at: int, put: bytes) -> None:
    file = tmp_path / ("x.safetensors" if layout == "safetensors" else "x.bin")
    layouts._save(file, {"a.weight": torch.zeros(3, 4), "b.bias": torch.ones(2)}, legacy="legacy" in layout)
    content = bytearray(file.read_bytes())
    content[at % len(content) : at % len(content) + len(put)] = put
    file.write_bytes(content)
    try:
        found = safetensors_index(file) if layout == "safetensors" else plain_values(file)
    except UserError as said:
        assert file.name in str(said) and len(str(said)) < 400
    else:
        for stored in found.values() if isinstance(found, dict) else ():
            if isinstance(stored, Stored):
                assert stored.offset >= 0 and stored.offset + stored.nbytes <= len(content)


def test_names_with_and_without_the_prefix_at_once_are_refused(tmp_path: Path) -> None:
    model = tiny.random_model()
    both = layouts.weights_of(model, "model.") | layouts.weights_of(model, "")
    layouts.write(tmp_path / "m", model, both, "bin")
    with pytest.raises(UserError, match="twice, with and without the prefix"):
        open_checkpoint(str(tmp_path / "m"))


def test_a_tar_file_of_the_first_torch_says_what_to_do(tmp_path: Path) -> None:
    written(tmp_path / "m", "bin")
    (tmp_path / "storages").write_bytes(pickle.dumps(0))
    with tarfile.open(tmp_path / "m" / "pytorch_model.bin", "w") as old:
        old.add(tmp_path / "storages", "storages")
    with pytest.raises(UserError, match="it is a tar file of 2016; load and save it once"):
        open_checkpoint(str(tmp_path / "m"))


def test_a_hub_name_is_found_in_the_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--opt-tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots").mkdir()
    written(repository / "snapshots" / "c0ffee", "bin-sharded")
    found = open_checkpoint("somebody/opt-tiny")
    assert found.title == "somebody/opt-tiny" and len(found.files) == 3
    with pytest.raises(UserError, match="somebody/opt-other does not exist here, and the hub or its local cache"):
        open_checkpoint("somebody/opt-other")


def test_a_hub_name_that_no_network_reaches_is_a_sentence_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first address; behind the second, a proxy's, nobody either, and only trying tells."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("hub_access.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: pytest.fail("tries again and again"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(UserError, match="somebody/opt-tiny does not exist here, and the hub or its local cache"):
        open_checkpoint("somebody/opt-tiny")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("models.hub.reachable", lambda: True)
    with pytest.raises(UserError, match="somebody/opt-tiny does not exist here, and the hub or its local cache"):
        open_checkpoint("somebody/opt-tiny")
