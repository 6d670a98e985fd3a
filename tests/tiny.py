"""Small random models, tokens and runs that several tests build on."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyze.census.joining import joined_array
from analyze.config import AnalyzeConfig
from analyze.counts.layer import LayerCounts
from analyze.forward.layer_by_layer import MicroBatch
from analyze.storage.stored import arrays_of, made_of
from corpora.config import CorpusConfig
from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, Block
from train.config import BatchConfig, LiveConfig, OptimizerConfig, TrainConfig, ValidationConfig
from wandb_run import WandbConfig

SHAPE = {"layers": 3, "width": 32, "heads": 4, "neurons": 44, "context": 24, "vocab_size": 40}
SILENT = WandbConfig(mode="disabled")


def random_model(seed: int = 0, std: float = 0.2, **variant: Any) -> OPT:
    """A model with weights far from their initial ones: every bias and gain is drawn too."""
    torch.manual_seed(seed)
    model = OPT(OPTConfig(**(SHAPE | variant))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def block(model: OPT, layer: int) -> Block:
    """A layer of the model; torch's ModuleList forgets of what it is a list."""
    found = model.decoder.layers[layer]
    assert isinstance(found, Block)
    return found


def saved(folder: Path, model: OPT, **state: Any) -> Path:
    """The model as a checkpoint folder."""
    save_checkpoint(model, folder, state)
    return folder


def random_ids(sequences: int = 9, positions: int = 24, vocabulary: int = 40, seed: int = 1) -> np.ndarray:
    """Sequences that open with BOS; one has another BOS inside."""
    ids = np.random.default_rng(seed).integers(4, vocabulary, (sequences, positions))
    ids[:, 0] = 2
    ids[min(3, sequences - 1), positions // 2] = 2
    return ids


def tokens_corpus(file: Path, ids: np.ndarray) -> CorpusConfig:
    """The ids as `corpus=tokens`."""
    np.save(file, ids)
    return CorpusConfig(name="tokens", source="tokens", path=str(file))


def analysis(ckpt: Path, corpus: CorpusConfig, out: Path, **settings: Any) -> AnalyzeConfig:
    """Settings of a quiet census."""
    chosen: dict[str, Any] = {"wandb": SILENT, "device": "cpu"}
    return AnalyzeConfig(ckpt=str(ckpt), corpus=corpus, out=str(out), **(chosen | settings))


def text_corpus(folder: Path, documents: int = 60) -> CorpusConfig:
    """Generated text as `corpus=files`, with a BPE of its own."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 7))) for _ in range(80)]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        (folder / f"{number:03d}.txt").write_text(" ".join(rng.choice(words, rng.integers(20, 400))))
    return CorpusConfig(
        name="made", source="files", path=str(folder), vocab_size=300, validation_share=0.2, store=str(folder.parent / "store")
    )


def training(corpus: CorpusConfig, runs: Path, **settings: Any) -> TrainConfig:
    """Settings of a quiet run of six steps, dropout on."""
    chosen: dict[str, Any] = {
        "name": "run",
        "runs": str(runs),
        "steps": 6,
        "milestones": [0, 3, 6],
        "log_every": 1,
        "checkpoint_every": 1,
        "precision": "float32",
        "device": "cpu",
        "model": OPTConfig(layers=2, width=16, heads=2, neurons=24, context=16),
        "corpus": corpus,
        "batch": BatchConfig(tokens=128, micro=4),
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=2, schedule_steps=10),
        "validation": ValidationConfig(every=4, sequences=8),
        "live": LiveConfig(spacing="off"),
        "wandb": SILENT,
    }
    return TrainConfig(**(chosen | settings))


def preactivations_as_batches(pre: Float[Tensor, "sequence position neuron"], micro: int) -> Iterable[MicroBatch]:
    """Pre-activations at hand, as the walk would give them."""
    return (MicroBatch(begin, pre[begin : begin + micro]) for begin in range(0, len(pre), micro))


def joined_neurons(parts: Sequence[LayerCounts]) -> LayerCounts:
    """The counts of all neurons from those of its neighbouring parts, in their order, all in memory."""
    arrays = [arrays_of(part) for part in parts]
    whole: LayerCounts = made_of(LayerCounts, {name: joined_array(name, [a[name] for a in arrays]) for name in arrays[0]})
    return whole
