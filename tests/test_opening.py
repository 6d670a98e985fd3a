"""What people give as a checkpoint: shards as an index names them, heads beside the model; what cannot be read is named for what it is."""

import json
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import layouts
import pytest
import tiny
import torch
from layouts import Weights
from reading import read_model
from safetensors.torch import save_file

from errors import UserError
from models.open_checkpoint import open_checkpoint

INDEX = "model.safetensors.index.json"


def half(prefix: str = "model.") -> Weights:
    return layouts.weights_of(tiny.random_model(), prefix)


def sharded(folder: Path) -> dict[str, str]:
    """A checkpoint of three shards; which tensor is in which."""
    layouts.write(folder, tiny.random_model(), half(), "safetensors-sharded")
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def indexed(folder: Path, shard_of: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))


def refused(folder: Path) -> str:
    """What is said of it: a sentence or two that name it."""
    with pytest.raises(UserError) as said:
        open_checkpoint(str(folder))
    assert folder.name in str(said.value) and len(str(said.value)) < 500
    return str(said.value)


def test_shards_of_one_name_in_subfolders_are_told_apart(tmp_path: Path) -> None:
    shard_of, moved = sharded(tmp_path / "m"), {}
    for number, shard in enumerate(sorted(set(shard_of.values()))):
        (tmp_path / "m" / f"part {number}").mkdir()
        moved[shard] = f"part {number}/x.safetensors"
        (tmp_path / "m" / shard).rename(tmp_path / "m" / moved[shard])
    indexed(tmp_path / "m", {name: moved[shard] for name, shard in shard_of.items()})
    read = read_model(open_checkpoint(str(tmp_path / "m"))).state_dict()
    assert all(torch.equal(read[name.removeprefix("model.")], tensor.float()) for name, tensor in half().items())


@pytest.mark.parametrize("kind", ["absolute", "above", "within and above", "windows", "drive"])
def test_a_shard_outside_the_folder_is_not_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard_of = sharded(tmp_path / "m")
    last = max(shard_of.values())
    shutil.move(tmp_path / "m" / last, tmp_path / "x.safetensors")
    outside = {
        "absolute": str(tmp_path / "x.safetensors"),
        "above": "../x.safetensors",
        "within and above": "a/../../x.safetensors",
        "windows": "..\\x.safetensors",
        "drive": "C:x.safetensors",
    }[kind]
    indexed(tmp_path / "m", {name: outside if shard == last else shard for name, shard in shard_of.items()})
    monkeypatch.setattr("models.shards.safetensors_index", lambda file: pytest.fail(f"opens {file}"))
    assert "lies outside its folder" in refused(tmp_path / "m")


def test_a_tensor_in_another_shard_than_the_index_says_is_named(tmp_path: Path) -> None:
    shard_of = sharded(tmp_path / "m")
    name, others = "model.decoder.layers.0.fc1.weight", sorted(set(shard_of.values()))
    wrong = next(shard for shard in others if shard != shard_of[name])
    indexed(tmp_path / "m", shard_of | {name: wrong})
    assert f"{name} is in {wrong}, but it is in {shard_of[name]}" in refused(tmp_path / "m")


def test_an_index_that_says_a_tensor_twice_is_refused(tmp_path: Path) -> None:
    shard_of = sharded(tmp_path / "m")
    name = next(iter(shard_of))
    other = next(shard for shard in shard_of.values() if shard != shard_of[name])
    text = (tmp_path / "m" / INDEX).read_text().replace('{"model', f'{{"{name}": "{other}", "model', 1)
    (tmp_path / "m" / INDEX).write_text(text)
    assert "twice" in refused(tmp_path / "m")


def test_of_two_copies_the_index_says_which_is_meant(tmp_path: Path) -> None:
    shard_of, name = sharded(tmp_path / "m"), "model.decoder.layers.0.fc1.weight"
    extra = tmp_path / "m" / "extra.safetensors"
    save_file({name: torch.zeros(44, 32).half(), "model.decoder.version": torch.zeros(1)}, extra)
    indexed(tmp_path / "m", shard_of | {"model.decoder.version": extra.name})
    stored = open_checkpoint(str(tmp_path / "m")).tensors["decoder.layers.0.fc1.weight"]
    assert stored.file.name == shard_of[name] and torch.equal(stored.read(), half()[name])


