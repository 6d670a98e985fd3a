"""A checkpoint on disk -> its configuration, and its tensors one block at a time; and back to disk."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from errors import UserError
from models.config import OPTConfig, from_huggingface, huggingface
from models.opt import OPT, Block, Decoder, exported_positions

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
NOT_PARAMETERS = ("lm_head.weight", "decoder.version")  # the tied unembedding, and a counter of old exports


@dataclass
class Checkpoint:
    """An opened checkpoint. Nothing but its index is read until a tensor is asked for."""

    path: Path  # folder, or .ckpt file
    files: list[Path]  # that hold the weights
    config: OPTConfig
    tensors: dict[str, Callable[[], Tensor]]  # name, from `decoder.` on -> how to read it
    tokenizer: str | None  # tokenizer.json or a folder that holds a tokenizer
    step: int | None = None  # of training, where known
    tokens_trained: int | None = None
    name: str = ""  # of the run it comes from, or its own

    @property
    def title(self) -> str:
        """What figures call it."""
        return self.name if self.step is None else f"{self.name}, step {self.step:,}"

    @cached_property
    def sha256(self) -> str:
        """Hash of the configuration and of every byte of the weight files."""
        digest = hashlib.sha256(json.dumps(vars(self.config), sort_keys=True).encode())
        for file in self.files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def block(self, layer: int, dtype: torch.dtype) -> Block:
        """Read one decoder layer."""
        with torch.device("meta"):
            block = Block(self.config)
        self._fill(block, f"decoder.layers.{layer}.", dtype)
        return block.eval()

    def fc2(self, layer: int) -> Tensor:
        """Read one layer's second FFN matrix, `[width, neuron]`, in float32: column n is what neuron n writes."""
        return self._read(f"decoder.layers.{layer}.fc2.weight").float()

    def ends(self, dtype: torch.dtype) -> Decoder:
        """Read everything but the decoder layers: embedding and what stands before the unembedding."""
        with torch.device("meta"):
            decoder = Decoder(self.config, blocks=0)
        self._fill(decoder, "decoder.", dtype)
        return decoder.eval()

    def model(self, dtype: torch.dtype = torch.float32) -> OPT:
        """Read the whole model."""
        with torch.device("meta"):
            model = OPT(self.config)
        self._fill(model, "", dtype)
        return model.eval()

    def _fill(self, module: nn.Module, prefix: str, dtype: torch.dtype) -> None:
        weights = {}
        for name, expected in module.state_dict().items():
            tensor = self._read(prefix + name)
            if tensor.shape != expected.shape:
                raise UserError(
                    f"{self.path}: {prefix + name} is {tuple(tensor.shape)}, but config.json asks for {tuple(expected.shape)}."
                )
            weights[name] = tensor.to(dtype)
        module.load_state_dict(weights, assign=True)

    def _read(self, name: str) -> Tensor:
        try:
            return self.tensors[name]()
        except (SafetensorError, RuntimeError, OSError) as broken:
            raise UserError(f"{self.path}: the tensor {name} cannot be read ({broken}).") from None


