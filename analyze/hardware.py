"""What some settings ask of the machine, looked at before anything is read: a GPU, and triton."""

import os

import torch

from analyze import carry_save_triton
from analyze.config import AnalyzeConfig
from errors import UserError


def check_hardware(config: AnalyzeConfig) -> None:
    """`UserError` for device=cuda without a GPU, and for kernel=triton without triton or anything that runs it."""
    gpu = torch.cuda.is_available()
    if config.device == "cuda" and not gpu:
        raise UserError("device=cuda: torch sees no GPU here; take device=cpu.")
    if config.kernel != "triton":
        return
    if not carry_save_triton.available():
        raise UserError("kernel=triton needs the package triton, which comes with GPU builds of torch; take kernel=numba.")
    if not gpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError("kernel=triton: torch sees no GPU here; take kernel=numba, or set TRITON_INTERPRET=1 to run it slowly.")
