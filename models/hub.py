"""A name on the hub -> a folder with that checkpoint, downloaded or from the local cache."""

from pathlib import Path

from errors import UserError
from network import reachable

LAYOUTS = {  # the file that tells of it -> what is fetched; the first one that a repository has
    "model.safetensors": ["model.safetensors"],
    "model.safetensors.index.json": ["model-*.safetensors"],
    "pytorch_model.bin": ["pytorch_model.bin"],
    "pytorch_model.bin.index.json": ["pytorch_model-*.bin"],
}


def hub_folder(name: str) -> Path:
    """The folder of a checkpoint by its name on the hub; with no network, from huggingface's cache on this machine.

    Raises:
        UserError: it is not a hub name, or neither the hub nor the cache has it.
    """
    missing = f"ckpt={name} does not exist"
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith((".ckpt", "/")):
        raise UserError(
            f"{missing}. Give a folder with a config.json, a .ckpt file, a run folder, or a hub name like facebook/opt-125m."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    online = reachable()
    try:
        return Path(snapshot_download(name, allow_patterns=_wanted(name, online), local_files_only=not online))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
        raise UserError(f"{missing} here, and the hub or its local cache has nothing of that name within reach.") from None


def _wanted(name: str, online: bool) -> list[str]:
    """Configuration, tokenizer and the weights in one layout: many repositories have the same weights in several."""
    from huggingface_hub import list_repo_files

    small = ["*.json", "*.txt"]
    try:
        there = set(list_repo_files(name)) if online else set()
    except Exception:  # of httpx or httpx2, as huggingface_hub's version has it: the cache has what it has
        there = set()
    return small + next((patterns for layout, patterns in LAYOUTS.items() if layout in there), [])
