"""The main job in small, on this machine's own text: train baseline and nopos, sort their neurons, compare: python scripts/demo.py

Further arguments go to the training of both, as train/run.py takes them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
VARIANTS = ("baseline", "nopos")


def run(*command: str) -> None:
    """Run one of our programs; its failure is ours."""
    print("$ python", *command, flush=True)
    done = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Two trainings, two analyses, one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the runs and of the page")
    parser.add_argument("--tokens", type=int, default=262_144, help="positions that each census reads")
    arguments, overrides = parser.parse_known_args()
    out, begun = arguments.out, time.time()
    for variant in VARIANTS:
        run("train/run.py", "experiment=demo", f"model={variant}", f"runs={out}", f"name={variant}", *overrides)
    corpus = [override for override in overrides if override.startswith("corpus")]
    for variant in VARIANTS:
        run("analyze/run.py", f"ckpt={out / variant}", "corpus=local", f"tokens={arguments.tokens}", *corpus)
    run("analyze/compare.py", f"runs=[{','.join(str(out / variant) for variant in VARIANTS)}]", f"out={out}")
    print(f"{(time.time() - begun) / 60:.1f} minutes; open {out / 'report.html'} in a browser")


if __name__ == "__main__":
    main()
