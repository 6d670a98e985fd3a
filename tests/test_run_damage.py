"""Damage to a run folder or a milestone ends in a sentence that names the file, or is mended and said; no other numbers come of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import tiny
import torch

from analyze.tables.variants import variants
from corpora.config import CorpusConfig
from errors import UserError
from models.open_checkpoint import open_checkpoint
from settings import written_settings
from train.checkpointing import Keeping
from train.config import LiveConfig, TrainConfig
from train.folder import finished_steps, last_checkpoint
from train.training import train


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run that has made two of its six steps."""
    place = tmp_path_factory.mktemp("damage")
    corpus: CorpusConfig = tiny.text_corpus(place / "text")
    train(tiny.training(corpus, place, steps=2, milestones=[0, 2]), [])
    return tiny.training(corpus, place)


@pytest.fixture
def run(begun: TrainConfig, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(Path(begun.runs) / "run", tmp_path / "run"))


def flips(content: bytes, rng: np.random.Generator, n: int) -> list[bytes]:
    """The content with one bit changed: of the first, the last and other bytes."""
    places = [0, len(content) - 1, *rng.integers(0, len(content), n)]
    return [content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :] for at in places]


def test_a_flipped_bit_anywhere_in_last_ckpt_is_found_before_the_run_goes_on(run: Path) -> None:
    """In weights, moments, names and numbers, and in what no other checksum covers; a cut as well."""
    file = last_checkpoint(run)
    content, rng = file.read_bytes(), np.random.default_rng(0)
    assert finished_steps(run, {}) == 2 and len(content) > 50_000
    assert (
        torch.load(file, weights_only=True)["global_step"] == torch.load(file, weights_only=True, mmap=True)["global_step"] == 2
    )
    for damage in [*flips(content, rng, 25), content[: len(content) // 2], content[:-1], content + b"more", b""]:
        file.write_bytes(damage)
        with pytest.raises(UserError, match=rf"{file} .*remove it, and the same command begins the run anew.*step_000000002\."):
            finished_steps(run, {})
        with pytest.raises(UserError, match=str(file)):
            _ = open_checkpoint(str(file)).sha256


def test_another_file_in_the_place_of_last_ckpt_is_named(run: Path) -> None:
    for other in ([1, 2], {"global_step": "two"}):
        torch.save(other, last_checkpoint(run))
        with pytest.raises(UserError, match=r"last\.ckpt is no checkpoint of a run\. Put back"):
            finished_steps(run, {})


def without_clock(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in lines]


LINES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a digit": (
        lambda lines: [lines[0].replace(b"e-0", b"e-1").replace(b'"loss": 5', b'"loss": 4'), *lines[1:]],
        "line 1 of 2 is not",
    ),
    "no json": (lambda lines: [lines[0], b"{" + lines[1], *lines[2:]], "line 2 of 2 is not"),
    "one too few": (lambda lines: lines[1:], "line 1 of 2 is missing"),
    "twice": (lambda lines: [lines[0], *lines], "line 2 of 2 is not"),
    "the end is gone": (lambda lines: lines[:1], "line 2 of 2 is missing"),
    "no text": (lambda lines: [b"\xff\x00" + lines[0], *lines[1:]], "line 1 of 2 is not"),
}


@pytest.mark.parametrize("damage", LINES)
def test_a_damaged_line_of_metrics_is_found_when_the_run_goes_on(damage: str, run: Path) -> None:
    file = run / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    changed, said = LINES[damage]
    assert changed(lines) != lines
    file.write_bytes(b"".join(changed(lines)))
    with pytest.raises(UserError, match=rf"{file} is damaged: {said}.*move it away: .*without the lines up to step 2\."):
        finished_steps(run, {})


def test_a_line_cut_by_a_kill_is_no_damage_and_a_file_moved_away_begins_anew(
    begun: TrainConfig, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, file = tiny.training(begun.corpus, run.parent, steps=3, milestones=[3]), run / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + b'{"step": 3, "lo')
    assert [line["step"] for line in without_clock(train(config, []))] == [1, 2, 3]
    assert "has no line" not in capfd.readouterr().err
    file.unlink()
    more = tiny.training(begun.corpus, run.parent, steps=4, milestones=[])
    assert [line["step"] for line in without_clock(train(more, []))] == [4]
    assert f"{file} has no line up to step 3: it begins after it" in capfd.readouterr().err
    last_checkpoint(run).unlink()
    assert [line["step"] for line in without_clock(train(config, []))] == [1, 2, 3], "begun anew"


def test_lines_begun_anew_survive_a_kill_before_the_next_checkpoint(run: Path) -> None:
    file = run / "metrics.jsonl"
    for content in (b"", b'{"step": 3, "lo', b'{"step": 3}\n', b'{"step": 3}\n{"ste'):
        file.write_bytes(content)
        assert finished_steps(run, {}) == 2


