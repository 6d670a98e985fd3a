"""`make gpu` on a machine without a GPU: its rehearsal ends with every row, and what fails or takes too long is named."""

import json
import re
import runpy
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import program

from device import CPU
from scripts import gpu
from scripts.gpu_parts import NAMES, TESTS, Step, for_gpu, rehearsed

HERE = Path(__file__).parents[2]
PAGE = Path("gpu_rehearsal").with_suffix(".md")
WALK = ("census", "share of the layers' arithmetic", "the GPU waits, at most", "bound by", "memory", "whole model", "accelerate",
        "census against accelerate")  # fmt: skip
TRAINING = ("this project (bfloat16)", "transformers, not compiled, float32")
CENSUS = ("forward alone", "forward and all statistics", "transformers, hooks and index_add_, tokens only")
ROWS = [
    ("tests", "pytest", "tests"),
    *(("tests", "kernels", name) for name in ("a copy within memory", "packing, numba", "packing, torch", "segment sums, numba")),
    *(("census", "125m", name) for name in CENSUS),
    *(("walk", step, name) for step in ("6.7b", "66b") for name in WALK),
    *(("training", f"dropout_{p}", name) for p in ("0.0", "0.1") for name in TRAINING),
]


@pytest.fixture(autouse=True)
def path_of_its_own() -> Iterator[None]:
    """A script puts the repository on sys.path for itself."""
    before = sys.path.copy()
    yield
    sys.path[:] = before


@pytest.mark.long
def test_the_rehearsal_ends_with_every_row(tmp_path: Path) -> None:
    assert program("scripts/gpu.py", "--rehearse", "--out", str(tmp_path), cwd=tmp_path).returncode == 0
    page = (tmp_path / PAGE).read_text()
    found = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in page.splitlines() if line.startswith("| ")]
    assert [row for row in found if row[2] not in ("became", "done", "figure")][: len(ROWS)] == ROWS
    steps = json.loads((tmp_path / "gpu_rehearsal.json").read_text())["steps"]
    assert {step["part"] for step in steps} == set(NAMES) and {step["became"] for step in steps} == {"done"}
    assert not (HERE / "docs/results" / PAGE).exists()


BEGUN = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)'])"
PARTS = {  # code, seconds, what becomes of it
    "tests": ("raise SystemExit('no such kernel')", 100.0, "failed with exit code 1"),
    "census": (f"{BEGUN}; print(p.pid, flush=True); time.sleep(900)", 3.0, "stopped after 3 s"),
    "walk": ("print('walked')", 100.0, "done"),
}


def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *names: str) -> str:
    """The page of a run of these parts; its exit code is 1 if any of them is not done."""
    steps = {name: [Step(f"a step of {name}", ["-c", code], tmp_path / name, limit)] for name, (code, limit, _) in PARTS.items()}
    monkeypatch.setattr(gpu, "rehearsed", lambda *_: steps)
    monkeypatch.setattr(gpu, "NAMES", names)
    monkeypatch.setattr(gpu, "GRACE", 2.0)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert bool(end.value.code) == any(PARTS[name][2] != "done" for name in names)
    return (tmp_path / PAGE).read_text()


def test_what_fails_and_what_takes_too_long_is_named_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = made(monkeypatch, tmp_path, *PARTS)
    for name, (_, _, became) in PARTS.items():
        assert f"| {name} | a step of {name} | {became} |" in page
    assert "no such kernel" in page
    started = int(page.split("The last it said:")[2].split("```")[1].strip())
    state = Path(f"/proc/{started}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", "what a step started outlived it"


def test_when_all_is_done_the_command_succeeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "done" in made(monkeypatch, tmp_path, "walk")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_names_the_rehearsal(tmp_path: Path) -> None:
    done = program("scripts/gpu.py", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: make gpu needs a CUDA GPU .* python scripts/gpu\.py --rehearse .*\.\n", done.stderr), done.stderr


def test_no_part_may_take_more_than_8_minutes_nor_all_more_than_25(tmp_path: Path) -> None:
    limits = {part: sum(step.seconds for step in steps) for part, steps in for_gpu(CPU(), tmp_path, tmp_path / "none").items()}
    assert list(limits) == list(NAMES) and max(limits.values()) <= 480 and sum(limits.values()) <= 1500


@pytest.mark.parametrize(("visible", "expected"), [(None, "1"), ("4,5", "5"), ("GPU-a, GPU-b", "GPU-b")])
def test_a_step_sees_the_gpu_that_was_named(visible: str | None, expected: str) -> None:
    assert gpu.seen(1, visible) == expected


class Parsed(Exception):
    """The command line was understood."""


def test_every_step_of_a_gpu_is_a_command_that_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A rehearsal takes the same steps with other words."""
    parse = ArgumentParser.parse_args

    def parsed(parser: ArgumentParser, *words: Any) -> Namespace:
        parse(parser, *words)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", parsed)
    planned = [for_gpu(CPU(), tmp_path, tmp_path / "none"), rehearsed(tmp_path, tmp_path / "none")]
    for step in (step for parts in planned for steps in parts.values() for step in steps):
        if step.command[0] == "-m":
            named = {word.removeprefix("tests/test_").removesuffix(".py") for word in step.command if word.startswith("tests/")}
            assert (
                "long or not long" in step.command
                and "segments" in named
                and (len(named) == 1 or {"gpu", *TESTS} - {"gpu*"} <= named)
            )
            continue
        assert "--device" not in step.command or step.command[step.command.index("--device") + 1] in (
            "cpu",
            "cuda",
        )  # as settings take it
        monkeypatch.setattr(sys, "argv", step.command)
        with pytest.raises(Parsed):
            runpy.run_path(str(HERE / step.command[0]), run_name="__main__")
