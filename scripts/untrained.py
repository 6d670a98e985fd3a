"""Write a model of a checkpoint's shape with the weights that training begins from: python scripts/untrained.py facebook/opt-125m OUT

Its census is what `null=` of the analysis draws beside: python analyze/run.py ckpt=OUT out=NULL, then ckpt=facebook/opt-125m null=NULL.
An untrained network too has dead neurons, and neurons whose firing depends on position.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from errors import BEGINS_AGAIN, UserError, plainly
from models.checkpoint import save_checkpoint
from models.opening import open_checkpoint
from models.opt import OPT, initialise


def untrained(like: str, out: Path, seed: int, std: float | None) -> None:
    """Initialise a model of the shape of `like` as OPT's training does, in memory, and write it.

    Raises:
        UserError: see `open_checkpoint`; or `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder.")
    checkpoint = open_checkpoint(like)
    config = checkpoint.config if std is None else replace(checkpoint.config, init_std=std)
    file = Path(checkpoint.tokenizer) if checkpoint.tokenizer else None
    file = file / "tokenizer.json" if file and file.is_dir() else file
    state = {"step": 0, "tokens": 0, "name": f"untrained {checkpoint.name}"}
    save_checkpoint(initialise(OPT(config), seed), out, state, file if file and file.is_file() else None)


def main() -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("like", help="checkpoint whose shape to take, as analyze/run.py takes it")
    parser.add_argument("out", type=Path, help="new folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--std",
        type=float,
        help="of initial weights; else what a checkpoint of this project began with, and 0.006 for any other OPT",
    )
    arguments = parser.parse_args()
    untrained(arguments.like, arguments.out, arguments.seed, arguments.std)


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
