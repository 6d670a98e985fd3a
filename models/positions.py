"""Where a token stands -> what attention or the residual stream is told of it, for every choice but learned and none."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

LONGEST = 10_000.0  # longest wavelength of sinusoids and rotations, in units of 2 pi positions


def sinusoids(positions: int, width: int, device: torch.device | None = None) -> Float[Tensor, "position width"]:
    """Row p: sin(p f_i) in the first half, cos(p f_i) in the second, f_i = 10000^(-i / (width/2 - 1)) (Vaswani et al. 2017).

    The order and the frequencies are those of fairseq and metaseq. Nothing is scaled: as metaseq gives token embeddings no factor,
    their deviation of 0.006 stands beside sinusoids of 0.7 at first.
    """
    pair = torch.arange(width // 2, dtype=torch.float64, device=device)
    angle = torch.arange(positions, device=device)[:, None] * LONGEST ** (-pair / max(1, width // 2 - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def rotated(x: Float[Tensor, "sequence head position head_width"]) -> Float[Tensor, "sequence head position head_width"]:
    """Turn queries or keys so that their products depend on the distance between positions (Su et al. 2021).

    As GPT-NeoX has it, over the whole head: components i and i + d/2 are turned by the angle position * 10000^(-2i / d),
    in float32 at least.
    """
    positions, width = x.shape[-2:]
    pair = torch.arange(width // 2, dtype=torch.float64, device=x.device)
    angle = torch.arange(positions, device=x.device)[:, None] * LONGEST ** (-2 * pair / width)
    exact = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angle.cos().to(exact), angle.sin().to(exact)
    one, two = x.to(exact).chunk(2, dim=-1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1).to(x.dtype)


def alibi_slopes(heads: int) -> list[float]:
    """Slope of every head: 2^(-8/n), 2^(-16/n), ... for n = `heads` a power of two (Press et al. 2022).

    Otherwise, as in the authors' code, those of the next lower power of two, then every second one of the next higher.
    """
    lower = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / lower) for head in range(lower)]
    return slopes + [2 ** (-4 * (2 * head + 1) / lower) for head in range(heads - lower)]


def alibi(heads: int, positions: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "head position position"]:
    """Added to attention scores: minus slope times distance, and minus infinity for what comes later."""
    if torch.compiler.is_compiling():  # layers share it there without being told
        return _alibi(heads, positions, device, dtype)
    with torch.inference_mode(False):  # whoever asks first, training can use it
        return _kept_alibi(heads, positions, device, dtype)


def _alibi(heads: int, positions: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "head position position"]:
    place = torch.arange(positions, device=device)
    distance = place[:, None] - place
    slopes = torch.tensor(alibi_slopes(heads), dtype=torch.promote_types(dtype, torch.float32), device=device)
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, -math.inf).to(dtype)


_kept_alibi = lru_cache(maxsize=1)(_alibi)  # 12 heads x 2048 positions: 201 MB in float32, for all layers
