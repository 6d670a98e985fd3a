"""Settings of all tests: properties are judged by what they find, never by a clock; without a GPU Triton interprets its kernels."""

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, by whichever test

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")
