"""A path or a hub name -> an opened checkpoint: its configuration, and where each of its tensors is."""

import json
from dataclasses import replace
from pathlib import Path

from errors import UserError
from models.checkpoint import Checkpoint
from models.config import OPTConfig
from models.foreign import no_checkpoint
from models.hub import hub_folder
from models.huggingface import from_huggingface
from models.json_files import entry, read_object
from models.milestone import STATE, TOKENIZER, WEIGHTS, read_state, read_tokenizer
from models.pickled import plain_values
from models.shards import folder_tensors
from models.tensor_names import named
from models.tensor_places import Stored

TRAINED_IN = {"bf16-mixed": "bfloat16", "32-true": "float32"}  # what Lightning's names of precisions compute in


def open_checkpoint(where: str) -> Checkpoint:
    """Open a HuggingFace folder or milestone, one of our `.ckpt` files, or a hub name such as facebook/opt-125m.

    Raises:
        UserError: nothing is there, it is damaged, it is not an OPT, or a parameter is missing or of another shape.
    """
    path = Path(where)
    try:
        if path.is_file() and path.suffix == ".ckpt":
            return _open_lightning(path)
        if (path / "config.json").is_file():
            return _open_folder(path)
        there = path.exists()
    except OSError as broken:  # a name too long, a folder that may not be read
        raise UserError(f"ckpt={where[:200]} cannot be read ({broken.strerror or broken}).") from None
    if there:
        raise UserError(no_checkpoint(path))
    return replace(_open_folder(hub_folder(where)), name=where)


def _open_folder(folder: Path) -> Checkpoint:
    state, kept, described = read_state(folder), folder / STATE, folder / "config.json"
    config = from_huggingface(read_object(described), str(folder))
    files, tensors = folder_tensors(folder)
    found = named(config, tensors, str(folder))
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return Checkpoint(
        path=folder,
        files=files,
        config=found.config,
        tensors=found.tensors,
        tokenizer=str(folder) if tokenizer else None,
        step=entry(state, "step", int, kept),
        tokens_trained=entry(state, "tokens", int, kept),
        name=entry(state, "name", str, kept) or folder.resolve().name,
        precision=entry(state, "precision", str, kept),
        description=described.read_bytes(),
        checksum=entry(state, WEIGHTS, str, kept),
        notes=found.notes,
    )


def _open_lightning(path: Path) -> Checkpoint:
    stored = plain_values(path)
    model, weights = (stored.get(name) if isinstance(stored, dict) else None for name in ("model", "state_dict"))
    if not (isinstance(model, dict) and isinstance(weights, dict)):
        raise UserError(f"{path} is not a .ckpt file of this project: it has no model configuration in it.")
    try:
        config = OPTConfig.of(model)
    except UserError as mistake:
        raise UserError(f"{path}: {mistake}") from None
    found = named(config, {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, Stored)}, str(path))
    return Checkpoint(
        path=path,
        files=[path],
        config=found.config,
        tensors=found.tensors,
        tokenizer=read_tokenizer(path, entry(stored, TOKENIZER, str, path)),
        step=entry(stored, "global_step", int, path),
        tokens_trained=entry(stored, "tokens", int, path),
        name=entry(stored, "name", str, path) or path.stem,
        description=json.dumps(model, sort_keys=True).encode(),
        notes=found.notes,
        precision=TRAINED_IN.get(str((entry(stored, "identity", dict, path) or {}).get("precision"))),
    )