@pytest.mark.parametrize("shard_of", [None, {}, [], "x", {"a": 1}, {"a": None}], ids=str)
def test_an_index_without_a_map_is_refused(shard_of: Any, tmp_path: Path) -> None:
    sharded(tmp_path / "m")
    indexed(tmp_path / "m", shard_of)
    assert "has no weight_map" in refused(tmp_path / "m")


def test_of_safetensors_and_bin_the_safetensors_are_read(tmp_path: Path) -> None:
    layouts.write(tmp_path / "m", tiny.random_model(), half(), "safetensors")
    torch.save({"other": torch.zeros(2)}, tmp_path / "m" / "pytorch_model.bin")
    assert open_checkpoint(str(tmp_path / "m")).files == [tmp_path / "m" / "model.safetensors"]


HEADS: dict[str, Callable[[], Weights]] = {
    "of a value head": lambda: {"v_head.summary.weight": torch.zeros(1, 32), "v_head.summary.bias": torch.zeros(1)},
    "of a classifier": lambda: {"score.weight": torch.zeros(2, 32)},
    "of answers": lambda: {"qa_outputs.weight": torch.zeros(2, 32), "qa_outputs.bias": torch.zeros(2)},
    "of an optimizer": lambda: {"optimizer.exp_avg.0": torch.zeros(5, 5), "lm_head.bias": torch.zeros(40)},
    "in whole numbers": lambda: {"number_of_batches": torch.zeros(1, dtype=torch.int64)},
}


@pytest.mark.parametrize("prefix", ["model.", "", "module.model.", "pretrained_model.model.", "_orig_mod.model."])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_what_a_census_does_not_need_is_named_and_passed_over(head: Callable[[], Weights], prefix: str, tmp_path: Path) -> None:
    layouts.write(tmp_path / "m", tiny.random_model(), half(prefix) | head(), "safetensors")
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    (note,) = checkpoint.notes
    assert "passed over" in note and all(name in note for name in head())
    assert set(checkpoint.tensors) == set(tiny.random_model().state_dict())


def test_a_counter_of_old_exports_is_not_worth_a_word(tmp_path: Path) -> None:
    layouts.write(tmp_path / "m", tiny.random_model(), half() | {"model.decoder.version": torch.ones(1)}, "bin")
    assert open_checkpoint(str(tmp_path / "m")).notes == []


def test_biases_that_config_json_switches_off_are_passed_over_too(tmp_path: Path) -> None:
    model = tiny.random_model(biases=False, gains=False)
    layouts.write(tmp_path / "m", model, layouts.weights_of(model) | half(), "safetensors")
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    assert "passed over" in checkpoint.notes[0] and set(checkpoint.tensors) == set(model.state_dict())


WHAT_IT_IS: dict[str, tuple[Weights | dict[str, bytes], dict[str, Any], str]] = {
    "GPTQ": ({"model.decoder.layers.0.fc1.qweight": torch.zeros(4, 4, dtype=torch.int32)}, {}, "is quantised"),
    "AWQ by its config": ({}, {"quantization_config": {"quant_method": "awq"}}, r"is quantised \(awq\)"),
    "an odd quantisation": ({}, {"quantization_config": {"bits": 4}}, "is quantised"),
    "bitsandbytes": ({"model.decoder.layers.0.fc1.weight.absmax": torch.zeros(4)}, {}, "is quantised"),
    "LLM.int8": ({"model.decoder.layers.0.fc1.SCB": torch.zeros(4)}, {}, "is quantised"),
    "int8": ({"model.decoder.layers.1.fc1.weight": torch.zeros(44, 32, dtype=torch.int8)}, {}, "is quantised"),
    "FP8": ({"model.decoder.layers.1.fc1.weight": torch.zeros(44, 32).to(torch.float8_e4m3fn)}, {}, "is quantised"),
    "an adapter within": ({"model.decoder.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 32)}, {}, r"adapter \(LoRA\)"),
    "an encoder": ({"model.encoder.layers.0.fc1.weight": torch.zeros(2, 32)}, {}, "encoder-decoder"),
    "BART": ({}, {"model_type": "bart", "is_encoder_decoder": True}, "encoder-decoder of type 'bart'"),
    "Llama": ({}, {"model_type": "llama"}, "a model of type 'llama'; only 'opt'"),
    "no type": ({}, {"model_type": None}, "without a model_type"),
    "a pointer": (
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n"},
        {},
        "git lfs pull",
    ),
    "a web page": ({"model.safetensors": b"<!DOCTYPE html><html>Log in</html>"}, {}, "is a web page"),
    "an empty file": ({"model.safetensors": b""}, {}, "is not a whole safetensors file"),
}


@pytest.mark.parametrize(("files", "entries", "said"), WHAT_IT_IS.values(), ids=WHAT_IT_IS)
def test_weights_that_cannot_be_read_are_named_for_what_they_are(
    files: dict[str, Any], entries: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tensors = {name: tensor for name, tensor in files.items() if isinstance(tensor, torch.Tensor)}
    layouts.write(tmp_path / "m", tiny.random_model(), half() | tensors, "safetensors")
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / "m" / name).write_bytes(content)
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))
    with pytest.raises(UserError, match=said):
        open_checkpoint(str(tmp_path / "m"))


