"""All that needs a GPU, and a page of what came out: python scripts/gpu.py [--part walk] [--rehearse]

Kernels and tests; the census of OPT-125m's shape; the walk of 6.7b's and 66b's, beside accelerate; training of 125m's. Every step is a
process that is stopped when its time is over; the others still run. The page and its numbers go to docs/results, named for the GPU.
A rehearsal takes the same way on a CPU at toy size, into a folder that is removed, unless --out names one.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import torch

from device import CPU, Device, resolved
from errors import BEGINS_AGAIN, UserError, plainly
from files import write_whole
from scripts.gpu_page import DONE, Outcome, contents, page, summary, title
from scripts.gpu_parts import NAMES, Step, for_gpu, rehearsed

HERE = Path(__file__).parents[1]
GRACE = 10.0  # seconds between asking a process to end and ending it
LINES = 20  # kept of what a step said


def ran(part: str, step: Step, on_gpu: bool, gpu: int | None = None) -> Outcome:
    """Run a step, its words passed on; when its time is over, it and all that it started are stopped. `gpu`: the only one it sees."""
    print(f"\n== {part}: {step.name} (at most {step.seconds:.0f} s)", flush=True)
    step.out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if on_gpu:
        environment.pop("TRITON_INTERPRET", None)  # the kernels themselves, not what Triton's interpreter makes of them
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = seen(gpu, environment.get("CUDA_VISIBLE_DEVICES"))
    begun, said = time.monotonic(), deque[str](maxlen=LINES)
    process = subprocess.Popen(
        [sys.executable, *step.command], cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    reader = threading.Thread(target=_pass_on, args=(process, said), daemon=True)
    reader.start()
    try:
        code = process.wait(step.seconds)
        became = DONE if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        became = f"stopped after {step.seconds:.0f} s"
    finally:
        _end(process)
    reader.join(GRACE)
    return Outcome(part, step, became, time.monotonic() - begun, list(said))


def seen(gpu: int, visible: str | None) -> str:
    """The one GPU for CUDA_VISIBLE_DEVICES, of those that are visible now."""
    return visible.split(",")[gpu].strip() if visible else str(gpu)


def _pass_on(process: "subprocess.Popen[str]", said: deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            print(line, end="", flush=True)
            said.append(line.rstrip())


def _end(process: "subprocess.Popen[str]") -> None:
    """End the session that a step began, whatever of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def device_of(arguments: argparse.Namespace) -> Device:
    """The GPU, or the CPU of a rehearsal.

    Raises:
        UserError: there is no GPU.
    """
    if arguments.rehearse:
        return CPU()
    if not torch.cuda.is_available():
        raise UserError(
            "make gpu needs a CUDA GPU and torch sees none; python scripts/gpu.py --rehearse takes the same way on a CPU."
        )
    return resolved(arguments.device)


def patient(step: Step, times: float) -> Step:
    """The step, with so many times its seconds."""
    return replace(step, seconds=step.seconds * times)


def save(device: Device, outcomes: list[Outcome], out: Path, part: str) -> Path:
    """Write the page and its numbers, named for the GPU and, if not all were run, for the part; returns the page's file."""
    kind = torch.cuda.get_device_name(device.name) if device.kind == "cuda" else "rehearsal"
    name = "gpu_" + re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_") + part
    write_whole(out / f"{name}.json", json.dumps(contents(device, outcomes), indent=2) + "\n")
    write_whole(out / f"{name}.md", page(device, outcomes))
    return out / f"{name}.md"


def main() -> None:
    """Run the parts, print and save the page; exit code 1 if a step failed or was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", choices=(*NAMES, "all"))
    parser.add_argument("--device", default="cuda", help="cuda, or one of several: cuda:1")
    parser.add_argument("--patience", type=float, default=1.0, help="times the seconds that every step may take")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy size, for about two minutes")
    parser.add_argument("--out", type=Path, help="for the page; default: docs/results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        device, work = device_of(arguments), Path(folder)
        weights = work / "weights" if arguments.rehearse else HERE / "runs/benchmark"
        parts = rehearsed(work, weights) if arguments.rehearse else for_gpu(device, work, weights)
        chosen = NAMES if arguments.part == "all" else (arguments.part,)
        only = device.name.index if ":" in arguments.device else None
        steps = [(part, patient(step, arguments.patience)) for part in chosen for step in parts[part]]
        outcomes = [ran(part, step, device.kind == "cuda", only) for part, step in steps]
        out = arguments.out or (work / "results" if arguments.rehearse else HERE / "docs/results")
        file = save(device, outcomes, out, "" if arguments.part == "all" else f"_{arguments.part}")
        print(f"\n{file.read_text()}" if arguments.rehearse else f"\n{title(device)}\n\n{summary(outcomes)}\n\n{file}")
    sys.exit(any(outcome.became != DONE for outcome in outcomes))


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
