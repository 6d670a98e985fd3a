"""The run folder: what a run was made from, written before its first step."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from safetensors import SafetensorError

from checksums import with_checksum
from corpora.store import TokenStore
from errors import UserError
from files import remove_unfinished, write_whole
from locks import only_writer
from models.pickled import plain_values
from models.seal import check_seal
from provenance import environment, git
from train.config import TrainConfig
from train.metrics import METRICS, check_lines
from train.sweep import described

T = TypeVar("T")
LONGEST_NAME = 110  # letters of a run's name, without its hash; wandb takes 128


class BegunOtherwise(UserError):
    """A run was begun with other settings than it is to go on with."""


@contextmanager
def on_disk(run: Path) -> Iterator[None]:
    """Write files of a run here: a disk that is full, or gone, ends in a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as trouble:
        raise UserError(
            f"The run {run} cannot be written to disk ({trouble}). {last_good(run)}; make room, and the same command goes on."
        ) from trouble


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Be the only process that trains a run. Its censuses have locks of their own: they may be taken and drawn meanwhile.

    Raises:
        UserError: another process trains it.
    """
    with only_writer(run, "name="):
        remove_unfinished(run, deep=False)
        for name in ("milestones", "checkpoints"):
            remove_unfinished(run / name)
        yield


def begin(run: Path, config: TrainConfig, overrides: list[str], store: TokenStore, start: int) -> list[str]:
    """Make the run folder and write config, overrides, tokenizer, code version and machine; of the last two each start leaves its own.

    These are records: one that is damaged is set aside and begun anew. Returns a sentence for each.
    """
    said: list[str] = []
    codes = _record(run / "git.txt", _text, said) if start else None
    machines = _record(run / "environment.json", _list, said) if start else None
    contents: dict[str, bytes | str] = {
        "config.yaml": with_checksum(OmegaConf.to_yaml(OmegaConf.structured(config))),
        "overrides.yaml": described(overrides),
        "git.txt": f"{codes or ''}from step {start}:\n{git()}",
        "environment.json": json.dumps([*(machines or []), {"from_step": start} | environment()], indent=2) + "\n",
        "tokenizer.json": store.tokenizer_file.read_bytes(),
    }
    for name, content in contents.items():
        write_whole(run / name, content)
    return said


def _record(file: Path, read: Callable[[bytes], T], said: list[str]) -> T | None:
    """What is recorded in a file; None where it is not there, or set aside since it is damaged."""
    try:
        return read(file.read_bytes()) if file.exists() else None
    except (ValueError, RecursionError):
        aside = file.with_name(f"{file.name}.damaged")
        file.replace(aside)
        said.append(f"{file} is damaged: it is set aside as {aside.name}, and begins anew")
        return None


def _text(content: bytes) -> str:
    text = content.decode()
    if not text.startswith("from step "):
        raise ValueError("another beginning")
    return text


def _list(content: bytes) -> list[Any]:
    found = json.loads(content)
    if not (isinstance(found, list) and all(isinstance(one, dict) and "from_step" in one for one in found)):
        raise ValueError("no list of machines")
    return found


def run_name(overrides: str, swept: Sequence[str] = ()) -> str:
    """A folder's name from a run's overrides, as hydra writes them out; without any, baseline.

    A slash becomes a plus. What a path or another command would trip over is a dash, and a hash at the end says what it was, as it
    does where a name is cut: other overrides are another folder. A name that is cut begins with what is `swept`.
    """
    words = overrides.replace("/", "+") or "baseline"
    name = re.sub(r"[^\w.+-]+", "-", words).strip("-.")
    if name == words and "+" not in overrides and len(name) <= LONGEST_NAME:
        return name
    if len(name) > LONGEST_NAME:
        first = [re.sub(r"[^\w.+-]+", "-", setting.replace("=", "_", 1).replace("/", "+")) for setting in swept]
        first = [setting for setting in first if setting in name]
        for setting in first:
            name = name.replace(setting, "", 1)
        name = re.sub("-+", "-", "-".join([*first, name])).strip("-.")[:LONGEST_NAME]
    return f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def known_name(runs: Path, name: str) -> str:
    """The name under which `runs` has this run already: one that is cut begins otherwise in a sweep than alone, with the same hash."""
    digest = re.search(r"-[0-9a-f]{8}$", name)
    if digest is None or not runs.is_dir():
        return name
    return next((folder.name for folder in sorted(runs.iterdir()) if folder.name.endswith(digest[0])), name)


def last_checkpoint(run: Path) -> Path:
    """The file a run resumes from."""
    return run / "checkpoints" / "last.ckpt"


def last_good(run: Path) -> str:
    """What a run goes on from, in words."""
    file = last_checkpoint(run)
    return f"The last good checkpoint is {file} of step {kept_step(run)}" if file.exists() else "There is no checkpoint yet"


def kept_step(run: Path) -> int:
    """The step that last.ckpt holds; 0 where there is none."""
    file = last_checkpoint(run)
    return int(plain_values(file)["global_step"]) if file.exists() else 0


def identity(config: TrainConfig, store: TokenStore, precision: str) -> dict[str, Any]:
    """What must be the same for a run to be resumed; steps, milestones, logging and the number of ranks may change."""
    return {
        "seed": config.seed,
        "corpus": store.fingerprint,
        "tokenizer": store.manifest["tokenizer"]["sha256"],
        "precision": precision,
        "batch.tokens": config.batch.tokens,
        "batch.micro": config.batch.micro,
        **{f"model.{name}": value for name, value in asdict(config.model).items()},
        **{f"optimizer.{name}": value for name, value in asdict(config.optimizer).items()},
    }


def finished_steps(run: Path, now: dict[str, Any]) -> int:
    """The step to go on from, 0 for a new run.

    Raises:
        UserError: the run was begun with another identity than `now`, or its last checkpoint is damaged.
    """
    file = last_checkpoint(run)
    if not file.exists():
        return 0
    stored = _whole(run, file)
    check_lines(run, stored.get(METRICS), stored["global_step"])
    begun = stored.get("identity", {})
    changed = [f"{key} (then {begun[key]}, now {now[key]})" for key in now if key in begun and begun[key] != now[key]]
    if changed:
        raise BegunOtherwise(
            f"The run {run} was begun with another {', '.join(changed)}. "
            "Give back the old value, or another name=... for a new run."
        )
    return int(stored["global_step"])


def _whole(run: Path, file: Path) -> dict[str, Any]:
    """What last.ckpt holds, once all of it is known to be what was written."""
    advice = f"Put back a whole copy of it; or remove it, and the same command begins the run anew.{_still_there(run)}"
    check_seal(file, advice)
    try:
        stored = plain_values(file)
        if not (isinstance(stored, dict) and isinstance(stored.get("global_step"), int)):
            raise UserError(f"{file} is no checkpoint of a run.")
    except UserError as broken:
        raise UserError(f"{broken} {advice}") from None
    return stored


def _still_there(run: Path) -> str:
    milestones = sorted((run / "milestones").glob("step_*"))
    return f" A census needs the milestones alone; the last is {milestones[-1]}." if milestones else ""
