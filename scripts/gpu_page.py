"""What the parts of `make gpu` left -> one page: the machine, what became of every step, its figures, and its own page."""

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from device import Device
from provenance import git, measured_on
from scripts.gpu_parts import Step
from scripts.measurement import Figure

DONE = "done"


@dataclass
class Outcome:
    """What became of a step."""

    part: str
    step: Step
    became: str  # "done", or what went wrong
    seconds: float
    said: list[str]  # the last lines of it

    @property
    def figures(self) -> list[Figure]:
        """What it measured, however it ended."""
        found = [Figure(**figure) for content in self.numbers for figure in content["figures"]]
        return [counted_tests(file) for file in sorted(self.step.out.glob("*.xml"))] + found

    @property
    def numbers(self) -> list[dict[str, Any]]:
        """The contents of its JSON files."""
        return [json.loads(file.read_text()) for file in sorted(self.step.out.glob("*.json"))]

    @property
    def pages(self) -> list[str]:
        """Its pages."""
        return [file.read_text().strip() for file in sorted(self.step.out.glob("*.md"))]


def counted_tests(report: Path) -> Figure:
    """How many tests passed, failed and were skipped, of pytest's XML."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    number = {kind: int(suite.get(kind, "0")) for kind in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    return Figure("tests", f"{passed} passed, {failed} failed, {number['skipped']} skipped", "none fails")


def machine(device: Device) -> dict[str, str]:
    """The GPU, its driver, versions of what computes on it, the day, and the code."""
    named = {"measured on": measured_on(), "host": f"{platform.platform()}, Python {platform.python_version()}"}
    if device.kind == "cuda":
        named |= {"GPU": torch.cuda.get_device_name(device.name), "driver": _driver(), "CUDA": str(torch.version.cuda)}
        named["GPU memory"] = f"{torch.cuda.get_device_properties(device.name).total_memory / 1e9:.1f} GB"
    versions = {name: _version(name) for name in ("triton", "transformers", "accelerate")}
    commit, *changed = git().strip().split("\n")
    code = f"{commit}, {len(changed)} files changed since" if changed else commit
    return named | versions | {"day": str(date.today()), "commit": code}


def _version(package: str) -> str:
    if find_spec(package) is None:
        return "not installed"
    from importlib.metadata import version

    return version(package)


def _driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "not told"


def title(device: Device) -> str:
    """Of the page."""
    on = (
        torch.cuda.get_device_name(device.name)
        if device.kind == "cuda"
        else "rehearsal on a CPU, at toy size: no number means anything"
    )
    return f"# On a GPU: {on}"


def summary(outcomes: list[Outcome]) -> str:
    """Markdown: what became of every step, then every figure beside what it is to be."""
    lines = ["| part | step | became | seconds | at most |", "|---|---|---|---:|---:|"]
    lines += [f"| {o.part} | {o.step.name} | {o.became} | {o.seconds:.0f} | {o.step.seconds:.0f} |" for o in outcomes]
    lines += ["", "| part | step | figure | measured | to be |", "|---|---|---|---|---|"]
    lines += [f"| {o.part} | {o.step.name} | {f.name} | {f.measured} | {f.target or '–'} |" for o in outcomes for f in o.figures]
    return "\n".join(lines)


def page(device: Device, outcomes: list[Outcome]) -> str:
    """Markdown, whole."""
    named = "\n".join(f"* {name}: {value}" for name, value in machine(device).items())
    parts = [title(device), named, summary(outcomes)]
    for outcome in outcomes:
        if outcome.pages or outcome.became != DONE:
            parts.append(f"## {outcome.part}: {outcome.step.name}")
        parts += outcome.pages
        if outcome.became != DONE:
            parts += [f"{outcome.became.capitalize()}. The last it said:", "```\n" + "\n".join(outcome.said) + "\n```"]
    return "\n\n".join(parts) + "\n"


def contents(device: Device, outcomes: list[Outcome]) -> dict[str, Any]:
    """The same in numbers."""
    steps = [
        {"part": o.part, "step": o.step.name, "command": o.step.command, "became": o.became, "seconds": round(o.seconds, 1),
         "figures": [asdict(figure) for figure in o.figures], "results": [n["results"] for n in o.numbers]}
        for o in outcomes
    ]  # fmt: skip
    return {"machine": machine(device), "steps": steps}
