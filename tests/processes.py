"""Processes as a shell, torchrun or a cluster starts them, forked from a server that has imported the programs once."""

import os
import runpy
import socket
import sys
from multiprocessing import get_context, set_start_method
from pathlib import Path

import torch

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["train.training", "tiny"])
HERE = Path(__file__).parents[1]


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


def program(name: str, *arguments: str, cwd: Path) -> int | None:
    """Run one of our programs as a command in `cwd`; its exit code."""
    process = SERVER.Process(target=_command, args=(name, arguments, cwd))
    process.start()
    process.join()
    return process.exitcode


def _command(name: str, arguments: tuple[str, ...], cwd: Path) -> None:
    os.chdir(cwd)
    start_workers_as_alone()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"}
    torch.set_num_threads(1)
    sys.argv = [str(HERE / name), *arguments]
    sys.path.insert(0, str((HERE / name).parent))  # where Python finds a program that is started by its file
    runpy.run_path(sys.argv[0], run_name="__main__")
