"""Checkpoints read as a census reads them: what stands around the blocks, and one block after another."""

from contextlib import closing

import torch

from analyze.forward.weight_prefetch import Weights
from device import CPU
from models.checkpoint import Checkpoint
from models.opt import OPT, Block
from models.unallocated import unallocated


def read_block(checkpoint: Checkpoint, layer: int, dtype: torch.dtype = torch.float32) -> Block:
    """One decoder layer."""
    with closing(Weights(checkpoint, dtype, CPU(), slots=1).blocks(range(layer, layer + 1))) as blocks:
        return next(blocks)


def read_model(checkpoint: Checkpoint) -> OPT:
    """The whole model, in float32."""
    weights = {f"decoder.{name}": tensor for name, tensor in checkpoint.ends(torch.float32).state_dict().items()}
    for layer in range(checkpoint.config.layers):
        block = read_block(checkpoint, layer).state_dict()
        weights |= {f"decoder.layers.{layer}.{name}": tensor for name, tensor in block.items()}
    with unallocated():
        model = OPT(checkpoint.config)
    model.load_state_dict(weights, assign=True)
    return model.eval()
