"""The parts of `make gpu`: which commands, on how much, and how long each may take; and the same at toy size, for a rehearsal on a CPU."""

from dataclasses import dataclass
from pathlib import Path

import torch

from device import Device

NAMES = ("tests", "census", "walk", "training")
HERE = Path(__file__).parents[1]
TESTS = ("gpu*", "segments", "packing", "kernels", "counts", "throughput")  # files of tests that a GPU, or its speed, is for
ALL = "long or not long"  # of these, whatever their marks
REFERENCE = 989.4e12  # FLOP/s of the GPU for which amounts were chosen; a slower one is given less text for the same time
UNKNOWN = 0.3  # of it: a GPU that no table knows


@dataclass(frozen=True)
class Step:
    """A process, and the seconds after which it is stopped."""

    name: str
    command: list[str]  # for Python
    out: Path  # the folder that takes its pages and numbers
    seconds: float


def for_gpu(device: Device, work: Path, weights: Path) -> dict[str, list[Step]]:
    """What runs on a GPU: 25 minutes at most, 8 a part. Synthesised checkpoints stay in `weights` for the next time."""
    speed = min(1.0, (device.peak_flops(torch.float16) or UNKNOWN * REFERENCE) / REFERENCE)
    on = "--device cuda --dtype float16"
    small, large = (f"{on} --sequences {max(16, int(speed * most))}" for most in (256, 320))
    train = "--device cuda --shape 125m --steps 8 --ways ours transformers transformers_compiled transformers_bfloat16"
    return {
        "tests": [
            _step("pytest", work, 240, "-m pytest -n 0 --color=no", "-m", ALL, *_tests()),
            _step("kernels", work, 60, "scripts/benchmark_kernels.py --device cuda"),
        ],
        "census": [_step("125m", work, 240, f"scripts/benchmark.py {on} --tokens 1048576 --rounds 2")],
        "walk": [
            *_walk("6.7b", work, weights / "6.7b_32_layers", (20, 140), "", f"{small} --arithmetic 8"),
            # 16 of 66b's 64 layers; residual streams where those of 5M tokens lie
            *_walk(
                "66b", work, weights / "66b_16_layers", (60, 260), "--layers 16",
                f"{large} --residuals pinned --arithmetic 4 --of-layers 64",
            ),
        ],
        "training": [_step(f"dropout_{p}", work, 240, f"scripts/benchmark_training.py {train} --dropout {p}") for p in ("0.0", "0.1")],
    }  # fmt: skip


def rehearsed(work: Path, weights: Path) -> dict[str, list[Step]]:
    """The same parts, steps and programs on a CPU, on hardly anything."""
    on = "--device cpu --dtype float32"
    train = "--device cpu --shape toy --steps 1 --rounds 1 --ways ours transformers"
    walk = f"{on} --sequences 2 --positions 64"
    return {
        "tests": [
            _step("pytest", work, 120, "-m pytest -n 0 --color=no", "-m", ALL, "tests/test_segments.py", "-k", "packing"),
            _step("kernels", work, 120, "scripts/benchmark_kernels.py --device cpu --rows 2048 --neurons 256"),
        ],
        "census": [_step("125m", work, 120, f"scripts/benchmark.py {on} --layers 1 --tokens 256 --positions 128")],
        "walk": [
            *_walk("6.7b", work, weights / "toy_4_layers", (60, 120), "", f"{walk} --arithmetic 2", size="8m"),
            *_walk(
                "66b", work, weights / "toy_2_layers", (60, 120), "--layers 2",
                f"{walk} --residuals file --arithmetic 1 --of-layers 4", size="8m",
            ),
        ],
        "training": [_step(f"dropout_{p}", work, 120, f"scripts/benchmark_training.py {train} --dropout {p}") for p in ("0.0", "0.1")],
    }  # fmt: skip


def _tests() -> list[str]:
    files = (file for name in TESTS for file in sorted((HERE / "tests").glob(f"test_{name}.py")))
    return [str(file.relative_to(HERE)) for file in files]


def _step(name: str, work: Path, seconds: float, command: str, *words: str) -> Step:
    out = work / name
    where = [f"--junitxml={out / 'tests.xml'}"] if name == "pytest" else ["--out", str(out)]
    return Step(name, [*command.split(), *words, *where], out, seconds)


def _walk(name: str, work: Path, ckpt: Path, seconds: tuple[float, float], layers: str, how: str, size: str = "") -> list[Step]:
    """A checkpoint, where it is not there already, and the walk of it."""
    out = work / name
    made = ["scripts/synthesize_checkpoint.py", size or name, str(ckpt), *f"--layout bin --one-layer {layers}".split()]
    walk = ["scripts/benchmark_forward.py", str(ckpt), *how.split(), "--accelerate", "--out", str(out)]
    written = [] if ckpt.exists() else [Step(f"{name} weights", made, work / f"{name}_weights", seconds[0])]
    return [*written, Step(name, walk, out, seconds[1])]
