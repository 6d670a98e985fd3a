"""The main job in small, on this machine's own text: train baseline and nopos, sort their neurons, compare: python scripts/demo.py

Further arguments go to the training of both, as train/run.py takes them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

HERE = Path(__file__).parents[1]
sys.path[0] = str(HERE)

from errors import plainly

VARIANTS = ("baseline", "nopos")


def together(commands: Mapping[str, Sequence[str]]) -> None:
    """Run our programs side by side, sharing the cores, every line they say behind their name; one that ends before its end ends all.

    The exit code is then that of the first to do so.
    """
    running = {}
    for name, command in commands.items():
        print("$ python", *command, flush=True)
        program = [sys.executable, str(HERE / command[0]), *command[1:]]
        running[name] = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    listening = [Thread(target=repeat, args=(name, process), daemon=True) for name, process in running.items()]
    for listener in listening:
        listener.start()
    try:
        code = first_failure(list(running.values()))
    finally:  # also where this program is stopped: what a terminal has told all, each takes for the same
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        for listener in listening:
            listener.join()
    if code:
        sys.exit(code)


def first_failure(running: list["subprocess.Popen[str]"]) -> int:
    """Wait for all to end, or for the first that fails: its exit code, as a shell has it; 0: none does."""
    while True:
        codes = [process.poll() for process in running]
        if failed := [code for code in codes if code]:
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if None not in codes:
            return 0
        time.sleep(0.2)


def repeat(name: str, process: subprocess.Popen[str]) -> None:
    """Say what a program says."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            print(f"{name:>8} | {line}", end="", flush=True)


def main() -> None:
    """Two trainings, two analyses, one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the runs and of the page")
    parser.add_argument("--tokens", type=int, default=262_144, help="positions that each census reads")
    arguments, overrides = parser.parse_known_args()
    out, begun = arguments.out, time.time()
    corpus = ["corpus=local", *(override for override in overrides if override.startswith("corpus."))]
    threads = f"threads={max(1, (os.cpu_count() or 1) // len(VARIANTS))}"
    together({"corpus": ["scripts/prepare_corpus.py", *corpus]})
    training = ["train/run.py", "experiment=demo", f"runs={out}", threads, *overrides]
    together({variant: [*training, f"model={variant}", f"name={variant}"] for variant in VARIANTS})
    census = ["analyze/run.py", *corpus, f"tokens={arguments.tokens}", threads]
    together({variant: [*census, f"ckpt={out / variant}"] for variant in VARIANTS})
    runs = ",".join(f'"{out / variant}"' for variant in VARIANTS)
    together({"compare": ["analyze/compare.py", f"runs=[{runs}]", f"out={out}"]})
    print(f"{(time.time() - begun) / 60:.1f} minutes; open {out / 'report.html'} in a browser")


if __name__ == "__main__":
    with plainly():
        main()
