"""What a program frees it takes again, without the system's help."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from allocator import anonymous_memory, peak_memory

PROGRAM = """
import platform, resource, sys
import torch
from allocator import keep_freed

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


def test_what_is_kept_can_be_given_back() -> None:
    """200 MB of small tensors, every other one of which stays: the rest lies between them."""
    program = """
from pathlib import Path
import torch
from allocator import given_back, keep_freed


def held():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) // 1000


keep_freed()
tensors = [torch.ones(1 << 18) for _ in range(200)]
tensors = tensors[::2]
before = held()
with given_back():
    print(before - held())
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell what a process holds")
    here = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 90


@pytest.mark.parametrize(("setting", "kept"), [("host_memory=null", True), ("host_memory=2", False)])
def test_a_census_whose_memory_is_limited_keeps_nothing(setting: str, kept: bool, tmp_path: Path) -> None:
    """Told by the program itself, which then finds no checkpoint."""
    program = """
import runpy, sys, allocator as memory
memory.keep_freed = lambda: print("kept")
here, setting = sys.argv[1:]
sys.argv = [f"{here}/analyze/run.py", "ckpt=./gone", setting]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    here = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", program, here, setting]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here})
    assert done.returncode == 1 and "gone" in done.stderr, done.stderr
    assert (done.stdout == "kept\n") == kept


@pytest.mark.parametrize(("system", "unit"), [("Linux", 1024), ("Darwin", 1)])
def test_the_peak_is_in_bytes_on_every_system(system: str, unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it stands for what no system but Linux tells."""
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("resource.getrusage", lambda _: SimpleNamespace(ru_maxrss=7_000))
    assert peak_memory() == 7_000 * unit == anonymous_memory(tmp_path / "proc/self/status")


def test_anonymous_memory_is_what_linux_says(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmRSS:\t   900 kB\nRssAnon:\t   500 kB\nRssFile:\t   400 kB\n")
    assert anonymous_memory(tmp_path / "status") == 500 * 1024
