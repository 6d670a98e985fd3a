"""The files of finished layers, and what they say of themselves: which census they are of, and which layer."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from analyze.storage.stored import damaged, opened
from errors import UserError

KINDS = ("layers", "writes")  # folders of a census with a file for each finished layer


def about_layer(layer: int, identity: Mapping[str, Any]) -> dict[str, str]:
    """What is written into a layer's files."""
    return {"layer": str(layer), "identity": json.dumps(identity, sort_keys=True)}


def layer_of(file: Path) -> int:
    """The number in a file's name."""
    return int(file.stem.removeprefix("layer_"))


def layer_files(out: Path) -> list[Path]:
    """All files of finished layers in a census folder."""
    return [file for kind in KINDS for file in sorted((out / kind).glob("layer_*.safetensors"))]


def check_layers(
    out: Path, meta: Mapping[str, Any], identity: Mapping[str, Any] | None = None, but: Collection[int] = ()
) -> None:
    """Compare every byte of finished layers, before hours are spent on others or numbers made of them.

    They are those that `meta` lists, `but` some, which will be counted. Where it says nothing, the files must prove `identity`.

    Raises:
        UserError: one is damaged, missing, or of another layer or census; files of older formats do not say of which.
    """
    identity, proof = meta.get("identity", identity), not meta
    for gone in [file for name in meta.get("counted", []) if not (file := out / name).exists() and layer_of(file) not in but]:
        opened(gone)  # says so
    for file in layer_files(out):
        about = opened(file).about
        if about.get("layer", str(layer_of(file))) != str(layer_of(file)):
            raise damaged(file, f"it holds layer {about['layer']}")
        if proof and "identity" not in about:
            raise UserError(
                f"{file} does not say of which census it is, and {out / 'meta.json'} is missing or damaged. "
                "Choose another out=, and the same command makes the census anew."
            )
        if identity is not None and (differs := _differs(about, identity)):
            raise UserError(f"{file} is of a census with another {differs}. Choose another out=, or delete that file.")


def _differs(about: Mapping[str, str], identity: Mapping[str, Any]) -> str:
    if "identity" not in about:
        return ""
    theirs, ours = json.loads(about["identity"]), json.loads(json.dumps(identity))
    differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return "; another ".join(f"{name} (there {theirs.get(name)}, here {ours.get(name)})" for name in differing)
