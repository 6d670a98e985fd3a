"""Validation loss on a fixed sample of held-out windows."""

import torch
from jaxtyping import Int
from torch import Tensor, distributed

from corpora.store import TokenSplit
from train.data_order import TrainingOrder
from train.module import Training


def validation_windows(split: TokenSplit, context: int, sequences: int) -> Int[Tensor, "sequence position"]:
    """The first `sequences` windows of context + 1 ids of the split, documents in an order of their own (seed 0); at most one epoch."""
    order = TrainingOrder(split, context, seed=0)
    return torch.stack([torch.from_numpy(order.window(number)) for number in range(min(sequences, order.per_epoch))])


@torch.no_grad()
def validation_loss(module: Training, windows: Int[Tensor, "sequence position"]) -> float:
    """Mean loss, in nats per token, without dropout. Ranks share the windows; the model is left in training mode."""
    trainer = module.trainer
    total = torch.zeros((), dtype=torch.float64, device=module.device)
    module.model.eval()
    with trainer.precision_plugin.forward_context():
        for ids in torch.split(windows[trainer.global_rank :: trainer.world_size], module.config.batch.micro):
            total += module.loss(ids.to(module.device)).double() * len(ids)
    module.model.train()
    if trainer.world_size > 1:
        distributed.all_reduce(total)
    return float(total) / len(windows)
