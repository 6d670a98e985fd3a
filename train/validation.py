"""Validation loss on a fixed sample of held-out windows."""

import torch
from jaxtyping import Int
from torch import Tensor

from corpora.store import TokenSplit
from models.opt import OPT
from train.loss import next_token_loss
from train.order import TrainingOrder


def validation_windows(split: TokenSplit, context: int, sequences: int) -> Int[Tensor, "sequence position"]:
    """The first `sequences` windows of context + 1 ids of the split, documents in an order of their own (seed 0); at most one epoch."""
    order = TrainingOrder(split, context, seed=0)
    return torch.stack([torch.from_numpy(order.window(number)) for number in range(min(sequences, order.per_epoch))])


@torch.no_grad()
def validation_loss(model: OPT, windows: Int[Tensor, "sequence position"], micro: int, device: torch.device) -> float:
    """Mean loss, in nats per token, without dropout. The model is left in training mode."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64)
    for ids in torch.split(windows, micro):
        total += next_token_loss(model, ids.to(device)).double().cpu() * len(ids)
    model.train()
    return float(total / len(windows))
