"""Sequences -> residual stream -> pre-activations: one layer at a time over all sequences."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from analyze.forward.residual_store import InMemory, Residuals
from device import Device
from errors import UserError
from models.opt import Block, Decoder


@dataclass
class MicroBatch:
    """Pre-activations of some whole sequences in one layer. They stand until the next micro-batch is asked for."""

    first: int  # number of its first sequence
    pre: Float[Tensor, "sequence position neuron"]  # without the sequences that only fill up the last micro-batch


class ResidualStream:
    """The residual streams of all sequences, `[sequence, position, width]`, moved one layer on at a time.

    Every micro-batch has the same shape, the last one filled up with copies of the first sequence that nobody counts: the
    kernel of a matrix product, and with it the sign of values near zero, depends on the shape.
    """

    def __init__(
        self,
        ends: Decoder | None,
        ids: Int[Tensor, "sequence position"],
        micro: int,
        device: Device,
        batches: range | None = None,  # the micro-batches that this process walks; None: all
        residuals: Residuals | None = None,  # None: in the memory of `device`; where they hold something, `ends` are not needed
    ) -> None:
        self.batches = range(-(-len(ids) // micro)) if batches is None else batches
        self.micro, self.device, self.sequences = micro, device, len(ids)
        if residuals is None:
            assert ends is not None
            shape = (micro, ids.shape[1], ends.config.width)
            residuals = InMemory(len(self.batches), shape, ends.embed_tokens.weight.dtype, device)
        self.residuals = residuals
        if residuals.finished is None:
            assert ends is not None
            self._embed(ends, ids)

    def _embed(self, ends: Decoder, ids: Int[Tensor, "sequence position"]) -> None:
        ends = moved(ends, self.device)
        for number, batch in enumerate(self.batches):
            some = ids[batch * self.micro : (batch + 1) * self.micro]
            some = self.device.put(torch.cat([some, ids[:1].expand(self.micro - len(some), -1)]))
            with self.device.current(), torch.inference_mode():
                x = ends.embed(some)
            self.residuals.write(number, x)
        self.residuals.finish(-1)

    def through(self, block: Block, layer: int, last: bool = False) -> Iterator[MicroBatch]:
        """Move every sequence through `block`, handing out the pre-activations on the way.

        Whoever has what it wanted of them then tells `residuals` that the layer is finished.

        Of the `last` layer needed, what comes after the pre-activations is not computed.

        Raises:
            UserError: a value is not finite; names the layer and the sequence.
        """
        sums = self.device.put(torch.zeros(len(self.batches), self.micro))  # finite where all values are; looked at once
        for number, batch in enumerate(self.batches):
            x, pre = self._preactivations(block, number)
            first = batch * self.micro
            if last:
                with self.device.current(), torch.inference_mode():
                    _sum(pre, sums[number])
            yield MicroBatch(first, pre[: self.sequences - first])
            if not last:
                self._move_on(block, number, x, pre, sums[number])
            del x, pre
        self._check_finite(sums, layer)

    def _preactivations(self, block: Block, number: int) -> tuple[Tensor, Tensor]:
        stream = self.residuals.read(number)
        with self.device.current(), torch.inference_mode():
            x, pre = block.preactivations(stream)
        return x, pre

    def _move_on(self, block: Block, number: int, x: Tensor, pre: Tensor, sums: Tensor) -> None:
        with self.device.current(), torch.inference_mode():
            # in place where it can be: whoever wanted the signs has seen them
            active = torch.relu_(pre) if block.activation is F.relu else block.activation(pre)
            x = block.add_ffn(x, active)
            _sum(x, sums)
        self.residuals.write(number, x)

    def _check_finite(self, sums: Float[Tensor, "batch sequence"], layer: int) -> None:
        finite = torch.isfinite(self.device.fetch(sums)).flatten()
        if not finite.all():
            bad = self.batches.start * self.micro + int((~finite).nonzero()[0])
            bad = bad if bad < self.sequences else 0  # copies of the first fill up
            raise UserError(
                f"Layer {layer} gives values that are not finite in sequence {bad}; try dtype=float32, or check the weights."
            )


def moved(ends: Decoder, device: Device) -> Decoder:
    """The embeddings, and what belongs to them, on a device."""
    if device.asynchronous:
        ends.load_state_dict({name: device.put(tensor) for name, tensor in ends.state_dict().items()}, assign=True)
    return ends


def _sum(values: Float[Tensor, "sequence position channel"], sums: Float[Tensor, " sequence"]) -> None:
    """Add up every sequence's values: one infinite value or NaN and the sum is neither finite."""
    sums.copy_(values.flatten(1).sum(1, dtype=torch.promote_types(values.dtype, torch.float32)))
