"""Where a result comes from: code version, packages, machine."""

import platform
import subprocess
from datetime import date
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


def measured_on() -> str:
    """The machine, torch and the day, as results files say them: `2 cores of AMD EPYC 9R14, torch 2.13.0, 2026-01-31`."""
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} cores of {_processor()}"
    return f"{on}, torch {torch.__version__}, {date.today()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
