"""OPT: token ids -> residual stream -> pre-activations and logits. Parameter names are HuggingFace's."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.config import OPTConfig
from models.positions import alibi, rotated, sinusoids

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,  # by the error function, as BERT and GPT-1 of transformers have it
    "relu_squared": lambda pre: F.relu(pre).square(),  # So et al. 2021 (Primer)
}
UNUSED_ROWS = 2  # of the position table: position p is row p + 2
PAD = 1  # id of <pad>; starts at zero, and no gradient reaches it as an input


class Attention(nn.Module):
    """Causal self-attention, as OPT scales it: the query first."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.positions = config.positions
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.width, config.width, bias=config.biases)
        self.k_proj = nn.Linear(config.width, config.width, bias=config.biases)
        self.v_proj = nn.Linear(config.width, config.width, bias=config.biases)
        self.out_proj = nn.Linear(config.width, config.width, bias=config.biases)

    def forward(self, x: Float[Tensor, "sequence position width"]) -> Float[Tensor, "sequence position width"]:
        """Return what attention adds to the residual stream."""

        def split(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], self.heads, -1).transpose(1, 2)

        scale = (x.shape[-1] // self.heads) ** -0.5
        q, k, v = split(self.q_proj(x) * scale), split(self.k_proj(x)), split(self.v_proj(x))
        if self.positions == "rotary":
            q, k = rotated(q), rotated(k)
        bias = (
            alibi(self.heads, x.shape[1], q.device, q.dtype)[None] if self.positions == "alibi" else None
        )  # fused kernels want 4-D
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, bias, dropout, is_causal=bias is None, scale=1.0)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """One decoder layer. `forward` hands out the FFN's pre-activations: a neuron fires where its own is above zero,

    whatever the activation. With GELU one that does not fire still writes a little, at most 0.17 times its column of fc2.
    """

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.dropout = config.dropout
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width, elementwise_affine=config.gains)
        self.fc1 = nn.Linear(config.width, config.neurons, bias=config.biases)
        self.activation = ACTIVATIONS[config.activation]
        self.fc2 = nn.Linear(config.neurons, config.width, bias=config.biases)
        self.final_layer_norm = nn.LayerNorm(config.width, elementwise_affine=config.gains)

    def forward(
        self, x: Float[Tensor, "sequence position width"]
    ) -> tuple[Float[Tensor, "sequence position width"], Float[Tensor, "sequence position neuron"]]:
        """Return the residual stream after this layer, and the FFN's pre-activations in it, which no gradient goes through."""
        x, pre = self.preactivations(x)
        return self.add_ffn(x, self.activation(pre)), pre.detach()

    def preactivations(
        self, x: Float[Tensor, "sequence position width"]
    ) -> tuple[Float[Tensor, "sequence position width"], Float[Tensor, "sequence position neuron"]]:
        """Return the residual stream that the FFN adds to, and the FFN's pre-activations: all that is before the activation."""
        if self.pre_norm:
            x = x + self._drop(self.self_attn(self.self_attn_layer_norm(x)))
            return x, self.fc1(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self._drop(self.self_attn(x)))
        return x, self.fc1(x)

    def add_ffn(
        self, x: Float[Tensor, "sequence position width"], active: Float[Tensor, "sequence position neuron"]
    ) -> Float[Tensor, "sequence position width"]:
        """Return the residual stream after this layer from what stands before its FFN and from its neurons' activations."""
        x = x + self._drop(self.fc2(active))
        return x if self.pre_norm else self.final_layer_norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Decoder(nn.Module):
    """Embedding, blocks, final norm and unembedding; all but the loop over blocks."""

    def __init__(self, config: OPTConfig, blocks: int | None = None) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.token_width, padding_idx=PAD)
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(config.context + UNUSED_ROWS, config.width)
        if config.projected:
            self.project_in = nn.Linear(config.token_width, config.width, bias=False)
            self.project_out = nn.Linear(config.width, config.token_width, bias=False)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers if blocks is None else blocks))
        if config.final_norm:
            self.final_layer_norm = nn.LayerNorm(config.width, elementwise_affine=config.gains)
        if not config.tied:
            self.lm_head = nn.Linear(config.token_width, config.vocab_size, bias=False)
        self.config = config

    def embed(self, ids: Int[Tensor, "sequence position"]) -> Float[Tensor, "sequence position width"]:
        """The residual stream before the first block."""
        x: Tensor = self.embed_tokens(ids)
        if self.config.projected:
            x = self.project_in(x).to(self.embed_tokens.weight.dtype)  # bfloat16 under autocast; the stream is float32
        if self.config.positions == "learned":
            x = x + self.embed_positions(torch.arange(ids.shape[1], device=ids.device) + UNUSED_ROWS)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(ids.shape[1], self.config.width, ids.device).to(x.dtype)
        return x

    @property
    def unembedding(self) -> Float[Tensor, "token token_width"]:
        """The matrix of the unembedding: the token embedding itself, unless the model has one of its own."""
        weight: Tensor = self.embed_tokens.weight if self.config.tied else self.lm_head.weight
        return weight

    def read_out(self, x: Float[Tensor, "sequence position width"]) -> Float[Tensor, "sequence position token_width"]:
        """From the residual stream after the last block, what meets the unembedding."""
        if self.config.final_norm:
            x = self.final_layer_norm(x)
        if self.config.projected:
            x = self.project_out(x)
        return x

    def unembed(self, x: Float[Tensor, "sequence position width"]) -> Float[Tensor, "sequence position token"]:
        """Logits of the next token from the residual stream after the last block."""
        return F.linear(self.read_out(x), self.unembedding)


class OPT(nn.Module):
    """The whole model: `logits = model(ids)`."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)

    def stream(self, ids: Int[Tensor, "sequence position"]) -> Float[Tensor, "sequence position width"]:
        """The residual stream after the last block."""
        x = self.decoder.embed(ids)
        for block in self.decoder.layers:
            x, _ = block(x)
        return x

    def forward(self, ids: Int[Tensor, "sequence position"]) -> Float[Tensor, "sequence position token"]:
        """Logits of the token after each position."""
        return self.decoder.unembed(self.stream(ids))


def has_exported_positions(config: OPTConfig) -> bool:
    """Whether a file of the model holds a position table that the model itself has not."""
    return config.positions in ("none", "sinusoidal")


def exported_positions(config: OPTConfig) -> Float[Tensor, "row width"] | None:
    """The position table that makes `transformers`' OPT the same function, where the model itself has none; None if there is no such."""
    if not has_exported_positions(config):
        return None
    table = torch.zeros(config.context + UNUSED_ROWS, config.width)
    if config.positions == "sinusoidal":
        table[UNUSED_ROWS:] = sinusoids(config.context, config.width)
    return table


@torch.no_grad()
def initialise(model: OPT, seed: int) -> OPT:
    """Draw OPT's initial weights, the same on every machine (metaseq, launcher/opt_baselines.py).

    With `std` = 0.006: N(0, std) for embeddings, positions, q, k, v, fc1 and the projections of 350m; N(0, std / sqrt(2 layers))
    for what writes into the residual stream (out_proj, fc2); biases 0, LayerNorms 1 and 0, the row of <pad> 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            writes = name.endswith(("out_proj.weight", "fc2.weight"))
            std = model.config.init_std / (math.sqrt(2 * model.config.layers) if writes else 1)
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
    model.decoder.embed_tokens.weight[PAD] = 0.0
    return model
