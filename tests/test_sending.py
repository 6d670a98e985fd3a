"""Nothing is sent that nobody asked for: by training with live censuses, counting, drawing and comparing, with the default settings.

Python's own calls are seen by an audit hook. What other programs send, such as wandb's service, arrives at a listener: it is their proxy,
wandb's server and the hub. The long test lets the kernel tell of every process instead.
"""

import atexit
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from processes import HERE, SERVER, start_workers_as_alone

CORPUS = ["corpus=files", "corpus.path=text", "corpus.vocab_size=300", "corpus.validation_share=0.2", "corpus.store=store"]
SHAPE = ["model.layers=1", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16"]
STEPS = ["name=r", "steps=2", "milestones=[2]", "batch.tokens=64", "live.spacing=milestones", "live.tokens=400"]
JOBS = {
    "train/run.py": [*CORPUS, *SHAPE, *STEPS, "device=cpu", "threads=1"],
    "analyze/run.py": [*CORPUS, "ckpt=runs/r", "tokens=400", "device=cpu", "threads=1"],
    "analyze/draw.py": ["out=runs/r/live/step_000000002"],
    "analyze/compare.py": ["runs=[runs/r]", "out=both"],
}
EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
OURS = ("WANDB_", "HF_")  # variables that the surroundings of a test may have set


class Listener:
    """Takes connections on the loopback, and remembers what each begins with."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    def everywhere(self) -> dict[str, str]:
        """An environment in which every request comes here, of somebody who has logged in."""
        here = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), here)
        return proxies | {"no_proxy": "", "NO_PROXY": "", "WANDB_BASE_URL": here, "WANDB_API_KEY": "0" * 40, "HF_ENDPOINT": here}

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:  # closed
                return
            with connection:
                connection.settimeout(2)
                try:
                    self.heard.append(connection.recv(4096).split(b"\r\n")[0].decode(errors="replace"))
                    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError as silent:
                    self.heard.append(str(silent))


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.close()


def environment(listener: Listener, **variables: str) -> dict[str, str]:
    """As a user's, but that whatever is sent comes to the listener."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return inherited | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | listener.everywhere() | variables


def job(name: str, folder: Path, environ: dict[str, str], seen: Path) -> None:
    """One of our programs in this process, whose every call to another host, and import of wandb, becomes a line of the file `seen`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    start_workers_as_alone()

    def spy(event: str, arguments: tuple[object, ...]) -> None:
        address = arguments[1 if event.startswith("socket.se") or event == "socket.connect" else 0] if arguments else None
        if (event in EVENTS and not isinstance(address, str | bytes | None)) or event in EVENTS[1:3]:
            note(f"{event} {address}")
        if event == "import" and arguments[0] == "wandb":
            note("import wandb")

    def note(line: str) -> None:
        with seen.open("a") as stream:
            stream.write(f"{line}\n")

    sys.addaudithook(spy)
    sys.argv = [str(HERE / name), *JOBS[name]]
    sys.path.insert(0, str((HERE / name).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    atexit._run_exitfuncs()  # a process that was forked leaves them out


def all_jobs(folder: Path, environ: dict[str, str]) -> list[str]:
    """Run them one after the other; what was seen."""
    tiny.text_corpus(folder / "text", documents=20)
    seen = folder / "seen.txt"
    for name in JOBS:
        process = SERVER.Process(target=job, args=(name, folder, environ, seen))
        process.start()
        process.join()
        assert process.exitcode == 0, name
    assert (folder / "both" / "report.html").exists() and (folder / "runs" / "r" / "live" / "step_000000002" / "report.html").exists()
    return seen.read_text().splitlines() if seen.exists() else []


def test_nothing_is_sent_with_the_default_settings(listener: Listener, tmp_path: Path) -> None:
    seen = all_jobs(tmp_path, environment(listener))
    assert set(seen) == {"import wandb"} and listener.heard == []
    assert len(list((tmp_path / "runs" / "r" / "wandb").glob("offline-run-*"))) == 3


def test_without_wandb_it_is_not_even_imported(listener: Listener, tmp_path: Path) -> None:
    assert all_jobs(tmp_path, environment(listener, WANDB_MODE="disabled")) == [] == listener.heard
    assert not (tmp_path / "runs" / "r" / "wandb").exists()
