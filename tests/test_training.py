"""Training: the recipe's schedule, and runs that are stopped and go on as if nothing had been."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import tiny
import torch
from reading import read_model
from transformers import AutoModelForCausalLM

from corpora.config import CorpusConfig
from corpora.prepare import token_store
from errors import UserError
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from train import sweep
from train.checkpointing import Keeping
from train.config import BatchConfig, LiveConfig, OptimizerConfig, TrainConfig, ValidationConfig
from train.folder import last_checkpoint
from train.schedule import dropout_seed, learning_rate
from train.sweep import variant
from train.training import train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return read_model(open_checkpoint(str(run / "milestones" / f"step_{step:09d}"))).state_dict()


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in found]


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def kill_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Die right after `step`, before anything of it is logged or kept."""
    as_ever = Keeping.on_train_batch_end

    def dying(self: Keeping, trainer: L.Trainer, *arguments: Any) -> None:
        if trainer.global_step == step:
            raise Killed
        as_ever(self, trainer, *arguments)

    patch.setattr(Keeping, "on_train_batch_end", dying)


def test_three_steps_a_kill_and_three_more_are_six_steps(corpus: CorpusConfig, tmp_path: Path) -> None:
    whole = train(tiny.training(corpus, tmp_path / "whole"), [])
    config = tiny.training(corpus, tmp_path / "parts")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(4, patch)
        train(config, [])
    assert len(lines(tmp_path / "parts" / "run")) == 3
    parts = train(config, [])
    for step in (0, 3, 6):
        ours, theirs = weights(parts, step), weights(whole, step)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(weights(whole, 3)[name], weights(whole, 6)[name]) for name in theirs)
    assert lines(parts) == lines(whole) and [line["step"] for line in lines(whole)] == [1, 2, 3, 4, 5, 6]
    states = [torch.load(last_checkpoint(run), weights_only=True) for run in (parts, whole)]
    moments = [state["optimizer_states"][0]["state"] for state in states]
    assert all(torch.equal(moments[0][i]["exp_avg_sq"], moments[1][i]["exp_avg_sq"]) for i in moments[1])


def test_a_resumed_run_takes_back_the_lines_it_makes_again(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, checkpoint_every=2, milestones=[6])
    whole = lines(train(replace(config, name="whole"), []))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(4, patch)  # step 3 is logged, but last.ckpt holds step 2
        train(config, [])
    assert lines(train(config, [])) == whole


