"""One model in every layout of files that HuggingFace has, written by safetensors and torch themselves."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.huggingface import file_name, huggingface
from models.opt import OPT

LAYOUTS = ("safetensors", "safetensors-sharded", "bin", "bin-sharded")
PREFIXES = ("model.", "")
Weights = dict[str, torch.Tensor]


def weights_of(model: OPT, prefix: str = "model.", dtype: torch.dtype = torch.float16) -> Weights:
    """The tensors as files name them."""
    return {file_name(name, prefix): tensor.detach().to(dtype) for name, tensor in model.state_dict().items()}


def write(folder: Path, model: OPT, weights: Weights, layout: str, legacy: bool = False) -> list[Path]:
    """A checkpoint folder; of a sharded one, each third of the tensors has a file. Returns the files of weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(huggingface(model.config)))
    kind, _, sharded = layout.partition("-")
    stem = "model" if kind == "safetensors" else "pytorch_model"
    if not sharded:
        return [_save(folder / f"{stem}.{kind}", weights, legacy)]
    names, files = sorted(weights), []
    shard_of: dict[str, str] = {}
    for number in range(3):
        part = {name: weights[name] for name in names[number::3]}
        files.append(_save(folder / f"{stem}-{number + 1:05d}-of-00003.{kind}", part, legacy))
        shard_of |= dict.fromkeys(part, files[-1].name)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return files


def _save(file: Path, weights: Weights, legacy: bool) -> Path:
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file, metadata={"format": "pt"})
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=not legacy)
    return file
