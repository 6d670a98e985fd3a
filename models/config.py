"""The shape of an OPT model and the switches that make a variant of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from errors import UserError

POSITIONS = ("learned", "none", "sinusoidal", "rotary", "alibi")
NORMS = ("pre", "post")
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "relu_squared": "relu2"}  # ours -> HuggingFace's
MOST: dict[str, float] = {
    "layers": 10_000,
    "width": 10**6,
    "heads": 10**6,
    "neurons": 10**7,
    "embed_dim": 10**6,
    "context": 10**7,
}
MOST |= {"vocab_size": 10**7, "init_std": 1000.0}  # far beyond any model; what is larger is a slip of the keyboard, or damage
FIRES = "a neuron fires where its pre-activation is above zero"


@dataclass
class OPTConfig:
    """OPT of the metaseq baselines: ReLU, biases everywhere, tied unembedding (Zhang et al. 2022, arXiv:2205.01068)."""

    layers: int = 12  # decoder blocks
    width: int = 768  # of the residual stream
    heads: int = 12  # attention heads; divide the width
    neurons: int = 3072  # FFN neurons per layer
    embed_dim: int | None = None  # of the token embedding, with project_in/project_out if it is not the width (350m: 512)
    context: int = 2048  # positions of the longest sequence
    vocab_size: int = 0  # rows of the token embedding; 0: as the tokenizer has ids, rounded up to a multiple of 32 (OPT: 50272)
    positions: str = "learned"  # learned | none | sinusoidal (added to embeddings) | rotary | alibi (both in every attention)
    norm: str = "pre"  # LayerNorm before (pre) or after (post) each sub-block
    final_norm: bool = True  # a LayerNorm after the last block
    activation: str = "relu"  # of FFN neurons: relu | gelu | relu_squared; all fire where their pre-activation is above zero
    init_std: float = 0.006  # of the initial weights; what writes into the residual stream has it divided by sqrt(2 layers)
    dropout: float = 0.1  # on both residual branches, in training
    attention_dropout: float = 0.1  # on attention weights, in training
    biases: bool = True  # of attention and FFN; false in galactica
    gains: bool = True  # every LayerNorm's gain and bias; false in galactica
    tied: bool = True  # the unembedding is the token embedding; false: `lm_head`, with weights of its own

    def __post_init__(self) -> None:
        for field, allowed in (("positions", POSITIONS), ("norm", NORMS), ("activation", ACTIVATIONS)):
            if getattr(self, field) not in allowed:
                raise UserError(f"model.{field}={getattr(self, field)!r} is none of {', '.join(allowed)}.")
        for field, most in MOST.items():
            least, value = int(field not in ("vocab_size", "init_std")), getattr(self, field)
            if value is not None and not least <= value <= most:
                raise UserError(f"model.{field}={value} must be at least {least} and at most {most:,.0f}.")
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}.")
        paired = {"sinusoidal": self.width, "rotary": self.width // self.heads}.get(self.positions, 2)
        if paired % 2:
            raise UserError(f"model.positions={self.positions} needs an even width, of the stream or of a head; it is {paired}.")
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"model.{field}={getattr(self, field)} must lie in [0, 1).")

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "OPTConfig":
        """The configuration of these settings, as a file has them: of any kind. What it does not name has its default.

        Raises:
            UserError: a setting is unknown, or its value of another kind, or out of range.
        """
        kinds = {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(cls)}
        if unknown := [str(name)[:40] for name in plain if name not in kinds]:
            raise UserError(f"model.{unknown[0]} is no setting that this version knows.")
        return cls(**{name: _of_kind(name, kinds[name], value) for name, value in plain.items()})

    @property
    def token_width(self) -> int:
        """Width of the token embedding."""
        return self.embed_dim or self.width

    @property
    def projected(self) -> bool:
        """Whether the token embedding is not as wide as the residual stream, as in 350m."""
        return self.token_width != self.width

    @property
    def inexpressible(self) -> list[str]:
        """What of this model `transformers`' OPT cannot be; it is told in the milestone and in the log."""
        said = []
        if self.norm == "post" and self.final_norm:
            said.append("final LayerNorm after post-LayerNorm blocks")
        if self.positions in ("rotary", "alibi"):
            said.append(f"{self.positions} positions")
        return said

    @property
    def training_flops_per_token(self) -> int:
        """Of forward and backward: 6 for every weight of a matrix product, and 6 layers * context * width for causal attention.

        Needs `vocab_size`, as the unembedding is one of the products. Biases, LayerNorms and softmax are left out.
        """
        blocks = self.layers * (4 * self.width**2 + 2 * self.width * self.neurons)
        ends = self.vocab_size * self.token_width + (2 * self.width * self.token_width if self.projected else 0)
        return 6 * (blocks + ends + self.layers * self.context * self.width)

    @property
    def fires(self) -> str:
        """What the census calls firing, and what it leaves out under this activation."""
        if self.activation == "gelu":
            return f"{FIRES}; where it does not, GELU still writes down to -0.17 times its column of fc2"
        return f"{FIRES}, which is where it writes anything at all"


def _of_kind(name: str, kind: str, value: Any) -> Any:
    """A value of the kind that its field has; `UserError` for one of another."""
    if value is None and "None" in kind:
        return None
    of = kind.partition(" ")[0]
    allowed = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}[of]
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and of != "bool") or not finite:
        asked = {"str": "a word", "bool": "true or false", "int": "a whole number", "float": "a finite number"}[of]
        raise UserError(f"model.{name}={str(value)[:40]} must be {asked}.")
    return min(value, 1e300) * 1.0 if of == "float" else value
