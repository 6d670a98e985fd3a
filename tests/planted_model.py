"""An OPT whose neurons in layer 0 were written by hand: each reads the place and the token off the residual stream.

Embeddings are made so that LayerNorm only scales: those of tokens and those of places lie in different dimensions, have one length
each and mean 0. Attention and fc2 write nothing. A place p of 128 offers `slow` = cos(pi p / 128), `fast` = three whole turns, and
its `parity`; a token offers `height`, evenly spread from -0.9 to 0.9 over ids 4 to 38, and `is_token` of itself, 1 for no other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny
import torch

from models.config import OPTConfig
from models.opt import OPT

PLACES, SEQUENCES, TOKENS = 128, 210, 35  # every token stands 6 times at every place
FIRST, ONCE = 4, 39  # the first token id, and one that occurs a single time
HEIGHTS = np.linspace(-0.9, 0.9, TOKENS)
NEURONS = 24


@dataclass
class Planted:
    """What a neuron's pre-activation is made of, and what the census must call it."""

    type: str
    position_type: str | None = None
    strong: bool | None = None
    slow: float = 0.0
    fast: float = 0.0
    parity: float = 0.0
    height: float = 0.0
    is_token: tuple[int, float] = (FIRST, 0.0)
    bias: float = 0.0


def _detector(token: int, **more: Any) -> Planted:
    chosen: dict[str, Any] = {"type": "token", "is_token": (token, 100.0), "bias": -98.0}
    return Planted(**(chosen | more))


PLANTED = {
    "dead": Planted("dead", bias=-1.0),
    "fires once, so it is not dead": _detector(ONCE, type="other"),
    "always on": Planted("other", bias=1.0),
    "token detector": _detector(10),
    "fires on its token at 124 of 127 places": _detector(10, slow=1.0, bias=-99.0025),
    "fires on its token at 114 of 127 places": _detector(10, slow=1.0, bias=-99.06, type="other"),
    "first half": Planted("positional", "both", True, slow=1.0, bias=0.01),
    "nearly first half": Planted("positional", "both", False, slow=0.87, height=1.0),
    "three turns": Planted("positional", "oscillatory", True, fast=1.0, bias=0.01),
    "faint turns": Planted("positional", "oscillatory", False, fast=0.7, height=1.0),
    "fades to nothing": Planted("positional", "one", True, slow=0.9, height=1.0, bias=-0.95),
    "fades to little": Planted("positional", "one", False, slow=0.5, height=1.0, bias=-0.36),
    "fades": Planted("positional", "other", True, slow=0.6, height=1.0),
    "fades and flickers": Planted("positional", "other", False, slow=0.6, parity=0.2, height=1.0),
    "hardly fades": Planted("other", slow=0.1, height=1.0, bias=0.01),
    "knows nothing of place": Planted("other", height=1.0, bias=0.01),
    "first five places": Planted("positional", "both", True, slow=1.0, bias=-float(np.cos(np.pi * 5.5 / PLACES))),
    "some tokens at the first five places": Planted("other", slow=24.0, height=0.5, bias=-24 * float(np.cos(np.pi * 5.95 / PLACES)) - 0.45),
}  # fmt: skip


def token_vectors() -> np.ndarray:
    """One unit vector of 11 dimensions for every id from `FIRST` to `ONCE`: its height, and a direction of its own."""
    rest = np.random.default_rng(0).normal(size=(TOKENS + 1, 10))
    heights = np.append(HEIGHTS, -0.95)
    rest *= (np.sqrt(1 - heights**2) / np.linalg.norm(rest, axis=1))[:, None]
    return np.concatenate([heights[:, None], rest], axis=1)


def place_vectors() -> np.ndarray:
    """Five numbers for every place: slow and fast cosine and sine, and parity."""
    p = np.arange(PLACES)
    slow, fast = np.pi * p / PLACES, 2 * np.pi * 3 * p / PLACES
    return np.stack([np.cos(slow), np.sin(slow), np.cos(fast), np.sin(fast), 1 - 2.0 * (p % 2)], axis=1)


@torch.no_grad()
def planted_model() -> OPT:
    """The model; a vector stands in the stream as itself and its negative, for a mean of 0."""
    torch.manual_seed(0)
    model = OPT(OPTConfig(layers=2, width=32, heads=4, neurons=NEURONS, context=PLACES, vocab_size=40)).eval()
    for parameter in model.parameters():
        parameter.zero_()
    for block in (tiny.block(model, 0), tiny.block(model, 1)):
        for norm in (block.self_attn_layer_norm, block.final_layer_norm):
            norm.weight.fill_(1.0)
    model.decoder.final_layer_norm.weight.fill_(1.0)
    tokens, places = token_vectors(), place_vectors()
    model.decoder.embed_tokens.weight[FIRST:, 10:] = torch.from_numpy(np.concatenate([tokens, -tokens], axis=1)).float()
    model.decoder.embed_positions.weight[2:, :10] = torch.from_numpy(np.concatenate([places, -places], axis=1)).float()
    scale = np.sqrt(2 * (1 + 3) / 32)  # what LayerNorm divides by
    fc1 = tiny.block(model, 0).fc1
    for neuron, planted in enumerate([*PLANTED.values(), *[Planted("other", height=1.0, bias=0.01)] * (NEURONS - len(PLANTED))]):
        token, much = planted.is_token
        of_place = np.array([planted.slow, 0, planted.fast, 0, planted.parity])
        of_token = planted.height * np.eye(11)[0] + much * tokens[token - FIRST]
        fc1.weight[neuron] = torch.from_numpy(np.concatenate([of_place, 0 * of_place, of_token, 0 * of_token]) * scale).float()
        fc1.bias[neuron] = planted.bias
    tiny.block(model, 1).fc1.bias.fill_(-1.0)
    return model


def planted_ids() -> np.ndarray:
    """Sequences in which every token stands equally often at every place, in an order of its own at each; and one token once."""
    rng = np.random.default_rng(1)
    column = FIRST + np.arange(SEQUENCES) % TOKENS
    ids = np.stack([rng.permutation(column) for _ in range(PLACES)], axis=1)
    ids[:, 0] = 2
    ids[7, 100] = ONCE
    return ids
