"""Nothing is sent that nobody asked for: by training with live censuses, counting, drawing and comparing, with the default settings.

Python's own calls are seen by an audit hook. What other programs send, such as wandb's service, arrives at a listener: it is their proxy,
wandb's server and the hub. The long test lets the kernel tell of every process instead.
"""

import atexit
import os
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
from matplotlib.figure import Figure
from processes import HERE, SERVER, start_workers_as_alone
from rich.console import Console
from synthetic_census import write_census

from analyze.figures.catalogue import write_figure
from analyze.wandb_log import mirror_alone
from hub_access import UNASKED
from wandb_run import WandbConfig, decided

CORPUS = ["corpus=files", "corpus.path=text", "corpus.vocab_size=300", "corpus.validation_share=0.2", "corpus.store=store"]
SHAPE = ["model.layers=1", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16", "device=cpu", "threads=1"]
STEPS = ["name=r", "steps=2", "milestones=[2]", "batch.tokens=64", "live.spacing=milestones", "live.tokens=400"]
TRAINING = [*CORPUS, *SHAPE, *STEPS]
PROGRAMS = {
    "train/run.py": TRAINING,
    "analyze/run.py": [*CORPUS, "ckpt=runs/r", "tokens=400", "device=cpu", "threads=1"],
    "analyze/draw.py": ["out=runs/r/live/step_000000002"],
    "analyze/compare.py": ["runs=[runs/r]", "out=both"],
}


class Listener:
    """Takes connections on the loopback, and remembers what each begins with."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """As a user's who has logged in, but every request comes here."""
        here = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), here)
        servers = {"WANDB_BASE_URL": here, "WANDB_API_KEY": "0" * 40, "HF_ENDPOINT": here}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_"))}
        return kept | proxies | {"no_proxy": "", "NO_PROXY": "", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | servers

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


def spy(seen: Path) -> None:
    """Write every call of this process to another host, and its children's in Python, into a file from now on."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            name = None if isinstance(arguments[1], str | bytes | None) else arguments[1]  # a name: a socket of this machine
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            name = arguments[0]
        else:
            return
        if name:
            with seen.open("a") as stream:
                stream.write(f"{event} {name}\n")

    sys.addaudithook(hook)


def jobs(folder: Path, environment: dict[str, str], seen: Path) -> None:
    """Train with a live census, and log a census that was taken afterwards, in this process."""
    assert "wandb" not in sys.modules  # it is only imported where it is used
    os.chdir(folder)
    inherited = {name: os.environ[name] for name in UNASKED if name in os.environ}  # set where hub_access.py was imported
    os.environ.clear()
    os.environ.update(environment | inherited)
    start_workers_as_alone()
    spy(seen)
    sys.argv = [str(HERE / "train/run.py"), *TRAINING]
    sys.path.insert(0, str(HERE / "train"))
    runpy.run_path(sys.argv[0], run_name="__main__")
    write_figure(Figure(figsize=(1, 1)), "", folder, "figure")
    census = write_census(folder / "census", layers=1, neurons=24, places=32)
    console = Console(stderr=True)
    mirror_alone(census, decided(WandbConfig(), console), [folder / "figure.png"], console)
    atexit._run_exitfuncs()  # a process that was forked leaves them out


def test_training_and_its_censuses_send_nothing(listener: Listener, tmp_path: Path) -> None:
    tiny.text_corpus(tmp_path / "text", documents=20)
    process = SERVER.Process(target=jobs, args=(tmp_path, listener.environment(), tmp_path / "seen"))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert [len(list((tmp_path / of / "wandb").glob("offline-run-*"))) for of in ("runs/r", "census")] == [1, 1]
    assert listener.heard == [] and not (tmp_path / "seen").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb_workspaces, of pydantic
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_dashboard_asks_nobody_where_the_environment_forbids(
    mode: str, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.wandb_dashboard import save

    for name, value in (listener.environment() | {"WANDB_MODE": mode}).items():
        monkeypatch.setenv(name, value)
    assert save(None, "project", tmp_path / "made.json").startswith(
        f"not saved on wandb (WANDB_MODE={mode} of the environment); "
    )
    assert "training" in (tmp_path / "made.json").read_text() and listener.heard == []


@pytest.fixture
def tracer(tmp_path: Path) -> list[str]:
    """A command before another that writes what it and its children send into the file `calls`."""
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-A",
        "-e",
        "trace=connect,sendto,sendmsg,sendmmsg",
        "-o",
        str(tmp_path / "calls"),
    ]
    if not shutil.which("strace") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("strace is not here, or may not trace")
    return command


def imports_wandb(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a program that was run with -X importtime did."""
    assert done.returncode == 0, done.stderr
    return any(line.split("|")[-1].strip() == "wandb" for line in done.stderr.splitlines())


@pytest.mark.long
def test_no_process_of_any_program_sends_anything(listener: Listener, tracer: list[str], tmp_path: Path) -> None:
    tiny.text_corpus(tmp_path / "text", documents=20)
    imported = set()
    for name, arguments in PROGRAMS.items():
        command = [*tracer, sys.executable, "-X", "importtime", str(HERE / name), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=listener.environment(), capture_output=True, text=True)
        imported |= {name} if imports_wandb(done) else set()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert any("AF_UNIX" in call for call in calls), "strace sees what is sent"
    assert [call for call in calls if "AF_INET" in call] == [] == listener.heard
    assert imported == {"train/run.py", "analyze/run.py"} and (tmp_path / "both" / "report.html").exists()
    assert len(list((tmp_path / "runs" / "r" / "wandb").glob("offline-run-*"))) == 3


@pytest.mark.long
def test_a_program_whose_wandb_is_off_does_not_import_it(listener: Listener, tmp_path: Path) -> None:
    tiny.text_corpus(tmp_path / "text", documents=20)
    command = [sys.executable, "-X", "importtime", str(HERE / "train/run.py"), *TRAINING]
    environment = listener.environment() | {"WANDB_DISABLED": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not imports_wandb(done) and "wandb.mode=disabled, by WANDB_DISABLED=true of the environment\n" in done.stderr
    assert (tmp_path / "runs/r/live/step_000000002").exists() and not (tmp_path / "runs/r/wandb").exists()


@pytest.mark.long
@pytest.mark.parametrize("program", ["train/run.py", "analyze/run.py", "scripts/prepare_corpus.py"])
def test_libraries_that_send_of_themselves_are_told_before_they_are_imported(program: str, tmp_path: Path) -> None:
    asked = f"""import runpy, sys; sys.path.insert(0, ""); runpy.run_path({str(HERE / program)!r})
import datasets, os; from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, os.environ["WANDB_ERROR_REPORTING"])"""
    environment = {name: value for name, value in os.environ.items() if name not in UNASKED}
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "false"]
