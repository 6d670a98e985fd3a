"""The same layers as people run them who have less memory than weights: transformers, placed by accelerate's `device_map="auto"`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from device import Device
from scripts.measurement import now

SIZES = (1, 2, 4, 8, 16, 32)  # sequences of a batch; those that fit are tried
SECONDS = 5.0  # for each, and at least one batch
FILLED = 0.9  # of a GPU's free memory, which accelerate gives to weights
IN_MEMORY = 0.5  # of the layers, where there is no GPU: the others go to the disk


def offloaded(path: Path, ids: np.ndarray, dtype: torch.dtype, device: Device, share: float, folder: Path) -> dict[str, float]:
    """Tokens a second of the fastest size of batch through the decoder, and which share of the weights lay elsewhere.

    Where the checkpoint has a `share` of the layers of the model that it stands for, its layers get that share of the GPU's memory,
    and batches what the whole model would leave.
    """
    from transformers import OPTForCausalLM

    free, (ends, layer, layers) = device.free_memory(), _sizes(path, dtype)
    kept = ends + layer + (FILLED * free - ends - layer) * share  # accelerate keeps room for a layer that comes and goes
    on_cpu = ends + IN_MEMORY * layers * layer
    limits = {device.name.index: int(kept), "cpu": 10**12} if device.asynchronous else {"cpu": int(on_cpu)}
    opening: Any = OPTForCausalLM.from_pretrained  # untyped, as is all that comes of it
    decoder = opening(path, dtype=dtype, device_map="auto", max_memory=limits, offload_folder=folder).eval().model.decoder
    weights = list(decoder.parameters())
    here, of = (sum(p.nbytes for p in some) for some in ([p for p in weights if not p.is_meta], weights))
    rest = (here - ends) * (1 / share - 1) if device.asynchronous else 0  # what more of the whole model would lie here
    ballast = device.empty(max(0, int(rest)), dtype=torch.uint8)
    best = {"tokens_per_second": 0.0, "elsewhere": 1 - here / of}
    for size in SIZES:
        try:
            rate = _rate(decoder, np.resize(ids, (size, ids.shape[1])), device)
        except torch.OutOfMemoryError:
            break
        if rate > best["tokens_per_second"]:
            best |= {"tokens_per_second": rate, "batch": size}
    del ballast
    return best | {"gpu_bytes": device.peak_memory() - max(0, int(rest))}


def _sizes(path: Path, dtype: torch.dtype) -> tuple[int, int, int]:
    """Bytes of what is no layer, bytes of a layer, and how many there are."""
    from models.open_checkpoint import open_checkpoint

    config, tensors = (checkpoint := open_checkpoint(str(path))).config, checkpoint.layer_tensors(0).values()
    ends = (config.vocab_size + config.context) * config.width * dtype.itemsize
    return ends, sum(stored.nbytes // stored.dtype.itemsize for stored in tensors) * dtype.itemsize, config.layers


@torch.inference_mode()
def _rate(decoder: Any, ids: np.ndarray, device: Device) -> float:
    batch = device.put(torch.from_numpy(ids).long())
    decoder(batch, use_cache=False)
    begun, done = now(device), 0
    while not done or now(device) - begun < SECONDS * device.asynchronous:
        decoder(batch, use_cache=False)
        done += 1
    return done * ids.size / (now(device) - begun)
