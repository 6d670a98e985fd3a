"""The programs as a user meets them: mistakes end in a sentence or two, and both run from any folder."""

import json
import pickle
from pathlib import Path

import layouts
import numpy as np
import polars as pl
import pytest
import tiny
import torch
from processes import command, program

from corpora.tokenizer import train_bpe
from models.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, tokens for it, and everything that is wrong with others."""
    folder = tmp_path_factory.mktemp("place")
    ids = tiny.random_ids()
    tiny.saved(folder / "model", tiny.random_model())
    np.save(folder / "ids.npy", ids)
    np.save(folder / "floats.npy", ids.astype(np.float32))
    np.save(folder / "beyond.npy", np.where(ids == 7, 40, ids))
    np.save(folder / "long.npy", tiny.random_ids(positions=25))
    tiny.saved(folder / "cut", tiny.random_model())
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    lacking = layouts.write(folder / "lacking", tiny.random_model(), layouts.weights_of(tiny.random_model()), "bin-sharded")
    lacking[1].unlink()
    hostile = layouts.write(folder / "hostile", tiny.random_model(), layouts.weights_of(tiny.random_model()), "bin")
    hostile[0].write_bytes(pickle.dumps({"weights": print}))
    quantised = tiny.saved(folder / "quantised", tiny.random_model()) / "config.json"
    quantised.write_text(json.dumps(json.loads(quantised.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    (quantised.parent / "training_state.json").unlink()  # other programs write none
    tiny.text_corpus(folder / "text")
    train_bpe((file.read_text() for file in (folder / "text").iterdir()), 300).save(str(folder / "tokenizer.json"))
    save_checkpoint(tiny.random_model(), folder / "wordy", {}, folder / "tokenizer.json")
    (folder / "notext").mkdir()
    (folder / "notext" / "a.txt").write_text(" \n")
    tiny.saved(folder / "other", tiny.random_model(seed=5))
    done = command(
        "analyze/run.py", "ckpt=other", "corpus=tokens", "corpus.path=ids.npy", "out=done", "wandb.mode=disabled", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


TOKENS = ["ckpt=model", "corpus=tokens", "out=new"]
IDS = ["corpus=tokens", "corpus.path=ids.npy", "out=new"]
TEXT = ["corpus=files", "corpus.tokenizer=tokenizer.json", "out=new"]
MISTAKES = {
    "a ckpt that does not exist": ("analyze/run.py", ["ckpt=nowhere"], "nowhere does not exist"),
    "a hub name without a network": ("analyze/run.py", ["ckpt=facebook/opt-125m"], "facebook/opt-125m"),
    "no ckpt": ("analyze/run.py", [], "ckpt= is missing"),
    "a corpus with no text": ("analyze/run.py", ["ckpt=model", *TEXT, "corpus.path=notext"], "notext"),
    "a model without a tokenizer": (
        "analyze/run.py",
        ["ckpt=model", "corpus=files", "corpus.path=text", "out=new"],
        "this checkpoint has no tokenizer",
    ),
    "no such variant": ("train/run.py", ["model=nopoz"], "there are alibi, baseline,"),
    "no such setting": ("train/run.py", ["sead=1"], "did you mean seed"),
    "no OpenWebText": ("train/run.py", ["model=nopos"], "prepare_corpus.py corpus=openwebtext"),
    "no tokens": ("analyze/run.py", [*TOKENS, "corpus.path=ids.npy", "tokens=0"], "tokens=0"),
    "fewer tokens than a sequence": ("analyze/run.py", [*TOKENS, "corpus.path=ids.npy", "tokens=5"], "tokens=5"),
    "tokens that are floats": ("analyze/run.py", [*TOKENS, "corpus.path=floats.npy"], "float32"),
    "ids beyond the vocabulary": ("analyze/run.py", [*TOKENS, "corpus.path=beyond.npy"], "id 40"),
    "sequences too long": ("analyze/run.py", [*TOKENS, "corpus.path=long.npy"], "25 positions"),
    "no such layer": ("analyze/run.py", [*TOKENS, "corpus.path=ids.npy", "layers=0,3"], "layers=0,3"),
    "a truncated file": ("analyze/run.py", ["ckpt=cut", "corpus=tokens", "corpus.path=ids.npy", "out=new"], "model.safetensors"),
    "a shard missing": ("analyze/run.py", ["ckpt=lacking", *IDS], "lacks pytorch_model-00002-of-00003.bin, which"),
    "a pickle that would run code": ("analyze/run.py", ["ckpt=hostile", *IDS], "asks for builtins.print, which is neither"),
    "a tokenizer larger than the embedding": (
        "analyze/run.py",
        ["ckpt=wordy", "corpus=files", "corpus.path=text", "out=new"],
        "the tokenizer knows 300 ids, but the model's embedding has 40 rows",
    ),
    "another's out": ("analyze/run.py", ["ckpt=model", "corpus=tokens", "corpus.path=ids.npy", "out=done"], "another checkpoint"),
    "a GPU where there is none": ("analyze/run.py", ["ckpt=nowhere", "device=cuda"], "device=cuda, but torch sees no CUDA GPU"),
    "a GPU that is not there": ("train/run.py", ["size=demo", "corpus=local", "device=cuda"], "torch sees no CUDA GPU"),
    "a number that is none": ("analyze/run.py", [*IDS, "ckpt=model", "thresholds.position_mi=inf"], "position_mi=inf"),
    "a name that leaves its folder": ("train/run.py", ["size=demo", "corpus=local", "name=../escape"], "name='../escape'"),
    "a folder that is a file": ("analyze/run.py", ["ckpt=model", *IDS[:2], "out=ids.npy"], "out=ids.npy is a file"),
    "more threads than a machine takes": ("analyze/run.py", ["ckpt=model", *IDS, "threads=100000"], "threads=100000"),
    "a quantised checkpoint": ("analyze/run.py", ["ckpt=quantised", *IDS], "is quantised (gptq)"),
    "gradients that are all cut away": ("train/run.py", ["size=demo", "corpus=local", "optimizer.clip=0"], "optimizer.clip=0 "),
    "a batch that does not divide": ("train/run.py", ["size=demo", "corpus=local", "batch.tokens=1000"], "multiple of 2048"),
}

BY_A_PYTHON_OF_ITS_OWN = {"no ckpt", "no such variant"}


@pytest.mark.parametrize(("name", "arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_in_a_sentence(
    name: str, arguments: list[str], named: str, place: Path, request: pytest.FixtureRequest
) -> None:
    before = sorted(place.rglob("*.safetensors"))
    run = command if request.node.callspec.id in BY_A_PYTHON_OF_ITS_OWN else program
    done = run(name, *arguments, cwd=place)
    assert done.returncode not in (0, 2), done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and named in said[0], done.stderr
    assert len(said[0]) < 500 and "Traceback" not in done.stderr
    assert sorted(place.rglob("*.safetensors")) == before, "nothing half-written"


def test_a_census_from_another_folder_is_whole(place: Path) -> None:
    out = place / "done"
    meta = json.loads((out / "meta.json").read_text())
    assert meta["corpus"]["n_tokens"] == int((tiny.random_ids() != 2).sum()) and meta["checkpoint"]["sha256"]
    assert pl.read_parquet(out / "neurons.parquet").height == 3 * 44
    assert pl.read_parquet(out / "layers.parquet")["layer"].to_list() == [0, 1, 2]
    page = (out / "report.html").read_text()
    assert "<svg" in page and len(list((out / "figures").glob("*.png"))) == len(list((out / "figures").glob("*.svg"))) > 5


def test_a_trained_run_is_analysed_milestone_by_milestone(tmp_path: Path) -> None:
    tiny.text_corpus(tmp_path / "text")
    corpus = ["corpus=files", "corpus.path=text", "corpus.vocab_size=300", "corpus.validation_share=0.2", "wandb.mode=offline"]
    shape = ["model.layers=2", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16"]
    steps = [
        "steps=4",
        "milestones=[0,2,4]",
        "batch.tokens=64",
        "name=r",
        "model=nopos",
        "device=cpu",
        "optimizer.schedule_steps=800",
    ]
    done = command("train/run.py", *corpus, *shape, *steps, cwd=tmp_path)
    assert done.returncode == 0 and "plan" not in done.stdout, done.stderr
    assert "4 steps x 64" in done.stderr and list((tmp_path / "runs" / "r" / "wandb").glob("offline-run-*"))
    again = program("train/run.py", *corpus, *shape, *steps, cwd=tmp_path)
    assert again.returncode == 0 and "has finished" in again.stderr
    done = command("analyze/run.py", "ckpt=runs/r", *corpus, "tokens=4000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "r" / "census"
    evolution = pl.read_parquet(out / "evolution.parquet")
    assert evolution["step"].unique().sort().to_list() == [0, 2, 4]
    assert evolution.group_by("step", "layer").agg(pl.col("neurons").sum())["neurons"].unique().to_list() == [24]
    moves = pl.read_parquet(out / "transitions.parquet")
    assert moves.group_by("from_step", "layer").agg(pl.col("neurons").sum())["neurons"].unique().to_list() == [24]
    of_training, *of_censuses, of_figures = sorted((tmp_path / "runs" / "r" / "wandb").glob("offline-run-*"))
    assert len(of_censuses) == 3 and len({part.name.rsplit("-", 1)[1] for part in (of_training, *of_censuses, of_figures)}) == 1
    compared = program("analyze/compare.py", "runs=[runs/r]", "out=both", cwd=tmp_path)
    assert compared.returncode == 0 and "<svg" in (tmp_path / "both" / "report.html").read_text(), compared.stderr
    ckpt = program("analyze/run.py", "ckpt=runs/r/checkpoints/last.ckpt", *corpus, "tokens=4000", "out=c", cwd=tmp_path)
    assert ckpt.returncode == 0, ckpt.stderr
    ours, theirs = (pl.read_parquet(f / "neurons.parquet") for f in (tmp_path / "c", out / "step_000000004"))
    assert ours.equals(theirs)


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8"}], ids=str
)
def test_paths_hold_any_letter_in_any_locale(locale: dict[str, str], tmp_path: Path) -> None:
    """With a head beside the model, which is passed over in a line; and without a home folder."""
    here = tmp_path / "été (1)"
    here.mkdir()
    heads = layouts.weights_of(tiny.random_model()) | {"v_head.summary.weight": torch.zeros(1, 32)}
    layouts.write(here / "modèle", tiny.random_model(), heads, "safetensors")
    np.save(here / "電.npy", tiny.random_ids())
    settings = ["ckpt='modèle'", "corpus=tokens", "corpus.path='電.npy'", "out='sortie=é'", "wandb.mode=disabled", "layers=0"]
    done = command("analyze/run.py", *settings, cwd=here, HOME="/nowhere", **locale)
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(here / "sortie=é" / "neurons.parquet").height == 44 and (here / "sortie=é" / "report.html").is_file()
    assert done.stderr.count("v_head.summary.weight is passed over") == 1
