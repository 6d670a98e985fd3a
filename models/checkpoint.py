"""Where a checkpoint's tensors are -> one block at a time; and a model back to disk."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from checksums import file_sha256
from errors import UserError
from files import whole_folder
from models.config import OPTConfig
from models.huggingface import file_name, huggingface
from models.milestone import write_state
from models.opt import OPT, Block, Decoder, exported_positions
from models.seal import check_seal
from models.shards import some
from models.tensor_places import Stored
from models.unallocated import unallocated

BLOB = re.compile(r"[0-9a-f]{64}")  # what huggingface's cache calls a file of weights: its sha256


@dataclass
class Checkpoint:
    """An opened checkpoint: where every tensor is. Nothing is read until a tensor is asked for, and nothing read is kept."""

    path: Path  # folder, or .ckpt file
    files: list[Path]  # that hold the weights
    config: OPTConfig
    tensors: dict[str, Stored]  # name, from `decoder.` on -> where it is
    tokenizer: str | None  # tokenizer.json or a folder that holds a tokenizer
    step: int | None = None  # of training, where known
    tokens_trained: int | None = None
    name: str = ""  # of the run it comes from, or its own
    precision: str | None = None  # in which it was trained, where known: bfloat16 | float32
    description: bytes = b""  # of the configuration: config.json's bytes, or what a .ckpt holds of it
    checksum: str | None = None  # sha256 of its only file of weights, as written beside it; None: nobody wrote it down
    notes: list[str] = field(default_factory=list)  # what its user should know, a sentence each

    @property
    def title(self) -> str:
        """What figures call it."""
        return self.name if self.step is None else f"{self.name}, step {self.step:,}"

    @property
    def of_a_run(self) -> bool:
        """Whether it was trained here, by a run that kept text from its training."""
        return self.tokens_trained is not None

    @property
    def dtype(self) -> torch.dtype:
        """In which a GPU computes it unless something else is asked for: that of its training, else that of its weights."""
        return torch.bfloat16 if self.precision == "bfloat16" else self.tensors["decoder.layers.0.fc1.weight"].dtype

    @cached_property
    def sha256(self) -> str:
        """Hash of the configuration's bytes and of every byte of the weight files.

        Raises:
            UserError: a file is not the one whose checksum was written down, or cannot be read.
        """
        digest = hashlib.sha256(self.description)
        for file in self.files:
            try:
                digest.update(self._checked(file))
            except OSError as broken:
                raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None
        return digest.hexdigest()

    def _checked(self, file: Path) -> bytes:
        """The sha256 of a file that is what it is known to be: from beside it, from huggingface's cache, or in the .ckpt itself."""
        digest = file_sha256(file)
        blob = file.resolve().name
        known = self.checksum or (blob if BLOB.fullmatch(blob) else None)
        if known is not None and digest != known:
            again = "download it again" if self.checksum is None else "copy it again, or train the run anew to this step"
            raise UserError(f"{file} is damaged: its sha256 is not the one written down for it; {again}.")
        if file.suffix == ".ckpt":
            check_seal(file, "Copy it again, or take a milestone of the run.")
        return bytes.fromhex(digest)

    def layer_tensors(self, layer: int) -> dict[str, Stored]:
        """Where one decoder layer's tensors are, by their names in a `Block`."""
        with unallocated():
            names = Block(self.config).state_dict()
        return {name: self.tensors[f"decoder.layers.{layer}.{name}"] for name in names}

    def check_finite(self, layer: int, weights: dict[str, Tensor]) -> None:
        """Look at the weights of a layer, which lie in main memory.

        Raises:
            UserError: one is NaN, or infinite in its dtype.
        """
        self._check_finite(weights, f"decoder.layers.{layer}.")

    def fc2(self, layer: int) -> Tensor:
        """Read one layer's second FFN matrix, `[width, neuron]`, in float32: column n is what neuron n writes."""
        return self.tensors[f"decoder.layers.{layer}.fc2.weight"].read().float()

    def ends(self, dtype: torch.dtype) -> Decoder:
        """Read everything but the decoder layers: embedding and what stands before the unembedding."""
        with unallocated():
            decoder = Decoder(self.config, blocks=0)
        weights = {name: self.tensors[f"decoder.{name}"].read().to(dtype) for name in decoder.state_dict()}
        decoder.load_state_dict(weights, assign=True)
        self._check_finite(weights, "decoder.")
        return decoder.eval()

    def _check_finite(self, weights: dict[str, Tensor], prefix: str) -> None:
        extremes = torch.stack([torch.stack(torch.aminmax(weight.detach())) for weight in weights.values()])
        finite = torch.isfinite(extremes).all(1).tolist()
        if bad := [prefix + name for name, fine in zip(weights, finite, strict=True) if not fine]:
            dtype = str(extremes.dtype).removeprefix("torch.")
            raise UserError(
                f"{self.path}: {some(bad)} holds NaN or infinity in {dtype}; "
                "download the checkpoint again, or try dtype=float32 if it is float32 or bfloat16 itself."
            )


def save_checkpoint(model: OPT, folder: Path, state: dict[str, Any], tokenizer: Path | None = None, bos_id: int = 2) -> None:
    """Write a milestone in HuggingFace's layout, whole: it appears under its name when its last byte is on disk.

    A model without positions is written with a position table of zeros, one with sinusoids with these, which is the same function.
    """
    config = model.config
    weights = {file_name(name): tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if (table := exported_positions(config)) is not None:
        weights["model.decoder.embed_positions.weight"] = table
    with whole_folder(folder) as unfinished:
        save_file(weights, str(unfinished / "model.safetensors"), metadata={"format": "pt"})
        (unfinished / "config.json").write_text(json.dumps(huggingface(config, bos_id), indent=2) + "\n")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, unfinished / "tokenizer.json")
        write_state(unfinished, state)
