"""A name on the hub -> a folder with that checkpoint, downloaded or from the local cache."""

from pathlib import Path

from errors import UserError
from hub_access import reachable

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

    online = reachable()
    try:
        return Path(snapshot_download(name, allow_patterns=_wanted(name, online), local_files_only=not online))
    except Exception as trouble:  # of huggingface_hub, or of httpx or httpx2, as its version has it
        raise UserError(f"{missing} here, and {_why(trouble, name)}") from None


def _why(trouble: Exception, name: str) -> str:
    """What stood between us and a repository of the hub, as the end of a sentence."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    every = [trouble, trouble.__cause__, trouble.__context__]
    if any(isinstance(each, GatedRepoError) for each in every):
        return (
            f"the hub hands it out to those only who accepted its terms: do so at https://huggingface.co/{name}, "
            "then log in with `hf auth login` or set HF_TOKEN."
        )
    if any(isinstance(each, RepositoryNotFoundError) for each in every):
        return "the hub has nothing of that name, or it is private: check the name, or log in with `hf auth login` or HF_TOKEN."
    if isinstance(trouble, OSError) and trouble.errno is not None and trouble.strerror:
        return f"it could not be stored ({trouble.strerror}); make room, or set HF_HOME to another disk."
    return "the hub or its local cache has nothing of that name within reach."


def _wanted(name: str, online: bool) -> list[str]:
    """Configuration, tokenizer and the weights in one layout: many repositories have the same weights in several."""
    from huggingface_hub import list_repo_files

    small = ["*.json", "*.txt"]
    try:
        there = set(list_repo_files(name)) if online else set()
    except Exception:  # of httpx or httpx2, as huggingface_hub's version has it: the cache has what it has
        there = set()
    return small + next((patterns for layout, patterns in LAYOUTS.items() if layout in there), [])
