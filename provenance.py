"""Where a result comes from: code version, packages, machine."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "polars", "tokenizers", "safetensors")


def git() -> str:
    """Commit of this code, and the files that differ from it, a line each."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--short"])
    try:
        return "".join(subprocess.run(c, cwd=here, capture_output=True, text=True, check=True).stdout for c in commands)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout\n"


def environment() -> dict[str, Any]:
    """Python, packages and processor."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "threads": torch.get_num_threads()}
    return machine | gpu | {"packages": {name: version(name) for name in PACKAGES}}
