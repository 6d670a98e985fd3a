"""training_state.json of a milestone: how far training was, and the checksums of all files of the folder, its own included."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checksums import CHECKSUM, checksum_of, file_checksum, file_sha256, write_object
from errors import UserError
from models.json_files import entry, read_object

STATE = "training_state.json"
WEIGHTS = "model.safetensors sha256"  # the entry that holds the checksum of the weights, compared before a census reads them
OTHERS = "xxh3"  # the entry that holds those of the other files, compared when the folder is opened
TOKENIZER = "tokenizer.json"  # the file, and the entry of a .ckpt that holds the checksum of the one in its run
DESCRIPTIONS = ("config.json", TOKENIZER)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the file, the last one of its folder."""
    weights = file_sha256(folder / "model.safetensors")
    others = {name: file_checksum(folder / name) for name in DESCRIPTIONS if (folder / name).is_file()}
    write_object(folder / STATE, {**state, WEIGHTS: weights, OTHERS: others})


def read_state(folder: Path) -> dict[str, Any]:
    """What the file says, once it and the files that describe the model are known to be what was written; {} in folders of others.

    Raises:
        UserError: one of them is damaged, or gone.
    """
    file = folder / STATE
    if not file.is_file():
        if folder.resolve().parent.name == "milestones":
            raise UserError(f"{file} is missing, which every milestone of ours has; copy the milestone again.")
        return {}
    state = read_object(file)
    others = entry(state, OTHERS, dict, file) or {}
    if (others or CHECKSUM in state) and state.get(CHECKSUM) != checksum_of(state):
        raise UserError(
            f"{file} is damaged: its checksum is another. Copy the milestone again, or train the run anew to this step."
        )
    for name in DESCRIPTIONS:
        if name in others and not _is_known(folder / name, others[name]):
            raise UserError(
                f"{folder / name} is damaged, or gone: its checksum is not the one in {STATE}. Copy the milestone again, or train "
                f"the run anew to this step; if you changed the file yourself, remove {STATE}."
            )
    return state


def read_tokenizer(ckpt: Path, known: str | None) -> str | None:
    """The tokenizer.json of the run that a .ckpt lies in; None where there is none, as where the .ckpt was moved.

    Raises:
        UserError: its checksum is not the one known of it.
    """
    file = ckpt.parent.parent / TOKENIZER
    if not file.is_file():
        return None
    if known is not None and not _is_known(file, known):
        raise UserError(
            f"{file} is damaged, or another run's: its checksum is not the one in {ckpt.name}. Take that of a milestone of the run."
        )
    return str(file)


def _is_known(file: Path, checksum: Any) -> bool:
    try:
        return bool(file_checksum(file) == checksum)
    except OSError:
        return False
