"""Write a model of a checkpoint's shape with the weights that training begins from: python scripts/untrained.py facebook/opt-125m OUT

Its census is what `null=` of the analysis draws beside: python analyze/run.py ckpt=OUT out=NULL, then ckpt=facebook/opt-125m null=NULL.
An untrained network too has dead neurons, and neurons whose firing depends on position.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from safetensors import SafetensorError

from errors import BEGINS_AGAIN, UserError, plainly
from files import remove_unfinished
from locks import only_writer
from models.checkpoint import save_checkpoint
from models.open_checkpoint import open_checkpoint
from models.opt import OPT, initialise
from paths import expanded
from settings import check_new_folder

LARGEST_STD = 1000.0  # as model.init_std


def untrained(like: str, out: Path, seed: int, std: float | None) -> None:
    """Initialise a model of the shape of `like` as OPT's training does, in memory, and write it.

    Raises:
        UserError: see `open_checkpoint`; or `out` is there already, or cannot be written; or a number is none.
    """
    check_new_folder(out)
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed={seed} must be 0 or more, and below 2^63.")
    if std is not None and not 0 < std <= LARGEST_STD:
        raise UserError(f"--std={std} must be above 0, and at most {LARGEST_STD:g}.")
    checkpoint = open_checkpoint(expanded(like))
    print(*checkpoint.notes, sep="\n", end="\n" if checkpoint.notes else "", file=sys.stderr)
    config = checkpoint.config if std is None else replace(checkpoint.config, init_std=std)
    file = Path(checkpoint.tokenizer) if checkpoint.tokenizer else None
    file = file / "tokenizer.json" if file and file.is_dir() else file
    state = {"step": 0, "name": f"untrained {checkpoint.name}"} | ({"tokens": 0} if checkpoint.of_a_run else {})  # the same text
    model = initialise(OPT(config), seed)
    try:
        save_checkpoint(model, out, state, file if file and file.is_file() else None)
    except (OSError, SafetensorError) as trouble:
        raise UserError(f"{out} cannot be written ({trouble}); make room, or choose another place.") from None


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
    out = Path(expanded(str(arguments.out)))
    with only_writer(out, "OUT"):
        remove_unfinished(out, deep=False)
        untrained(arguments.like, out, arguments.seed, arguments.std)


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
