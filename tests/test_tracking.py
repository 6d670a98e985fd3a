"""wandb: what is sent can be read back whole; broken networks and broken installations change nothing in a run."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
from matplotlib.figure import Figure
from rich.console import Console
from synthetic_census import write_census
from test_training import lines

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.figures.catalogue import write_figure
from analyze.pipeline import analyze, sequences_for
from analyze.tables.census import open_census
from analyze.wandb_log import DETECTORS, census_scalars, detector_rows, mirror_alone
from corpora.config import CorpusConfig
from errors import UserError
from models.open_checkpoint import open_checkpoint
from train.config import LiveConfig
from train.training import train
from wandb_run import PROJECT, Mirror, WandbConfig, decided, run_id, without_seed

OFFLINE = WandbConfig("offline", PROJECT)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests says of wandb."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def parts(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"))


@cache
def records(part: Path) -> list[dict[str, Any]]:
    """A part of a run, read back by wandb's own reader."""
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(next(part.glob("*.wandb")))]
    done = subprocess.run(reader, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(part: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records(part) if record["type"] == "history"]


def numbers(part: Path, prefix: str) -> dict[int, dict[str, float]]:
    """Every number behind the prefix, by our own step."""
    found: dict[int, dict[str, float]] = {}
    for row in rows(part):
        here = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        found.setdefault(row["step"], {}).update(
            {n: v for n, v in here.items() if isinstance(v, int | float) and "figure" not in n}
        )
    return {step: values for step, values in found.items() if values}


@pytest.fixture(scope="module")
def run(corpus: CorpusConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with live censuses, one of its milestones afterwards, and one on another sample, all mirrored."""
    runs = tmp_path_factory.mktemp("runs")
    run = train(tiny.training(corpus, runs, milestones=[3, 6], live=LiveConfig("milestones", tokens=800), wandb=OFFLINE), [])
    picture = runs / "a_figure.png"
    write_figure(Figure(figsize=(1, 1)), "", runs, picture.stem)
    for folder, step, tokens in (("census/step_000000003", 3, 1600), ("census/step_000000006", 6, 1600), ("small", 6, 400)):
        config = tiny.analysis(run / "milestones" / f"step_{step:09d}", corpus, run / folder, tokens=tokens)
        checkpoint = open_checkpoint(config.ckpt)
        take(CensusTask(checkpoint, sequences_for(checkpoint, config), run / folder, config), Console(quiet=True))
        mirror_alone(open_census(run / folder), OFFLINE, [picture], Console(quiet=True))
    return run


def test_wandb_holds_every_number_of_every_census_with_its_step(run: Path) -> None:
    by_prefix = {"live/": parts(run)[:1], "census/": parts(run)[1:3], "small/": parts(run)[3:]}
    for prefix, of in by_prefix.items():
        held: dict[int, dict[str, float]] = {}
        for part in of:
            for step, values in numbers(part, prefix).items():
                held.setdefault(step, {}).update(values)
        for step, folder in {"small/": {6: "small"}}.get(prefix, {s: f"{prefix}step_{s:09d}" for s in (3, 6)}).items():
            census = open_census(run / folder)
            expected = census_scalars(census) | {"n_tokens": census.n_tokens, "dead_bound": census.meta["dead_bound"]}
            assert held[step] == pytest.approx(expected), (prefix, step)
            assert expected["type/dead"] == census.neurons["dead"].sum() and "layer_001/type/other" in expected
        assert set(held) == ({6} if prefix == "small/" else {3, 6})


def test_all_of_a_run_is_one_run_on_our_own_axes(run: Path) -> None:
    known = run_id(run)
    for part in parts(run):
        told = records(part)
        assert {record["run"]["run_id"] for record in told if record["type"] == "run"} == {known}
        axes = [record["metric"] for record in told if record["type"] == "metric"]
        assert {axis.get("name") for axis in axes} >= {"step", "tokens"} and {axis.get("step_metric") for axis in axes} >= {
            "step"
        }
        assert all({"step", "tokens"} <= set(row) for row in rows(part))
    assert len(parts(run)) == 4


def test_wandb_holds_metrics_jsonl(run: Path) -> None:
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    held = {row["step"]: row for row in rows(parts(run)[0]) if "loss" in row}
    assert [line["step"] for line in told] == sorted(held) == [1, 2, 3, 4, 5, 6]
    for line in told:
        assert {name: held[line["step"]][name] for name in line if name != "time"} == {
            k: v for k, v in line.items() if k != "time"
        }


def test_figures_are_there(run: Path) -> None:
    assert any(name.startswith("census/figures/a_figure") for row in rows(parts(run)[1]) for name in row)


def test_the_table_of_detectors_is_there(tmp_path: Path) -> None:
    census = write_census(tmp_path / "census", layers=1, neurons=24, places=32)
    mirror_alone(census, OFFLINE, [], Console(quiet=True))
    (part,) = parts(census.path)
    (file,) = {row["census/detectors.path"] for row in rows(part) if "census/detectors.path" in row}
    sent = json.loads((part / "files" / file).read_text())
    assert (
        sent["columns"] == DETECTORS
        and sent["data"] == detector_rows(census)
        and len(sent["data"]) == census.neurons["token_detector"].sum() > 3
    )


def test_every_line_of_the_dashboard_is_of_numbers_that_are_sent(run: Path, tmp_path: Path) -> None:
    """Without a login its specification is written, and said so."""
    nobody = {"WANDB_API_KEY": "", "WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    program = [sys.executable, str(Path(__file__).parents[1] / "scripts" / "wandb_dashboard.py"), "--out", "made/dashboard.json"]
    done = subprocess.run(program, cwd=tmp_path, env=os.environ | nobody, capture_output=True, text=True, check=True)
    assert "not saved on wandb" in done.stdout and "made/dashboard.json" in done.stdout
    sections = json.loads((tmp_path / "made" / "dashboard.json").read_text())["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["training", "dead", "detectors", "positional", "comparison"]
    lines = [
        panel["config"] for section in sections for panel in section["panels"] if panel["viewType"] == "Run History Line Plot"
    ]
    sent = {name for part in parts(run) for row in rows(part) for name in row}
    for line in lines:
        drawn = [name for name in sent if re.search(line["metricRegex"], name)] if line.get("useMetricRegex") else line["metrics"]
        assert drawn and set(drawn) <= sent, line["chartTitle"]
        assert line["xAxis"] in ("step", "tokens") and len(drawn) <= 2, line["chartTitle"]
    assert len(lines) > 30


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("network", ["refused", "deaf"])
def test_a_broken_network_changes_nothing(
    network: str, deaf: socket.socket, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends while the sender still waits for its first answer; all that was to be sent is on disk."""
    port = deaf.getsockname()[1] if network == "deaf" else 9
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb_run.GRACE", 1)
    live = LiveConfig("milestones", tokens=800)
    broken = train(tiny.training(corpus, tmp_path, name="broken", live=live, wandb=WandbConfig(mode="online")), [])
    assert lines(broken) == lines(train(tiny.training(corpus, tmp_path, name="whole", live=live), []))
    (part,) = parts(broken)
    assert set(numbers(part, "live/")) == {0, 3, 6} and {row["step"] for row in rows(part) if "loss" in row} == {1, 2, 3, 4, 5, 6}


def decide(config: WandbConfig, capfd: pytest.CaptureFixture[str]) -> tuple[WandbConfig, list[str]]:
    found = decided(config, Console(stderr=True))
    return found, capfd.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("variables", "mode", "by"),
    [
        ({}, "offline", ""),
        ({"WANDB_MODE": ""}, "offline", ""),
        ({"WANDB_MODE": "online"}, "online", "WANDB_MODE=online"),
        ({"WANDB_MODE": "Offline"}, "offline", "WANDB_MODE=Offline"),
        ({"WANDB_MODE": "dryrun"}, "offline", "WANDB_MODE=dryrun"),
        ({"WANDB_MODE": "shared"}, "online", "WANDB_MODE=shared"),
        ({"WANDB_MODE": "disabled", "WANDB_DISABLED": "false"}, "disabled", "WANDB_MODE=disabled"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "1"}, "disabled", "WANDB_DISABLED=1"),
        *(({"WANDB_DISABLED": yes}, "disabled", f"WANDB_DISABLED={yes}") for yes in ("true", "YES", "on")),
        *(({"WANDB_DISABLED": no}, "offline", "") for no in ("0", "no", "False", "")),
    ],
)
def test_the_environment_decides_what_the_settings_leave_open(
    variables: dict[str, str], mode: str, by: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = [f"wandb.mode={mode}, by {by} of the environment"] if by else []
    assert decide(WandbConfig(), capfd) == (WandbConfig(mode, PROJECT), said)
    for given in ("online", "offline", "disabled"):
        assert decide(WandbConfig(given), capfd) == (WandbConfig(given, PROJECT), [])


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("WANDB_MODE", "sometimes", "one of online, offline, disabled, dryrun, run, shared; correct it, or unset it."),
        ("WANDB_MODE", "off", "one of online"),
        ("WANDB_DISABLED", "maybe", "true or false; correct it, or unset it."),
    ],
)
def test_nonsense_in_the_environment_is_refused(
    variable: str, value: str, allowed: str, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    sentence = f"{variable}={value!r} of the environment must be {allowed}"
    with pytest.raises(UserError, match=re.escape(sentence)):
        train(tiny.training(corpus, tmp_path, wandb=WandbConfig()), [])
    with pytest.raises(UserError, match=re.escape(sentence)):
        analyze(tiny.analysis(tmp_path / "none", corpus, tmp_path / "out", wandb=WandbConfig()))
    assert not list(tmp_path.iterdir())
    assert decided(WandbConfig("offline"), Console()).mode == "offline"  # given: nobody asks the environment


def test_a_run_that_the_environment_turns_off_needs_no_wandb(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "wandb", None)  # any import of it fails
    monkeypatch.setattr("analyze.pipeline.draw", lambda out, _: (open_census(out), []))  # figures take their time
    live = LiveConfig("milestones", tokens=400)
    run = train(tiny.training(corpus, tmp_path, steps=1, milestones=[1], live=live, wandb=WandbConfig()), [])
    analyze(tiny.analysis(run / "milestones" / "step_000000001", corpus, tmp_path / "out", tokens=400, wandb=WandbConfig()))
    said = capfd.readouterr().err
    assert said.count("wandb.mode=disabled, by WANDB_MODE=disabled of the environment\n") == 2 and "left out" not in said
    assert not (run / "wandb").exists() and not (tmp_path / "out" / "wandb").exists()


def test_the_environment_names_project_entity_and_tags_but_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own: wandb reads the environment once. Two runs that are given the same id stay two."""
    others = dict.fromkeys(("RUN_ID", "NAME", "RUN_GROUP", "SWEEP_ID"), "theirs") | {"DIR": str(tmp_path), "RESUME": "must"}
    others |= {
        "RESUME_FROM": "theirs?_step=3",
        "SERVICE": "3-1-unix-/nowhere",
        "SILENT": "perhaps",
        "LAUNCH": "true",
        "MODE": "online",
    }
    for name, value in (others | {"PROJECT": "mine", "ENTITY": "me", "TAGS": "a,b", "BASE_URL": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("SM_TRAINING_ENV", "{}")
    monkeypatch.setenv("TRAINING_JOB_NAME", "theirs")
    program = f"""import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path; from rich.console import Console; from wandb_run import Mirror, WandbConfig, decided
console = Console(stderr=True)
for name in "ab":
    mirror = Mirror(decided(WandbConfig("offline"), console), Path(name), name, "g", {{}}, console)
    mirror.log({{"step": 1, "tokens": 2}})
    mirror.close()"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    project, passed_over = done.stderr.splitlines()[:2]
    assert done.stderr.splitlines() == [project, passed_over] * 2
    assert project == "wandb.project=mine, by WANDB_PROJECT of the environment"
    assert passed_over.startswith("wandb does not follow WANDB_RUN_ID, WANDB_RESUME, WANDB_RESUME_FROM, WANDB_NAME, ")
    monkeypatch.undo()
    for name in "ab":
        (part,) = parts(tmp_path / name)
        (held,) = [record["run"] for record in records(part) if record["type"] == "run"]
        assert held["run_id"] == run_id(tmp_path / name) and held["display_name"] == name
        assert [held[of] for of in ("project", "entity", "tags", "run_group")] == ["mine", "me", ["a", "b"], "g"]
    assert run_id(tmp_path / "a") != run_id(tmp_path / "b")


def test_a_given_project_is_that_of_nobody_else(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert decide(WandbConfig("offline", "mine"), capfd) == (WandbConfig("offline", "mine"), [])


def test_a_setting_that_wandb_refuses_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror = Mirror(WandbConfig("offline", "a/b"), tmp_path, "n", "g", {}, Console(stderr=True))
    mirror.close()
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("wandb is left out from here on: ") and "project" in said and len(said) < 300


def test_a_broken_wandb_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import wandb

    def broken(**_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", broken)
    mirror = Mirror(OFFLINE, tmp_path, "n", "g", {}, Console(stderr=True))
    mirror.log({"step": 1})
    mirror.close()
    assert "wandb is left out from here on: no space left" in capfd.readouterr().err


def test_parts_that_begin_together_have_folders_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        mirror = Mirror(OFFLINE, tmp_path, "n", "g", {}, Console(quiet=True))
        mirror.log({"step": 1, "tokens": 2})
        mirror.close()
    assert len(parts(tmp_path)) == 2 and all([row["step"] for row in rows(part)] == [1] for part in parts(tmp_path))


def test_a_variant_is_a_run_s_name_without_its_seed() -> None:
    names = {"nopos-demo-seed1": "nopos-demo", "seed_0": "baseline", "seed_0-size_8m": "size_8m", "nopos": "nopos"}
    assert {name: without_seed(name) for name in names} == names
