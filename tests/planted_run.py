"""A run folder whose three milestones are written by hand: what every neuron is at each is chosen: python tests/planted_run.py FOLDER

Attention and the FFN add nothing, so every layer reads the same: a place in one pair of dimensions and a token in another, which
LayerNorm turns into +2 and -2. A neuron fires by one row of weights on them.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch

from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, Block

STEPS = (100, 200, 300)
TOKENS_PER_STEP = 512
PLACES, SEQUENCES, VOCABULARY = 32, 64, 64
USUAL, UNUSUAL = 3, 4  # tokens on which a weak positional neuron does not care for the place: fires always, fires never
PLACE, WEAKNESS, HALF, T10, T11, T12 = 0, 2, 4, 6, 8, 10  # first of the two dimensions of a feature

# what each neuron is at the three milestones; the rest are "other" all along
LIVES = [
    ("other", "dead", "other"),
    ("dead", "dead", "other"),
    ("other", "other", "dead"),
    ("dead", "other", "dead"),
    ("other", "token 10", "other"),
    ("other", "token 10", "token 10"),
    ("token 10 11", "token 10 11", "token 10 12"),
    ("token 11", "token 12", "token 12"),
    ("both weak", "both strong", "both weak"),
    ("other", "both weak", "both strong"),
    ("both strong", "other", "both strong"),
    ("dead", "both weak", "token 10 11 12"),
]
NEURONS = len(LIVES) + 4
LAYERS = 2


def kind(layer: int, neuron: int, milestone: int) -> str:
    """What a neuron is; layer 1 lives backwards."""
    if neuron >= len(LIVES):
        return "other"
    return LIVES[neuron][milestone if layer == 0 else 2 - milestone]


def sequences() -> np.ndarray:
    """Token ids of which at every place 2 in 64 are `USUAL` and 2 are `UNUSUAL`."""
    rng = np.random.default_rng(0)
    ids = rng.integers(10, VOCABULARY, (SEQUENCES, PLACES))
    for place in range(PLACES):
        ids[rng.permutation(SEQUENCES)[:4], place] = [USUAL, USUAL, UNUSUAL, UNUSUAL]
    ids[:, 0] = 2
    return ids


def row(kind: str) -> tuple[torch.Tensor, float]:
    """Weights and bias of a neuron of that kind."""
    weights = torch.zeros(16)

    def on(feature: int, strength: float = 1.0) -> None:
        weights[feature], weights[feature + 1] = strength, -strength

    match kind.split():
        case ["dead"]:
            return weights, -1.0
        case ["other"]:
            on(HALF)
            return weights, -2.0
        case ["token", *tokens]:
            for token in tokens:
                on({"10": T10, "11": T11, "12": T12}[token])
            return weights, -2.0
        case ["both", strength]:
            on(PLACE)
            on(WEAKNESS, 3.0 if strength == "weak" else 0.0)
            return weights, 0.0
    raise AssertionError(kind)


@torch.no_grad()
def planted_model(milestone: int) -> OPT:
    """The model at one milestone."""
    config = OPTConfig(layers=LAYERS, width=16, heads=2, neurons=NEURONS, context=PLACES, vocab_size=VOCABULARY)
    model = OPT(config).eval()
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "layer_norm.weight" in name else 0.0)

    def features(token: int) -> tuple[int, float]:
        known = {USUAL: (WEAKNESS, 1.0), UNUSUAL: (WEAKNESS, -1.0), 10: (T10, 1.0), 11: (T11, 1.0), 12: (T12, 1.0)}
        return known.get(token, (HALF, 1.0 if token % 2 else -1.0))

    for token in range(VOCABULARY):
        feature, sign = features(token)
        model.decoder.embed_tokens.weight[token, feature : feature + 2] = torch.tensor([sign, -sign])
    for place in range(PLACES):
        sign = 1.0 if place < PLACES // 2 else -1.0
        model.decoder.embed_positions.weight[place + 2, PLACE : PLACE + 2] = torch.tensor([sign, -sign])
    for layer, block in enumerate(model.decoder.layers):
        assert isinstance(block, Block)
        for neuron in range(NEURONS):
            block.fc1.weight[neuron], block.fc1.bias[neuron] = row(kind(layer, neuron, milestone))
    return model


def write_run(run: Path) -> Path:
    """The run folder, and its text beside it as `ids.npy`."""
    for milestone, step in enumerate(STEPS):
        state = {"step": step, "tokens": step * TOKENS_PER_STEP, "val_loss": 4.0, "name": run.name}
        save_checkpoint(planted_model(milestone), run / "milestones" / f"step_{step:09d}", state)
    np.save(run.parent / "ids.npy", sequences())
    return run


if __name__ == "__main__":
    write_run(Path(sys.argv[1]))