def test_damage_to_any_file_of_a_milestone_is_named_before_a_census_reads_it(run: Path) -> None:
    folder = run / "milestones" / "step_000000002"
    rng, good = np.random.default_rng(1), open_checkpoint(str(folder)).sha256
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["config.json", "model.safetensors", "tokenizer.json", "training_state.json"]
    for file in files:
        content = file.read_bytes()
        swapped = content.replace(b"2", b"3") if file.suffix == ".json" else content[:-8] + content[:8]
        for damage in [*flips(content, rng, 12), content[: len(content) // 2], content[:-2], swapped, b""]:
            file.write_bytes(damage)
            with pytest.raises(UserError, match=str(folder)) as said:
                _ = open_checkpoint(str(folder)).sha256
            assert str(file) in str(said.value) and "again" in str(said.value)
        file.unlink()
        with pytest.raises(UserError, match=str(folder)) as said:
            open_checkpoint(str(folder))
        assert file.name != "config.json" or "has no config.json: its weights are there; copy what is missing again" in str(
            said.value
        )
        file.write_bytes(content)
    assert open_checkpoint(str(folder)).sha256 == good


def test_files_of_two_milestones_are_not_one(run: Path) -> None:
    """Each is whole, and together they are none: another's state, weights or tokenizer."""
    one, other = (run / "milestones" / f"step_{step:09d}" for step in (0, 2))
    for name in ("model.safetensors", "training_state.json"):
        kept = (one / name).read_bytes()
        shutil.copyfile(other / name, one / name)
        with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
            _ = open_checkpoint(str(one)).sha256
        (one / name).write_bytes(kept)


def test_a_milestone_of_an_earlier_version_is_read_as_it_was(run: Path) -> None:
    folder = run / "milestones" / "step_000000002"
    state = json.loads((folder / "training_state.json").read_text())
    earlier = {name: value for name, value in state.items() if name not in ("xxh3", "checksum")}
    (folder / "training_state.json").write_text(json.dumps(earlier))
    assert open_checkpoint(str(folder)).step == 2
    (folder / "training_state.json").write_text(json.dumps(earlier | {"xxh3": state["xxh3"]}))
    with pytest.raises(UserError, match=r"training_state\.json is damaged: its checksum is another"):
        open_checkpoint(str(folder))


def test_the_tokenizer_of_a_run_is_that_of_its_ckpt(run: Path) -> None:
    file, last = run / "tokenizer.json", last_checkpoint(run)
    content = file.read_bytes()
    assert open_checkpoint(str(last)).tokenizer == str(file)
    file.write_bytes(content.replace(b"300", b"301").replace(b'"a"', b'"b"'))
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged, or another run's: .* Take that of a milestone"):
        open_checkpoint(str(last))
    file.unlink()
    assert open_checkpoint(str(last)).tokenizer is None, "as of a .ckpt that was moved"


RECORDS = ["environment.json", "git.txt"]
ALL = [*RECORDS, "config.yaml", "overrides.yaml", "tokenizer.json", "stopped.json"]


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 100_000, b'[1, {"a": 2}]'], ids=lambda c: str(c[:9]))
def test_a_damaged_record_does_not_stop_a_run(
    content: bytes, begun: TrainConfig, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Set aside and begun anew, or written again; a line says so where something was lost."""
    for name in ALL:
        (run / name).write_bytes(content)
    settings = TrainConfig(**(vars(begun) | {"runs": str(tmp_path), "steps": 3, "milestones": [3]}))
    train(settings, [])
    said = capfd.readouterr().err
    for name in RECORDS:
        assert f"{run / name} is damaged: it is set aside as {name}.damaged, and begins anew" in said
        assert (run / f"{name}.damaged").read_bytes() == content
    assert [machine["from_step"] for machine in json.loads((run / "environment.json").read_text())] == [2]
    assert (run / "git.txt").read_text().startswith("from step 2:\n")
    first = Path(begun.runs) / "run"
    assert (run / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert (run / "milestones/step_000000003/tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert (run / "config.yaml").read_bytes() != content != (run / "overrides.yaml").read_bytes()


def test_a_run_s_tokenizer_that_is_damaged_while_it_lasts_is_written_again(
    begun: TrainConfig, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a milestone nor a live census takes the damaged one."""
    file, good, as_ever = run / "tokenizer.json", (run / "tokenizer.json").read_bytes(), Keeping.on_train_batch_end

    def damaging(self: Keeping, trainer: L.Trainer, *arguments: Any) -> None:
        if trainer.global_step == 4:
            file.write_bytes(good.replace(b'"a"', b'"b"'))
        as_ever(self, trainer, *arguments)

    monkeypatch.setattr(Keeping, "on_train_batch_end", damaging)
    train(tiny.training(begun.corpus, run.parent, steps=5, milestones=[5], live=LiveConfig(tokens=320, steps=[4])), [])
    assert f"{file} was damaged, or gone; it is written again" in capfd.readouterr().err
    for made in (run, run / "milestones" / "step_000000005", run / "live" / "step_000000004", run / "live" / "step_000000005"):
        assert (made / "tokenizer.json").read_bytes() == good


def test_a_changed_digit_in_a_run_s_settings_is_no_other_variant(begun: TrainConfig, run: Path) -> None:
    file = run / "config.yaml"
    content = file.read_bytes()
    settings = written_settings(file)
    assert settings["seed"] == 0 and b"seed: 0" in content
    for damage in (content.replace(b"seed: 0", b"seed: 1"), content[:200] + content[201:]):
        file.write_bytes(damage)
        with pytest.raises(
            UserError, match=r"config\.yaml cannot be read as settings \(its checksum is another\); copy it again, or"
        ):
            variants({run: []})
    file.write_bytes(content[: content.rindex(b"#")])
    assert written_settings(file) == settings, "as an earlier version wrote it"