def test_fp8_of_torch_s_own_file_is_quantised(tmp_path: Path) -> None:
    eighth = {"model.decoder.layers.1.fc1.weight": torch.zeros(44, 32).to(torch.float8_e4m3fn)}
    layouts.write(tmp_path / "m", tiny.random_model(), half() | eighth, "bin")
    assert "quantised" in refused(tmp_path / "m")


FOLDERS = {
    "adapter_model.safetensors": r"no config\.json: it is an adapter \(LoRA\) for facebook/opt-125m; merge it",
    "opt-125m.Q4_K_M.gguf": "GGUF, llama.cpp's format",
    "model.onnx": "ONNX",
    "flax_model.msgpack": "weights are Flax's; convert",
    "tf_model.h5": "weights are TensorFlow's; convert",
    "__0_0.distcp": "dcp_to_torch",
    "zero_to_fp32.py": "DeepSpeed",
    "reshard-model_part-0.pt": "metaseq",
    "model.safetensors.incomplete": "has not finished",
    "model-00001-of-00002.safetensors": "index beside them",
    "weights.pth": "have another name",
    "readme.txt": "give a folder that holds a model's weights",
    "": "it is empty",
}


@pytest.mark.parametrize("described", [False, True], ids=["without config.json", "with config.json"])
@pytest.mark.parametrize(("file", "said"), FOLDERS.items())
def test_a_folder_of_another_kind_is_named_for_what_it_is(file: str, said: str, described: bool, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    layouts.write(folder, tiny.random_model(), half(), "safetensors")
    (folder / "model.safetensors").unlink()
    if not described:
        (folder / "config.json").unlink()
    if file:
        (folder / file).write_bytes(b"x")
    if file.startswith("adapter"):
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "facebook/opt-125m"}))
    if described:
        said = {"it is empty": "give a folder that holds"}.get(said, said).removeprefix(r"no config\.json: ")
    with pytest.raises(UserError, match=said):
        open_checkpoint(str(folder))


def test_a_folder_of_checkpoints_names_one(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "m" / "checkpoint-500", tiny.random_model())
    assert f"such as {tmp_path / 'm' / 'checkpoint-500'}" in refused(tmp_path / "m")


def test_a_file_of_weights_says_which_folder(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "m", tiny.random_model())
    with pytest.raises(UserError, match=rf"give the folder that it lies in: ckpt={tmp_path / 'm'}\.$"):
        open_checkpoint(str(tmp_path / "m" / "model.safetensors"))


@pytest.mark.parametrize(
    "values", [[1, 2], {"model": 3}, {"model": {}, "state_dict": {"a": 1}}, {"model": {"depth": 3}, "state_dict": {}}], ids=str
)
def test_a_ckpt_of_others_is_a_sentence(values: Any, tmp_path: Path) -> None:
    torch.save(values, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt")


def test_a_name_that_no_file_can_have_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        open_checkpoint("x" * 300)


class Answer(BaseHTTPRequestHandler):
    """The hub's answer about every repository: `said` is its code and what it calls the error."""

    said = (404, "RepoNotFound")

    def do_GET(self) -> None:
        self.send_response(self.said[0])
        self.send_header("X-Error-Code", self.said[1])
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (403, "GatedRepo", "accepted its terms: do so at https://huggingface.co/somebody/opt-tiny"),
        (401, "RepoNotFound", "nothing of that name, or it is private"),
        (404, "RepoNotFound", "nothing of that name, or it is private"),
    ],
)
def test_a_hub_repository_that_is_not_handed_out_says_why(
    code: int, error: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Answer, "said", (code, error))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)  # else another's, which it asks again and again
    monkeypatch.setattr("models.hub.reachable", lambda: True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        with pytest.raises(UserError, match=said):
            open_checkpoint("somebody/opt-tiny")
    finally:
        server.shutdown()
        server.server_close()
