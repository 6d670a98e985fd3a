"""Residual stream -> loss, without ever holding the logits of a batch."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from models.opt import OPT

ROWS = 512  # predictions whose logits exist at a time


def next_token_loss(model: OPT, ids: Int[Tensor, "sequence position"]) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats, of every id but the first of a window given those before it."""
    read_out = model.decoder.read_out(model.stream(ids[:, :-1])).flatten(0, 1)
    unembedding = model.decoder.embed_tokens.weight
    loss: Tensor = CrossEntropyInPieces.apply(read_out, unembedding, ids[:, 1:].flatten())  # type: ignore[no-untyped-call]
    return loss


class CrossEntropyInPieces(torch.autograd.Function):
    """Cross entropy of `read_out @ unembedding.T`, some hundred rows at a time.

    The gradient is taken in the forward pass while the piece's logits are at hand, as the logits of 16,384 predictions over
    50,272 ids would fill 3.3 GB in float32. Products are in autocast's dtype where that is on, the softmax in float32.
    """

    @staticmethod
    def forward(ctx: Any, read_out: Tensor, unembedding: Tensor, targets: Tensor) -> Tensor:
        """read_out [row, width], unembedding [token, width], targets [row] -> mean loss."""
        kind = read_out.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else unembedding.dtype
        learning = any(ctx.needs_input_grad)
        with torch.autocast(kind, enabled=False):
            x, e = read_out.to(dtype), unembedding.to(dtype)
            d_x, d_e = (torch.empty_like(x), torch.zeros_like(unembedding)) if learning else (x, e)
            total = torch.zeros((), device=x.device)
            for begin in range(0, len(x), ROWS):
                rows = slice(begin, begin + ROWS)
                logits = F.linear(x[rows], e).float()
                total += F.cross_entropy(logits, targets[rows], reduction="sum")
                if learning:
                    slope = logits.softmax(-1)
                    slope[torch.arange(len(slope), device=slope.device), targets[rows]] -= 1
                    slope = slope.div_(len(x)).to(dtype)
                    d_x[rows] = slope @ e
                    d_e += slope.T @ x[rows]
        if learning:
            ctx.save_for_backward(d_x.to(read_out.dtype), d_e)
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale what the forward pass found."""
        d_x, d_e = ctx.saved_tensors
        return d_x * slope[0], d_e * slope[0], None
