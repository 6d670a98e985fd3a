"""Sequences -> residual stream -> pre-activations: one layer at a time over all sequences."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from errors import UserError
from models.opt import Block, Decoder


@dataclass
class MicroBatch:
    """Pre-activations of some whole sequences in one layer."""

    first: int  # number of its first sequence
    pre: Float[Tensor, "sequence position neuron"]  # without the sequences that only fill up the last micro-batch


class ResidualStream:
    """The residual streams of all sequences, `[sequence, position, width]`, moved one layer on at a time, in place.

    Every micro-batch has the same shape, the last one filled up with copies of the first sequence that nobody counts: the
    kernel of a matrix product, and with it the sign of values near zero, depends on the shape.
    """

    @torch.no_grad()
    def __init__(
        self,
        ends: Decoder,
        ids: Int[Tensor, "sequence position"],
        micro: int,
        device: torch.device,
        batches: range | None = None,  # the micro-batches that this process walks; None: all
    ) -> None:
        batches = range(-(-len(ids) // micro)) if batches is None else batches
        self.first, self.micro, self.device = batches.start * micro, micro, device
        self.sequences = len(ids) - self.first
        ids = torch.cat([ids, ids[:1].expand(-len(ids) % micro, -1)])[self.first : batches.stop * micro]
        ends = ends.to(device)
        first = ends.embed(ids[:micro].to(device))
        self.stream = torch.empty(len(ids), *first.shape[1:], dtype=first.dtype)
        for begin in range(0, len(ids), micro):
            self.stream[begin : begin + micro] = ends.embed(ids[begin : begin + micro].to(device))

    def through(self, block: Block, layer: int) -> Iterator[MicroBatch]:
        """Move every sequence through `block`, handing out the pre-activations on the way.

        A batch's memory is used on when the next one is asked for: its pre-activations become activations in place.

        Raises:
            UserError: a value is not finite; names the layer and the sequence.
        """
        block = block.to(self.device)
        for begin in range(0, len(self.stream), self.micro):
            rows = slice(begin, begin + self.micro)
            with torch.inference_mode():
                x, pre = block.preactivations(self.stream[rows].to(self.device))
            yield MicroBatch(self.first + begin, pre[: self.sequences - begin])
            with torch.inference_mode():
                active = torch.relu_(pre) if block.activation is F.relu else block.activation(pre)
                self._move(rows, block.add_ffn(x, active), layer)

    def _move(self, rows: slice, x: Float[Tensor, "sequence position width"], layer: int) -> None:
        self.stream[rows] = x
        finite = torch.isfinite(x).flatten(1).all(1)
        if not finite.all():
            bad = self.first + rows.start + int((~finite).nonzero()[0])
            raise UserError(
                f"Layer {layer} gives values that are not finite in sequence {bad}; try dtype=float32, or check the weights."
            )
