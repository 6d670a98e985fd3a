"""How long a micro-batch takes: the first layer, a few of them, measured before the walk."""

import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch

from analyze.census.job import CensusTask
from analyze.firing.mask import DeviceRecorder, Whole, record
from analyze.firing.packing import bytes_for
from analyze.forward.layer_by_layer import MicroBatch, ResidualStream
from analyze.forward.residual_store import InMemory
from analyze.forward.weight_prefetch import Weights

BATCHES = 3  # the first warms up


def random_stream(task: CensusTask, batches: int) -> ResidualStream:
    """Residual streams that are as much work as real ones."""
    positions = task.sequences.ids.shape[1]
    shape = (task.micro, positions, task.checkpoint.config.width)
    residuals = InMemory(batches, shape, task.dtype, task.device)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(task.dtype)
    for batch in range(batches):
        residuals.write(batch, task.device.put(noise))
    residuals.finish(-1)
    ids = torch.zeros(batches * task.micro, positions, dtype=torch.int32)
    return ResidualStream(None, ids, task.micro, task.device, residuals=residuals)


def seconds_per_micro_batch(task: CensusTask) -> float:
    """Seconds from one micro-batch of the first layer to the next, on random residual streams, firing bits recorded."""
    stream, begun = random_stream(task, BATCHES), []
    counted = np.ones((BATCHES * task.micro, task.sequences.ids.shape[1]), bool)
    neurons = task.checkpoint.config.neurons
    with closing(Weights(task.checkpoint, task.dtype, task.device, slots=1).blocks(range(1))) as blocks:

        def clocked() -> Iterator[MicroBatch]:
            for batch in stream.through(next(blocks), 0):
                task.device.synchronize()
                begun.append(time.perf_counter())
                yield batch

        if task.device.asynchronous:
            bits = np.empty((counted.size, bytes_for(neurons)), np.uint8)
            with closing(DeviceRecorder(task.device, counted, neurons, task.micro * counted.shape[1])) as recorder:
                recorder.record(clocked(), bits, None, Whole(bits))
        else:
            record(clocked(), counted, neurons)
    return float(np.diff(begun).min())
