"""What people give as a checkpoint that is none we can read -> what it is, and the way to one that can be read."""

import re
from pathlib import Path

from models.json_files import entry, read_object

POINTER = b"version https://git-lfs"
GENUINE = "Give the checkpoint that it was made from, in PyTorch's or safetensors' files."
SIGNS = {  # a file's name -> what the folder is, and what to do
    r".*\.gguf": f"it is GGUF, llama.cpp's format. {GENUINE}",
    r".*\.onnx(_data)?": f"it is ONNX, which holds a graph and no weights by their names. {GENUINE}",
    r"flax_model.*\.msgpack": "its weights are Flax's; convert them: OPTForCausalLM.from_pretrained(FOLDER, from_flax=True) of "
    "transformers 4, then save_pretrained.",
    r"tf_model.*\.h5|.*\.ckpt\.index": "its weights are TensorFlow's; convert them: OPTForCausalLM.from_pretrained(FOLDER, "
    "from_tf=True) of transformers 4, then save_pretrained.",
    r".*\.distcp": "it is a sharded checkpoint of torch.distributed; gather it first with "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.",
    r"zero_to_fp32\.py|zero_pp_rank_.*|mp_rank_.*": "it is DeepSpeed's; gather it first with python zero_to_fp32.py . pytorch_model.bin.",
    r"reshard.*\.pt|restored\.pt|consolidated.*": "its weights are of metaseq or of another trainer; convert them to a HuggingFace "
    "folder first.",
    r".*\.(incomplete|part|crdownload|aria2|tmp)": "a download of it has not finished; start it again.",
    r"(pytorch_)?model-\d+-of-\d+\..*": "there are shards, but the index beside them, *.index.json, is missing; copy or download it again.",
    r".*\.(safetensors|bin|pt|pth)": "its weights have another name; rename them to model.safetensors or pytorch_model.bin, if they "
    "are a whole model's.",
}


def impostor(file: Path) -> str | None:
    """What a file is that stands under the name of another, as the end of a sentence; None where it looks like itself."""
    try:
        with file.open("rb") as stream:
            head = stream.read(100)
    except OSError:
        return None  # whoever reads it says so
    if head.startswith(POINTER):
        return f"is a pointer of git-lfs, not the file itself: run `git lfs pull` in {file.parent}, or download it again."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page: the address it was downloaded from gave a notice instead of the file. Download it again."
    if head.startswith(b"GGUF"):
        return f"is GGUF, llama.cpp's format. {GENUINE}"
    return None


def what_is_there(folder: Path) -> str:
    """What a folder holds instead of weights that can be read, as the end of a sentence."""
    names = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in names:
        base = entry(read_object(folder / "adapter_config.json"), "base_model_name_or_path", str, folder / "adapter_config.json")
        return (
            f"it is an adapter (LoRA) for {base or 'a model that it does not name'}; merge it into that model first, with "
            "merge_and_unload() of peft, and give the folder that save_pretrained writes."
        )
    if {"model.safetensors", "pytorch_model.bin"} & set(names):
        return "its weights are there; copy what is missing again, from where they come."
    for sign, said in SIGNS.items():
        if any(re.fullmatch(sign, name) for name in names):
            return said
    within = [name for name in names if (folder / name / "config.json").is_file()]
    if within:
        return f"it holds checkpoints: give one of them, such as {folder / within[-1]}."
    return "it is empty." if not names else "give a folder that holds a model's weights."


def no_checkpoint(path: Path) -> str:
    """What is there instead of a checkpoint, as a sentence."""
    if path.is_dir():
        return f"ckpt={path} has no config.json: {what_is_there(path)}"
    if (path.parent / "config.json").is_file():
        return f"ckpt={path} is a file; give the folder that it lies in: ckpt={path.parent}."
    reason = impostor(path) or next((said for sign, said in SIGNS.items() if re.fullmatch(sign, path.name)), "")
    said = "neither a folder with a config.json, nor a .ckpt file, nor a run folder with milestones/"
    return f"ckpt={path} is {said}{f': {reason}' if reason else '.'}"
