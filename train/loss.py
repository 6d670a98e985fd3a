"""Residual stream -> loss, without ever holding the logits of a batch."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from models.opt import OPT

ROWS = {"cpu": 1024, "cuda": 4096}  # predictions whose logits exist at a time, in the dtype of the products
CACHED_ROWS = 32  # of which so many exist in float32 at a time on a CPU: they stay in its cache
TILE = 128  # the unembedding is padded to a multiple of this many rows, which a GPU's products like

Slopes = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]


def next_token_loss(model: OPT, ids: Int[Tensor, "sequence position"], compiled: bool = False) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats, of every id but the first of a window given those before it."""
    read_out = model.decoder.read_out(model.stream(ids[:, :-1])).flatten(0, 1)
    unembedding = model.decoder.unembedding
    slopes = slopes_compiled() if compiled else slopes_on_cpu if ids.device.type == "cpu" else slopes_at_once
    loss: Tensor = CrossEntropyInPieces.apply(read_out, unembedding, ids[:, 1:].flatten(), slopes)  # type: ignore[no-untyped-call]
    return loss


class CrossEntropyInPieces(torch.autograd.Function):
    """Cross entropy of `read_out @ unembedding.T`, some thousand rows at a time.

    The gradient is taken in the forward pass while the piece's logits are at hand, as the logits of 16,384 predictions over
    50,272 ids would fill 3.3 GB in float32. Products are in autocast's dtype where that is on, the softmax in float32.
    (`F.linear_cross_entropy` of torch 2.13 in pieces: in bfloat16 its loss is off by 0.5 nats, under autocast it computes in
    float32; and it cannot leave out the rows that pad the unembedding.)
    """

    @staticmethod
    def forward(ctx: Any, read_out: Tensor, unembedding: Tensor, targets: Tensor, slopes: Slopes) -> Tensor:
        """read_out [row, width], unembedding [token, width], targets [row] -> mean loss."""
        kind = read_out.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else unembedding.dtype
        learning = any(ctx.needs_input_grad)
        with torch.autocast(kind, enabled=False):
            x = read_out.to(dtype)
            e = F.pad(unembedding.to(dtype), (0, 0, 0, -len(unembedding) % TILE))
            d_x, d_e = (torch.empty_like(x), torch.zeros_like(e, dtype=unembedding.dtype)) if learning else (x, e)
            total = torch.zeros((), device=x.device)
            for begin in range(0, len(x), ROWS[kind]):
                piece = slice(begin, begin + ROWS[kind])
                loss, slope = slopes(F.linear(x[piece], e), targets[piece], len(unembedding), len(x))
                total += loss
                if learning:
                    d_x[piece] = slope @ e
                    d_e += slope.T @ x[piece]
        if learning:
            ctx.save_for_backward(d_x.to(read_out.dtype), d_e[: len(unembedding)])
        return total

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale what the forward pass found."""
        d_x, d_e = ctx.saved_tensors
        return d_x * slope[0], d_e * slope[0], None, None


def slopes_at_once(
    logits: Float[Tensor, "row token"], targets: Int[Tensor, " row"], vocabulary: int, of: int
) -> tuple[Float[Tensor, ""], Float[Tensor, "row token"]]:
    """What these rows add to the mean loss of `of` rows, and its derivative by their logits, in the logits' dtype.

    Columns from `vocabulary` on are padding: they have no probability.
    """
    columns = torch.arange(logits.shape[1], device=logits.device)
    exact = logits.float().masked_fill(columns >= vocabulary, -torch.inf)
    log_p = exact - exact.logsumexp(1, keepdim=True)
    hit = columns == targets[:, None]
    return -log_p.where(hit, 0.0).sum() / of, ((log_p.exp() - hit.float()) / of).to(logits.dtype)


def slopes_on_cpu(
    logits: Float[Tensor, "row token"], targets: Int[Tensor, " row"], vocabulary: int, of: int
) -> tuple[Float[Tensor, ""], Float[Tensor, "row token"]]:
    """The same, so few rows at a time that they stay in the cache; the logits are overwritten by their derivative."""
    total = torch.zeros(())
    logits[:, vocabulary:] = -torch.inf
    for some, hit in zip(torch.split(logits, CACHED_ROWS), torch.split(targets[:, None], CACHED_ROWS), strict=True):
        p = torch.log_softmax(some, 1, dtype=torch.float32)
        total -= p.gather(1, hit).sum()
        p.exp_().scatter_add_(1, hit, torch.full_like(hit, -1, dtype=torch.float32))
        some.copy_(p.div_(of))
    return total / of, logits


@cache
def slopes_compiled() -> Slopes:
    """`slopes_at_once` as one kernel that reads the logits and writes their derivative."""
    compiled: Slopes = torch.compile(slopes_at_once, dynamic=False)
    return compiled
