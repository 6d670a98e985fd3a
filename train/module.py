"""Batches -> gradients -> parameters: one optimizer step of the OPT recipe as a Lightning module."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.open_checkpoint import TRAINED_IN
from models.opt import OPT
from train.config import TrainConfig
from train.loss import next_token_loss
from train.schedule import dropout_seed, learning_rate


class Training(L.LightningModule):
    """One Lightning batch is one optimizer step, so Lightning's counters are ours and nothing hides between micro-steps."""

    def __init__(self, config: TrainConfig, model: OPT, identity: dict[str, Any], compiled: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.model, self.identity, self.compiled = config, model, identity, compiled
        if compiled:  # block by block: one compilation serves all layers, and no parameter changes its name
            for block in model.decoder.layers:
                block.compile(dynamic=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with weight decay on all parameters, as metaseq has it."""
        o = self.config.optimizer
        return torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(o.beta1, o.beta2), eps=o.epsilon, weight_decay=o.weight_decay, fused=True
        )

    def training_step(self, batch: list[Any], _index: int) -> dict[str, Tensor]:
        """Learn from `batch`: step, and ids [micro-step, sequence, position]. Returns loss and gradient norm, still on the device."""
        step, ids = batch
        optimizer: Any = self.optimizers()
        total = torch.zeros((), device=self.device)
        for micro_step, micro in enumerate(ids):
            torch.manual_seed(dropout_seed(self.config.seed, step, micro_step * self.trainer.world_size + self.global_rank))
            with self._apart() if micro_step < len(ids) - 1 else nullcontext():
                loss = self.loss(micro) / len(ids)
                self.manual_backward(loss)
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config.optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": total, "grad_norm": norm}

    def loss(self, ids: Int[Tensor, "sequence position"]) -> Float[Tensor, ""]:
        """Mean cross entropy of a micro-batch, in nats."""
        return next_token_loss(self.model, ids, self.compiled)

    @property
    def state(self) -> dict[str, Any]:
        """What a milestone says of its making: how far it is, in which run and in which precision."""
        step = self.global_step
        precision = TRAINED_IN[self.identity["precision"]]
        return {"step": step, "tokens": step * self.config.batch.tokens, "name": self.config.name, "precision": precision}

    def _apart(self) -> AbstractContextManager[Any]:
        """Ranks keep their gradients to themselves until the last micro-step."""
        strategy = self.trainer.strategy
        if isinstance(strategy.model, torch.nn.parallel.DistributedDataParallel):
            return strategy.model.no_sync()
        return nullcontext()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put plain values beside the weights: what the census needs, and what resuming must find unchanged."""
        checkpoint["model"] = asdict(self.model.config)
        checkpoint["name"] = self.config.name
        checkpoint["tokens"] = self.global_step * self.config.batch.tokens
        checkpoint["identity"] = self.identity
