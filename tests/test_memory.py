"""What a program frees it takes again, without the system's help."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import platform, resource, sys
import torch
from memory import keep_freed

if sys.argv[1] == "kept":
    keep_freed()
torch.set_num_threads(1)


def micro_batch():
    stream = torch.ones(6 << 18)
    wide = torch.ones(40 << 18)
    return stream + wide[: len(stream)]


for _ in range(20):
    micro_batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    micro_batch()
print(platform.libc_ver()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    """Pages that ten micro-batches got from the system, each with tensors of 6, 40 and 6 MB."""
    here = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], cwd=here, capture_output=True, text=True, check=True)
    libc, number = done.stdout.split()
    if libc != "glibc":
        pytest.skip("malloc is not glibc's")
    return int(number)


def test_freed_memory_is_used_again() -> None:
    kept, given_back = faults("kept"), faults("given back")
    if given_back < 10_000:
        pytest.skip("huge pages: the system gives a tensor in a few of them, kept or not")
    assert kept < given_back / 10