def test_a_run_names_code_and_machine_of_each_of_its_starts(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.training(corpus, tmp_path)
    for steps, code in ((2, "abandoned"), (2, "one"), (4, "two"), (6, "three")):
        monkeypatch.setattr("train.folder.git", lambda code=code: f"{code}\n")
        if code == "one":  # begun anew
            last_checkpoint(tmp_path / "run").unlink()
        run = train(replace(config, steps=steps, milestones=[]), [])
    assert (run / "git.txt").read_text() == "from step 0:\none\nfrom step 2:\ntwo\nfrom step 4:\nthree\n"
    machines = json.loads((run / "environment.json").read_text())
    assert [machine["from_step"] for machine in machines] == [0, 2, 4] and all(machine["packages"] for machine in machines)


def test_two_variants_of_a_sweep_do_not_share_a_folder(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the settings that differ may change in a run."""
    monkeypatch.setattr(sweep, "_of", [])
    run = partial(train, tiny.training(corpus, tmp_path, steps=1, milestones=[]))
    monkeypatch.setenv(sweep.SWEEP, "0:1.5")
    variant("run", 0, None, partial(run, ["threads=1", "seed=0"]))
    words = (
        rf"Two variants of this sweep have one folder, {tmp_path}/run: threads=1; and threads=2\. Put into name= what is swept"
    )
    with pytest.raises(UserError, match=words):
        variant("run", 1, None, partial(run, ["threads=2", "seed=0"]))
    variant("run", 0, None, partial(run, ["threads=1", "seed=0"]))  # a job that its launcher starts again
    monkeypatch.setenv(sweep.SWEEP, "0:2.5")
    variant("run", 0, None, partial(run, ["threads=2", "seed=0"]))  # another sweep goes on with it


def test_a_finished_run_is_left_alone(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path)
    run = train(config, [])
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    train(config, [])
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_damaged_checkpoint_is_named(corpus: CorpusConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tiny.training(corpus, tmp_path, steps=3, milestones=[900]), [])
    assert "900: beyond the last step, 3; the last" in capsys.readouterr().err and weights(run, 3)
    last = last_checkpoint(run)
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged: .*begins the run anew"):
        train(tiny.training(corpus, tmp_path), [])


def test_another_setting_is_refused_by_name(corpus: CorpusConfig, tmp_path: Path) -> None:
    train(tiny.training(corpus, tmp_path, steps=3, milestones=[3]), [])
    for changed, named in (({"seed": 1}, "seed"), ({"batch": BatchConfig(tokens=64, micro=4)}, "batch.tokens")):
        with pytest.raises(UserError, match=named):
            train(tiny.training(corpus, tmp_path, **changed), [])
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]


def test_a_run_learns_and_its_milestone_opens_elsewhere(corpus: CorpusConfig, tmp_path: Path) -> None:
    run = train(tiny.training(corpus, tmp_path, steps=30, milestones=[0, 30], log_every=10), [])
    first, last = (json.loads((run / "milestones" / f"step_{s:09d}" / "training_state.json").read_text()) for s in (0, 30))
    assert last["val_loss"] < first["val_loss"] - 0.5 and last["tokens"] == 30 * 128
    assert sorted(file.name for file in run.iterdir()) == [
        "checkpoints", "config.yaml", "environment.json", "git.txt", "metrics.jsonl", "milestones", "overrides.yaml", "tokenizer.json",
    ]  # fmt: skip
    milestone = run / "milestones" / "step_000000030"
    ids = torch.arange(4, 20)[None]
    theirs = AutoModelForCausalLM.from_pretrained(milestone, dtype=torch.float32).eval()(ids).logits  # type: ignore[no-untyped-call]
    torch.testing.assert_close(read_model(open_checkpoint(str(milestone)))(ids), theirs, atol=1e-4, rtol=0)
    ours = open_checkpoint(str(last_checkpoint(run)))
    assert torch.equal(read_model(ours)(ids), read_model(open_checkpoint(str(milestone)))(ids)) and ours.step == 30


@pytest.mark.parametrize(
    "variant", [{"norm": "post", "final_norm": False}, {"norm": "post"}, {"positions": "none"}, {"embed_dim": 8}]
)
def test_every_variant_learns(variant: dict[str, Any], corpus: CorpusConfig, tmp_path: Path) -> None:
    model = OPTConfig(layers=2, width=16, heads=2, neurons=24, context=16, **variant)
    run = train(tiny.training(corpus, tmp_path, steps=40, milestones=[40], model=model), [])
    losses = [line["loss"] for line in lines(run)]
    assert losses[-1] < losses[0] - 0.2


def test_more_accumulation_is_the_same_step(corpus: CorpusConfig, tmp_path: Path) -> None:
    model = OPTConfig(layers=2, width=16, heads=2, neurons=24, context=16, dropout=0.0, attention_dropout=0.0)
    runs = [
        train(tiny.training(corpus, tmp_path, name=f"m{micro}", model=model, batch=BatchConfig(tokens=128, micro=micro)), [])
        for micro in (8, 2)
    ]
    ours, theirs = (weights(run, 6) for run in runs)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    config = TrainConfig(batch=BatchConfig(tokens=1000, micro=2), model=OPTConfig(context=16))
    with pytest.raises(UserError, match="multiple of 32"):
        config.micro_steps()
    assert TrainConfig(batch=BatchConfig(tokens=960, micro=2), model=OPTConfig(context=16)).micro_steps(ranks=5) == 6


WRONG: dict[str, Callable[[Any], Any]] = {
    "optimizer.clip": lambda wrong: OptimizerConfig(clip=wrong),
    "optimizer.beta2": lambda wrong: OptimizerConfig(beta2=wrong),
    "optimizer.weight_decay": lambda wrong: OptimizerConfig(weight_decay=wrong),
    "batch.workers": lambda wrong: BatchConfig(workers=wrong),
    "validation.every": lambda wrong: ValidationConfig(every=wrong),
    "validation.sequences": lambda wrong: ValidationConfig(sequences=wrong),
    "seed": lambda wrong: TrainConfig(seed=wrong),
    "threads": lambda wrong: TrainConfig(threads=wrong),
    "time_limit": lambda wrong: TrainConfig(time_limit=wrong),
    "device": lambda wrong: TrainConfig(device=wrong),
}
VALUES: list[tuple[str, Any]] = [
    ("optimizer.clip", 0.0),
    ("optimizer.clip", -1.0),
    ("optimizer.beta2", 1.0),
    ("optimizer.weight_decay", -0.1),
]
VALUES += [("batch.workers", -1), ("validation.every", 0), ("validation.sequences", 0), ("seed", -1), ("threads", 0)]
VALUES += [("time_limit", -1.0), ("device", "gpus"), ("device", "cuda:x"), ("device", "mps")]


@pytest.mark.parametrize(("name", "wrong"), VALUES)
def test_a_value_that_would_train_nothing_or_fail_later_is_refused_by_name(name: str, wrong: Any) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(name)}='?{wrong}\b" if isinstance(wrong, str) else rf"^{name}={wrong:g} "):
        WRONG[name](wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_prepared(corpus: CorpusConfig, tmp_path: Path) -> None:
    elsewhere = replace(corpus, store=str(tmp_path / "store"))
    with pytest.raises(UserError, match="device=cuda, but torch sees no CUDA GPU"):
        train(tiny.training(elsewhere, tmp_path, device="cuda"), [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", ["0", "1"])
def test_no_rank_of_two_prepares_a_corpus(
    rank: str, corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told the same, before the other is met."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    elsewhere = replace(corpus, store=str(tmp_path / "store"))
    with pytest.raises(
        UserError, match=r"made is not prepared in .* python scripts/prepare_corpus\.py corpus=files corpus\.name=made "
    ):
        train(tiny.training(elsewhere, tmp_path, device="cpu"), [])
    assert not list(tmp_path.iterdir())


def test_a_validation_split_shorter_than_a_window_is_named(tmp_path: Path) -> None:
    corpus = tiny.text_corpus(tmp_path / "text", documents=8)
    model = replace(tiny.training(corpus, tmp_path).model, context=1000)
    batch = BatchConfig(tokens=1000, micro=1)
    with pytest.raises(UserError, match=r"validation split of the corpus has \d+ tokens, .* corpus\.validation_share"):
        train(tiny.training(corpus, tmp_path, model=model, batch=batch), [])


def test_the_schedule_is_that_of_the_recipe() -> None:
    recipe = OptimizerConfig()
    for step, rate in ((0, 0.0), (1, 6e-4 / 715), (715, 6e-4), (572_204, 6e-5), (10**6, 6e-5)):
        assert learning_rate(step, recipe) == pytest.approx(rate, rel=1e-12)
    middle = (715 + 572_204) / 2
    assert learning_rate(int(middle), recipe) == pytest.approx(3.3e-4, rel=1e-5)


def test_every_micro_batch_has_a_dropout_of_its_own() -> None:
    seeds = {dropout_seed(*place) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(seeds) == 4


@pytest.mark.parametrize("padding", ["<|padding|>", "word"])
def test_another_s_tokenizer_has_its_ids_in_the_milestone_or_is_refused(
    padding: str, corpus: CorpusConfig, tmp_path: Path
) -> None:
    """As GPT-NeoX's, whose documents end with id 0; and one whose id 1 is text, as GPT-2's."""
    file = tmp_path / "theirs" / "tokenizer.json"
    file.parent.mkdir()
    text = token_store(corpus).tokenizer_file.read_text()
    for ours, other in (("</s>", "<other>"), ("<s>", "<|endoftext|>"), ("<pad>", padding)):
        text = text.replace(json.dumps(ours), json.dumps(other))
    file.write_text(text)
    theirs = replace(corpus, tokenizer=str(file.parent), store=str(tmp_path))
    config = tiny.training(theirs, tmp_path / "runs", steps=1, milestones=[1])
    if padding == "word":
        with pytest.raises(UserError, match=r"Id 1 of the tokenizer .* is 'word'; OPT takes it for padding"):
            train(config, [])
    else:
        entries = json.loads((train(config, []) / "milestones" / "step_000000001" / "config.json").read_text())
        assert entries["bos_token_id"] == entries["eos_token_id"] == 0


@pytest.mark.parametrize(
    ("milestones", "kept", "said"),
    [
        ([50_000, 150_000], [6], "50,000, 150,000: beyond the last step, 6; the last step is kept instead"),
        ([0, 50_000], [0, 6], "50,000: beyond the last step, 6; the last step is kept instead"),
        ([3, 7], [3], "7: beyond the last step, 6; left out"),
        ([6, 7], [6], "7: beyond the last step, 6; left out"),
        ([0, 6], [0, 6], ""),
        ([], [], ""),
    ],
)
def test_milestones_beyond_the_end_are_left_out_and_said(milestones: list[int], kept: list[int], said: str) -> None:
    config = tiny.training(
        CorpusConfig(name="x", source="local"), Path("runs"), milestones=milestones, live=LiveConfig("milestones")
    )
    assert (config.kept_steps, config.census_steps, config.late_milestones) == (kept, kept, said)
