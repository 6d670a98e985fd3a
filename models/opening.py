"""A path or a hub name -> an opened checkpoint: its configuration, and where each of its tensors is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from models.checkpoint import Checkpoint, some
from models.config import OPTConfig, from_huggingface
from models.hub import LAYOUTS, hub_folder
from models.opt import OPT, exported_positions
from models.pickled import plain_values
from models.weights import Stored, safetensors_index

TRAINED_IN = {"bf16-mixed": "bfloat16", "32-true": "float32"}  # what Lightning's names of precisions compute in
NOT_PARAMETERS = ("lm_head.weight", "decoder.version")  # the tied unembedding, and a counter of old exports


def open_checkpoint(where: str) -> Checkpoint:
    """Open a HuggingFace folder or milestone, one of our `.ckpt` files, or a hub name such as facebook/opt-125m.

    Raises:
        UserError: nothing is there, it is damaged, it is not an OPT, or a parameter is missing or of another shape.
    """
    path = Path(where)
    if path.is_file() and path.suffix == ".ckpt":
        checkpoint = _open_lightning(path)
    elif (path / "config.json").is_file():
        checkpoint = _open_folder(path)
    elif path.exists():
        raise UserError(
            f"ckpt={where} is neither a folder with a config.json, nor a .ckpt file, nor a run folder with milestones/."
        )
    else:
        checkpoint = replace(_open_folder(hub_folder(where)), name=where)
    _check_complete(checkpoint, where)
    return checkpoint


def _check_complete(checkpoint: Checkpoint, where: str) -> None:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in OPT(checkpoint.config).state_dict().items()}
    missing = sorted(set(expected) - set(checkpoint.tensors))
    unexpected = sorted(set(checkpoint.tensors) - set(expected) - set(NOT_PARAMETERS))
    if exported_positions(checkpoint.config) is not None:
        unexpected = [name for name in unexpected if name != "decoder.embed_positions.weight"]
    if missing or unexpected:
        parts = [f"{what} {some(names)}" for what, names in (("lacks", missing), ("has the unexpected", unexpected)) if names]
        raise UserError(f"{where} is not a whole checkpoint of its config.json: it {' and '.join(parts)}.")
    for name, shape in expected.items():
        stored = checkpoint.tensors[name]
        if stored.shape != shape:
            raise UserError(f"{where}: {name} is {stored.shape}, but config.json asks for {shape}.")
        if not stored.dtype.is_floating_point:
            raise UserError(f"{where}: {name} is {stored.dtype}; only floating-point weights can be read.")


def _open_folder(folder: Path) -> Checkpoint:
    config = from_huggingface(_json(folder / "config.json"), str(folder))
    weights = next((folder / name for name in LAYOUTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder} has none of {', '.join(LAYOUTS)}.")
    files, tensors = _sharded(weights) if weights.suffix == ".json" else ([weights], _plain(_index(weights), weights))
    state = _json(folder / "training_state.json") if (folder / "training_state.json").is_file() else {}
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return Checkpoint(
        path=folder,
        files=files,
        config=config,
        tensors=tensors,
        tokenizer=str(folder) if tokenizer else None,
        step=state.get("step"),
        tokens_trained=state.get("tokens"),
        name=state.get("name") or folder.resolve().name,
        precision=state.get("precision"),
    )


def _sharded(index: Path) -> tuple[list[Path], dict[str, Stored]]:
    """The files that an index names, and the tensors it expects in each."""
    shard_of = _json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(name, str) for name in shard_of.values()):
        raise UserError(f"{index} has no weight_map; copy or download it again.")
    files = [index.parent / name for name in sorted(set(shard_of.values()))]
    if absent := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{index.parent} lacks {some(absent)}, which {index.name} names.")
    found = {file.name: _index(file) for file in files}
    return files, _plain({name: found[shard][name] for name, shard in shard_of.items() if name in found[shard]}, index)


def _open_lightning(path: Path) -> Checkpoint:
    stored = plain_values(path)
    try:
        config, weights = OPTConfig(**stored["model"]), stored["state_dict"]
    except (KeyError, TypeError):
        raise UserError(f"{path} is not a .ckpt file of this project: it has no model configuration in it.") from None
    tokenizer = path.parent.parent / "tokenizer.json"
    return Checkpoint(
        path=path,
        files=[path],
        config=config,
        tensors=_plain(weights, path),
        tokenizer=str(tokenizer) if tokenizer.is_file() else None,
        step=stored.get("global_step"),
        tokens_trained=stored.get("tokens"),
        name=stored.get("name") or path.stem,
        precision=TRAINED_IN.get(stored.get("identity", {}).get("precision")),
    )


def _index(file: Path) -> dict[str, Stored]:
    if file.suffix == ".safetensors":
        return safetensors_index(file)
    values = plain_values(file)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{file} holds a {type(values).__name__}; a checkpoint is tensors by their names.")
    return {name: value for name, value in values.items() if isinstance(value, Stored)}


def _plain(tensors: dict[str, Stored], file: Path) -> dict[str, Stored]:
    """The same under names from `decoder.` on: some exports have `model.` before it, some have not."""
    plain = {name.removeprefix("model."): stored for name, stored in tensors.items()}
    if len(plain) < len(tensors):
        raise UserError(f"{file} has tensors twice, with and without the prefix `model.`; keep one of the two.")
    return plain


def _json(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise UserError(f"{file} cannot be read as JSON ({broken}).") from None
    if not isinstance(entries, dict):
        raise UserError(f"{file} holds no JSON object.")
    return entries
