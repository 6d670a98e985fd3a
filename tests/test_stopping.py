"""How programs end: 0 done, 1 a mistake, 75 stopped before the end; a second signal at once; a sweep with its stopped variant."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from processes import Started, start_program, start_workers_as_alone, started
from test_watch import kept

import signals
from corpora.config import CorpusConfig
from errors import UserError, plainly
from scripts import demo
from signals import STOPPED, Stopped
from train import dataloader as reading
from train.config import BatchConfig, TrainConfig
from train.data_order import Steps
from train.module import Training
from train.training import train

HERE = Path(__file__).parents[1]
NAMED = "seed_${seed}"  # the runs of a sweep
MUTEX = 64  # bytes, more than a pthread_mutex_t


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def settings(corpus: CorpusConfig, **others: Any) -> list[str]:
    """A small run as a command has it."""
    chosen: dict[str, Any] = {
        "corpus": "files", "corpus.name": corpus.name, "corpus.path": corpus.path, "corpus.store": corpus.store,
        "corpus.vocab_size": 300, "corpus.validation_share": 0.2, "model.layers": 2, "model.width": 16, "model.heads": 2,
        "model.neurons": 24, "model.context": 16, "batch.tokens": 128, "batch.micro": 4, "precision": "float32", "device": "cpu",
        "milestones": [], "steps": 6, "checkpoint_every": 100, "validation.sequences": 8, "live.spacing": "off", "runs": "runs",
        "wandb.mode": "disabled",
    }  # fmt: skip
    return [f"{name}={value}" for name, value in (chosen | others).items()]


def ended(program: Started, code: int) -> str:
    """What a program said that is to end with this code, and says no traceback."""
    assert program.code() == code, program.said
    assert "Traceback" not in program.said, program.said
    return program.said


def hanging(seconds: float) -> None:
    """Wait in native code for ever, as in a sink of polars when the machine has no more processes: Python runs no handler."""
    signals.ONE = seconds
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(MUTEX)
    with plainly():
        print("hangs", flush=True)
        for _ in range(2):
            libc.pthread_mutex_lock(mutex)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_program_at_once_whatever_waits(number: signal.Signals, tmp_path: Path) -> None:
    program = started(hanging, 0.4, log=tmp_path / "said")
    program.says("hangs")
    program.send(number)
    program.send(number)  # as make, torchrun and scripts hand on what a terminal has sent to all
    time.sleep(0.6)
    assert program.process.is_alive()
    program.send(number)
    assert f"stopped at once (a second {number.name})" in ended(program, STOPPED)


def waiting(also: signal.Signals | None) -> None:
    with plainly(*([also] if also else [])):
        print("waits", flush=True)
        time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_first_signal_ends_a_program_in_a_sentence(number: signal.Signals, tmp_path: Path) -> None:
    program = started(waiting, signal.SIGUSR1, log=tmp_path / "said")
    program.says("waits")
    program.send(number)
    said = ended(program, STOPPED)
    assert f"stopped ({number.name}): what is finished is kept, and the same command goes on from there" in said


@pytest.mark.parametrize(
    ("mistake", "code", "said"),
    [(UserError("x=1 is odd."), 1, "error: x=1 is odd."), (SystemExit(2), 1, ""), (Stopped("the time limit"), 75, "time limit")],
)
def test_what_a_program_ends_with(mistake: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as found, plainly():
            raise mistake
    finally:
        signals.forget()
    assert said in capsys.readouterr().err + str(found.value.code)
    assert found.value.code == code or (code == 1 and isinstance(found.value.code, str)), "sys.exit(sentence) is 1"
    assert signal.getsignal(signal.SIGTERM) == before


def test_wrong_arguments_of_a_script_are_a_mistake(tmp_path: Path) -> None:
    said = ended(start_program("scripts/merge_censuses.py", "A", cwd=tmp_path), 1)
    assert "the following arguments are required: b, out" in said


def signal_in_step(number: signal.Signals, at: int) -> None:
    """Training is sent a signal in the middle of a step."""
    as_ever = Training.training_step

    def signalled(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        if batch[0] == at - 1:
            os.kill(os.getpid(), number)
        return as_ever(self, batch, index)

    Training.training_step = signalled  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_training_that_is_stopped_says_so(number: signal.Signals, corpus: CorpusConfig, tmp_path: Path) -> None:
    before = partial(signal_in_step, number, 4)
    said = ended(start_program("train/run.py", *settings(corpus, name="a"), cwd=tmp_path, before=before), STOPPED)
    assert f"stopped at step 4 ({number.name}); the same command goes on from there" in said
    assert kept(tmp_path / "runs/a") == 4


def test_a_signal_ends_a_sweep_with_its_run(corpus: CorpusConfig, tmp_path: Path) -> None:
    sweep = ["-m", *settings(corpus, name=NAMED), "seed=0,1,2"]
    said = ended(start_program("train/run.py", *sweep, cwd=tmp_path, before=partial(signal_in_step, signal.SIGTERM, 4)), STOPPED)
    assert said.count("stopped at step 4") == 1 and [run.name for run in (tmp_path / "runs").glob("*/")] == ["seed_0"]


def test_a_time_limit_is_that_of_a_whole_sweep(corpus: CorpusConfig, tmp_path: Path) -> None:
    """The first variant is finished already; the second is not begun when the time is over."""
    words = settings(corpus, name=NAMED)
    ended(start_program("train/run.py", *words, "seed=0", cwd=tmp_path), 0)
    program = start_program("train/run.py", "-m", *words, "seed=0,1", "time_limit=0", cwd=tmp_path)
    said = ended(program, STOPPED)
    assert "finished its 6 steps already" in said and "stopped (the time limit, before it began)" in said
    assert not (tmp_path / "runs/seed_1").exists()


def test_a_variant_with_a_mistake_leaves_the_others(corpus: CorpusConfig, tmp_path: Path) -> None:
    sweep = ["-m", *settings(corpus, name="micro_${batch.micro}"), "batch.micro=3,4"]
    said = ended(start_program("train/run.py", *sweep, cwd=tmp_path), 1)
    assert said.count("error in micro_3: batch.tokens=128") == 1 and said.rstrip().splitlines()[-1].startswith("error: ")
    assert kept(tmp_path / "runs/micro_4") == 6


@pytest.mark.long
@pytest.mark.parametrize("how", ["time_limit", "signal", "of one"])
def test_variants_side_by_side_stop_together(how: str, corpus: CorpusConfig, tmp_path: Path) -> None:
    """joblib's processes: each stops after its step, keeps it, and begins no other variant."""
    others: dict[str, Any] = {
        "name": NAMED,
        "hydra/launcher": "joblib",
        "hydra.launcher.n_jobs": 2,
        "steps": 100_000,
        "log_every": 100_000,
    }
    limit = {"time_limit": 0.0} if how == "time_limit" else {}
    sweep = ["-m", *settings(corpus, **others, **limit), "seed=0,1,2,3"]
    program = subprocess.Popen([sys.executable, HERE / "train/run.py", *sweep], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    if how != "time_limit":
        metrics = [tmp_path / f"runs/seed_{seed}/metrics.jsonl" for seed in (0, 1)]
        while not all(file.exists() for file in metrics):
            assert program.poll() is None
            time.sleep(0.1)
        os.kill(program.pid if how == "signal" else max(children(program.pid)), signal.SIGTERM)
    _, said = program.communicate()
    assert program.returncode == STOPPED and "Traceback" not in said, said
    if how != "time_limit":  # which was over before the second began, and that ended the first
        assert said.count("stopped at step") == 2, said
        assert all(kept(tmp_path / f"runs/seed_{seed}") >= 1 for seed in (0, 1))
    assert not (tmp_path / "runs/seed_2").exists() and not (tmp_path / "runs/seed_3").exists()


def children(pid: int) -> list[int]:
    """The processes of joblib that a process has begun."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, command in commands.items() if b"loky" in command and b"resource_tracker" not in command]


def program_file(folder: Path, name: str, code: str) -> str:
    (folder / name).write_text(code)
    return str(folder / name)


@pytest.mark.parametrize(
    ("ends", "code"), [("sys.exit(75)", 75), ("sys.exit('error: odd')", 1), ("os.kill(os.getpid(), 9)", 137)]
)
def test_the_demo_ends_as_its_first_program_that_fails(ends: str, code: int, tmp_path: Path) -> None:
    first = program_file(tmp_path, "first.py", f"import os, sys\n{ends}")
    other = program_file(tmp_path, "other.py", "import time\ntime.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(SystemExit) as found:
        demo.together({"first": [first], "other": [other]})
    assert found.value.code == code and time.monotonic() - begun < 50
    demo.together({"fine": [program_file(tmp_path, "fine.py", "")]})


def killing(config: TrainConfig) -> None:
    """A run one of whose readers is killed in the middle of step 3."""
    start_workers_as_alone()
    as_ever = Training.training_step

    def killing_step(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        if batch[0] == 2:
            active_children()[0].kill()
            time.sleep(5)  # the signal that a child has ended wakes it
        return as_ever(self, batch, index)

    Training.training_step = killing_step  # type: ignore[method-assign, assignment]
    with plainly():
        train(config, [])


def test_a_reader_that_is_killed_is_a_sentence(corpus: CorpusConfig, tmp_path: Path) -> None:
    batch = BatchConfig(tokens=128, micro=4, workers=2)
    config = tiny.training(corpus, tmp_path, steps=40, milestones=[], batch=batch)
    said = ended(started(killing, config, log=tmp_path / "said"), 1)
    assert "error: A process that reads batches ahead was ended (DataLoader worker (pid " in said
    assert "last.ckpt of step 2; the same command goes on, and with batch.workers=0" in said


def refusing(config: TrainConfig) -> None:
    """A run whose readers find a mistake."""
    start_workers_as_alone()

    def refused(*_: object) -> None:
        raise UserError("the shard is damaged.")

    Steps.batch = refused  # type: ignore[method-assign, assignment]
    with plainly():
        train(config, [])


def test_what_a_reader_finds_wrong_is_said_as_it_is(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, milestones=[], batch=BatchConfig(tokens=128, micro=4, workers=1))
    assert "error: the shard is damaged.\n" in ended(started(refusing, config, log=tmp_path / "said"), 1)


def test_no_room_for_readers_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: (65_536, 61_440, 4096))
    monkeypatch.setattr(reading, "SHARED", tmp_path)
    with pytest.raises(
        UserError, match=r"^batch\.workers=2 needs 192 KB of .*, which has 4 KB free of 64: .*batch\.workers=0\.$"
    ):
        reading._check_room(2)
    reading._check_room(0)


def tiny_shared_memory(config: TrainConfig, kilobytes: int) -> None:
    """A run with readers where /dev/shm holds so much."""
    libc = ctypes.CDLL(None, use_errno=True)
    start_workers_as_alone()
    new_namespace, private = 0x00020000, 0x44000  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    assert libc.unshare(new_namespace) == 0 and libc.mount(b"none", b"/", None, private, None) == 0, ctypes.get_errno()
    assert libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={kilobytes}k".encode()) == 0, ctypes.get_errno()
    reading.LOCKS = 4 * 4096
    with plainly():
        train(config, [])


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize(("kilobytes", "code"), [(8, 1), (80, 0)])
def test_a_small_shared_memory_hangs_nothing(kilobytes: int, code: int, corpus: CorpusConfig, tmp_path: Path) -> None:
    """Every batch is larger than what /dev/shm holds: ids go by pipes."""
    batch = BatchConfig(tokens=16 * 512, micro=512, workers=2)
    config = tiny.training(corpus, tmp_path, steps=6, milestones=[], batch=batch)
    said = ended(started(tiny_shared_memory, config, kilobytes, log=tmp_path / "said"), code)
    assert code == 0 or "which has 8 KB free of 8" in said


def test_batches_of_readers_hold_their_values() -> None:
    from multiprocessing.reduction import ForkingPickler

    ids = torch.from_numpy(np.arange(4096).reshape(2, 2, 1024))
    sent = bytes(ForkingPickler.dumps(reading._by_pipe((7, ids))))
    assert len(sent) > ids.nbytes
    step, came = ForkingPickler.loads(sent)
    assert step == 7 and torch.equal(came, ids)


def stop_after_a_layer() -> None:
    """A census is sent SIGTERM when its first layer is stored."""
    from analyze.census import layer_loop as counting

    as_ever = counting.Counting.run

    def run(self: Any) -> Any:
        for layer, seconds in as_ever(self):
            yield layer, seconds
            os.kill(os.getpid(), signal.SIGTERM)

    counting.Counting.run = run  # type: ignore[method-assign]


def test_a_census_that_is_stopped_keeps_its_layers_and_goes_on(tmp_path: Path) -> None:
    model = tiny.saved(tmp_path / "model", tiny.random_model())
    np.save(tmp_path / "ids.npy", tiny.random_ids())
    census = ["analyze/run.py", f"ckpt={model}", "corpus=tokens", "corpus.path=ids.npy", "wandb.mode=disabled", "device=cpu"]
    before = partial(stop_after_a_layer)
    assert "same command goes on" in ended(start_program(*census, "out=a", cwd=tmp_path, before=before), STOPPED)
    layers = sorted((tmp_path / "a/layers").glob("layer_*.safetensors"))
    assert 1 <= len(layers) < 3
    whole = {file.name: file.stat().st_mtime_ns for file in layers}
    ended(start_program(*census, "out=a", cwd=tmp_path), 0)
    ended(start_program(*census, "out=b", cwd=tmp_path), 0)
    assert {name: (tmp_path / "a/layers" / name).stat().st_mtime_ns for name in whole} == whole
    a, b = ({f.name: f.read_bytes() for f in (tmp_path / out / "layers").iterdir()} for out in "ab")
    assert a == b and len(a) == 3 and (tmp_path / "a/report.html").is_file()


def stop_while_drawing() -> None:
    from analyze import pipeline as analysis

    def stopped(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    vars(analysis)["write_figures"] = stopped


def test_drawing_that_is_stopped_is_75(tmp_path: Path) -> None:
    model = tiny.saved(tmp_path / "model", tiny.random_model(layers=1))
    np.save(tmp_path / "ids.npy", tiny.random_ids())
    census = [f"ckpt={model}", "corpus=tokens", "corpus.path=ids.npy", "wandb.mode=disabled", "device=cpu", "out=a"]
    ended(start_program("analyze/run.py", *census, cwd=tmp_path), 0)
    program = start_program("analyze/draw.py", "out=a", cwd=tmp_path, before=stop_while_drawing)
    assert "stopped (SIGTERM)" in ended(program, STOPPED)
    assert json.loads((tmp_path / "a/meta.json").read_text())["title"]


def stop_while_tokenising(after: int) -> None:
    from corpora import build as making

    as_ever, seen = vars(making)["tokenised"], [0]

    def tokenised(*arguments: Any) -> Any:
        for batch in as_ever(*arguments):
            seen[0] += 1
            if seen[0] > after:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    vars(making)["tokenised"] = tokenised


def test_preparing_that_is_stopped_goes_on(corpus: CorpusConfig, tmp_path: Path) -> None:
    words = [word for word in settings(corpus) if word.startswith("corpus")]
    words = [word for word in words if not word.startswith("corpus.store")] + ["corpus.store=store"]
    before = partial(stop_while_tokenising, 0)
    assert "stopped (SIGTERM)" in ended(start_program("scripts/prepare_corpus.py", *words, cwd=tmp_path, before=before), STOPPED)
    ended(start_program("scripts/prepare_corpus.py", *words, cwd=tmp_path), 0)
