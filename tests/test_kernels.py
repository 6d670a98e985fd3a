"""Kernels become machine code: numba's anew when any file they come from changes, Triton's for a GPU that is not here."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic  # type: ignore[attr-defined]

from analyze.jit import ANALYZE, kernel_files


def modules() -> list[str]:
    """All of analyze/ that is no program."""
    files = [file.relative_to(ANALYZE.parent).with_suffix("") for file in sorted(ANALYZE.rglob("*.py"))]
    return [".".join(file.parts) for file in files if file.name not in {"run", "draw", "compare", "triton_kernel", "__init__"}]


def source_of(name: str, module: str) -> str:
    """The module that a global name of a module is defined in."""
    file = ANALYZE.parent / (module.replace(".", "/") + ".py")
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return str(node.module)
    return module


def test_every_file_that_a_kernel_comes_from_is_in_the_kernels_hash() -> None:
    """A kernel, what it calls, and the constants that are compiled into it."""
    hashed, found = (
        {file.relative_to(ANALYZE.parent).with_suffix("").as_posix().replace("/", ".") for file in kernel_files()},
        set(),
    )
    for module in modules():
        for kernel in [value for value in vars(importlib.import_module(module)).values() if isinstance(value, Dispatcher)]:
            function = kernel.py_func
            found.add(function.__module__)
            for name in function.__code__.co_names:
                value = function.__globals__.get(name)
                if isinstance(value, Dispatcher | _Intrinsic | int | float):
                    found.add(source_of(name, function.__module__))
    assert {"analyze.firing.signs", "analyze.firing.bit_sliced", "analyze.counts.ngram_histograms"} <= found
    ours = {name for name in found if name.startswith("analyze")}
    assert ours <= hashed, f"edits of {sorted(ours - hashed)} would go unseen"


def test_a_kernel_in_a_sub_package_is_in_the_kernels_hash_and_so_are_its_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "firing/adders.py": "from analyze.firing.sizes import BLOCK\n\n\n@compiled\ndef add(): ...\n",
        "firing/sizes.py": "BLOCK = 6\n",
        "drawing.py": "def draw(): ...\n",
    }
    for name, text in texts.items():
        (tmp_path / "analyze" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "analyze" / name).write_text(text)
    monkeypatch.setattr("analyze.jit.ANALYZE", tmp_path / "analyze")
    assert kernel_files() == [tmp_path / "analyze" / "firing" / name for name in ("adders.py", "sizes.py")]


def test_tritons_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does."""
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = [sys.executable, str(Path(__file__).parent / "compile_kernels.py")]
    ended = subprocess.run(
        program, capture_output=True, text=True, env=environment | {"TRITON_CACHE_DIR": str(tmp_path)}, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("compiles") == 4
