"""Settings of all tests: properties are judged by what they find, never by a clock; without a GPU Triton interprets its kernels.

Tests side by side compute on one thread each: two on two cores, of two threads each, mostly wait for one another.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; also by the processes that tests start

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, by whichever test

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")