def open_checkpoint(where: str) -> Checkpoint:
    """Open a HuggingFace folder or milestone, one of our `.ckpt` files, or a hub name such as facebook/opt-125m.

    Raises:
        UserError: nothing is there, it is damaged, it is not an OPT, or a parameter is missing.
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
        checkpoint = replace(_open_folder(_from_hub(where)), name=where)
    with torch.device("meta"):
        expected = set(OPT(checkpoint.config).state_dict())
    missing = sorted(expected - set(checkpoint.tensors))
    unexpected = sorted(set(checkpoint.tensors) - expected - set(NOT_PARAMETERS))
    if exported_positions(checkpoint.config) is not None:
        unexpected = [name for name in unexpected if name != "decoder.embed_positions.weight"]
    if missing or unexpected:
        parts = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has the unexpected", unexpected)) if names]
        raise UserError(f"{where} is not a whole checkpoint of its config.json: it {' and '.join(parts)}.")
    return checkpoint


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _from_hub(name: str) -> Path:
    missing = f"ckpt={name} does not exist"
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith((".ckpt", "/")):
        raise UserError(
            f"{missing}. Give a folder with a config.json, a .ckpt file, a run folder, or a hub name like facebook/opt-125m."
        )
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(name, allow_patterns=["*.json", "*.txt", *WEIGHTS[::2], "*.safetensors", "pytorch_model*.bin"])
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError):
        raise UserError(f"{missing} here, and the hub or its local cache has nothing of that name within reach.") from None
    return Path(found)


def _open_folder(folder: Path) -> Checkpoint:
    entries = _json(folder / "config.json")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder} has none of {', '.join(WEIGHTS)}.")
    files = [weights]
    if weights.suffix == ".json":
        files = [folder / name for name in sorted(set(_json(weights)["weight_map"].values()))]
        if absent := [file.name for file in files if not file.is_file()]:
            raise UserError(f"{folder} lacks {_some(absent)}, which {weights.name} names.")
    tensors: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        tensors |= _index(file)
    state = _json(folder / "training_state.json") if (folder / "training_state.json").is_file() else {}
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return Checkpoint(
        path=folder,
        files=files,
        config=from_huggingface(entries, str(folder)),
        tensors=tensors,
        tokenizer=str(folder) if tokenizer else None,
        step=state.get("step"),
        tokens_trained=state.get("tokens"),
        name=state.get("name") or folder.resolve().name,
    )


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
        tensors=_named(weights.items()),
        tokenizer=str(tokenizer) if tokenizer.is_file() else None,
        step=stored.get("global_step"),
        tokens_trained=stored.get("tokens"),
        name=stored.get("name") or path.stem,
    )


def _index(file: Path) -> dict[str, Callable[[], Tensor]]:
    if file.suffix == ".safetensors":
        try:
            handle: Any = safe_open(str(file), framework="pt")
            names: list[str] = handle.keys()
        except (SafetensorError, OSError) as broken:
            raise UserError(f"{file} is not a whole safetensors file ({broken}); copy or download it again.") from None
        return {_plain(name): partial(handle.get_tensor, name) for name in names}
    return _named(plain_values(file).items())


def _named(weights: Iterable[tuple[str, Tensor]]) -> dict[str, Callable[[], Tensor]]:
    return {_plain(name): partial(_same, tensor) for name, tensor in weights}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _plain(name: str) -> str:
    return name.removeprefix("model.")


def plain_values(file: Path) -> dict[str, Any]:
    """Read a file of `torch.save`; tensors stay on disk until they are used, and no code in it is ever run.

    Raises:
        UserError: it is damaged, or holds more than plain values and tensors.
    """
    try:
        stored: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as broken:  # torch raises whatever its readers do
        reason = str(broken).splitlines()[0] if str(broken) else type(broken).__name__
        raise UserError(f"{file} cannot be read as a file of plain tensors ({reason}).") from None
    return stored


def _json(file: Path) -> dict[str, Any]:
    try:
        entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise UserError(f"{file} cannot be read as JSON ({broken}).") from None
    return entries


def save_checkpoint(model: OPT, folder: Path, state: dict[str, Any], tokenizer: Path | None = None) -> None:
    """Write a milestone in HuggingFace's layout, whole: it appears under its name when its last byte is on disk.

    A model without positions is written with a position table of zeros, one with sinusoids with these, which is the same function.
    """
    config = model.config
    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    weights = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if (table := exported_positions(config)) is not None:
        weights["model.decoder.embed_positions.weight"] = table
    save_file(weights, str(unfinished / "model.safetensors"), metadata={"format": "pt"})
    (unfinished / "config.json").write_text(json.dumps(huggingface(config), indent=2) + "\n")
    (unfinished / "training_state.json").write_text(json.dumps(state, indent=2) + "\n")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, unfinished / "tokenizer.json")
    for file in unfinished.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
