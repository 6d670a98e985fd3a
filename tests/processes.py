"""Processes as a shell, torchrun or a cluster starts them, forked from a server that has imported the programs once."""

import atexit
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    ["train.training", "analyze.pipeline", "analyze.compare_runs", "analyze.recompute", "hydra", "tiny"]
)
HERE = Path(__file__).parents[1]
QUIET = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TRITON_INTERPRET": "0",
}
SECONDS = 300  # after which a program is said to take for ever


def free_port() -> int:
    """One that ranks can meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_workers_as_alone() -> None:
    """Fork workers here, as in a process that no server forked: they end when it is killed, and not when the server ends."""
    set_start_method("fork", force=True)


def become_rank(number: int, of: int, port: int) -> None:
    """Tell this process what torchrun would tell it."""
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": of, "LOCAL_WORLD_SIZE": of, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}


def command(name: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs as a user does, by a Python of its own: some seconds of imports, on as many threads as there are."""
    words = [sys.executable, str(HERE / name), *arguments]
    environment = {name: value for name, value in (os.environ | QUIET | variables).items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def program(name: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs as a command in `cwd`, on one thread, in a forked process; its exit code and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / stream for stream in ("stdout", "stderr")]
        environment = os.environ | QUIET | variables
        process = SERVER.Process(target=become_program, args=(name, arguments, cwd, environment, said))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([name, *arguments], SECONDS)
        assert process.exitcode is not None
        return subprocess.CompletedProcess([name, *arguments], process.exitcode, *(file.read_text() for file in said))


def become_program(
    name: str, arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str], said: Sequence[Path] = ()
) -> None:
    """Run one of our programs in this process; `said`: files for standard output and error, else they go where they do already."""
    for stream, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(cwd)
    start_workers_as_alone()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [str(HERE / name), *arguments]
    sys.path.insert(0, str((HERE / name).parent))  # where Python finds a program that is started by its file
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing ends without


@dataclass
class Started:
    """A process of its own, and what it has said so far."""

    process: BaseProcess
    log: Path

    @property
    def said(self) -> str:
        """Its standard output and error."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def says(self, words: str, seconds: float = 120) -> None:
        """Wait until it has said that."""
        give_up = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.is_alive() and time.monotonic() < give_up, self.said
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid or 0, number)

    def code(self, seconds: float = 120) -> int | None:
        """Its exit code, once it has ended."""
        self.process.join(seconds)
        return self.process.exitcode


def started(function: Callable[..., object], *arguments: Any, log: Path) -> Started:
    """Call a function of a test's in a process of its own, which heeds signals as our programs do."""
    process = SERVER.Process(target=_logged, args=(function, arguments, log))
    process.start()
    return Started(process, log)


def start_program(name: str, *arguments: str, cwd: Path, before: Callable[[], object] | None = None) -> Started:
    """Start one of our programs as a command in `cwd`, after a function of a test's has changed what it likes."""
    return started(_changed_command, name, arguments, cwd, before, log=cwd / "said.txt")


def _changed_command(name: str, arguments: tuple[str, ...], cwd: Path, before: Callable[[], object] | None) -> None:
    if before is not None:
        before()
    become_program(name, arguments, cwd, os.environ | QUIET)


def _logged(function: Callable[..., object], arguments: tuple[Any, ...], log: Path) -> None:
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    function(*arguments)
