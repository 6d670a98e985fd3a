"""The shape of an OPT model and the switches that make a variant of it; to and from HuggingFace's config.json."""

from dataclasses import asdict, dataclass
from typing import Any

from errors import UserError

POSITIONS = ("learned", "none", "sinusoidal", "rotary", "alibi")
NORMS = ("pre", "post")
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "relu_squared": "relu2"}  # ours -> HuggingFace's
OURS = "neuron_census"  # our own entry in config.json, for what HuggingFace's fields cannot say
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

    def __post_init__(self) -> None:
        for field, allowed in (("positions", POSITIONS), ("norm", NORMS), ("activation", ACTIVATIONS)):
            if getattr(self, field) not in allowed:
                raise UserError(f"model.{field}={getattr(self, field)!r} is none of {', '.join(allowed)}.")
        for field, least in (("layers", 1), ("width", 1), ("heads", 1), ("neurons", 1), ("context", 1), ("vocab_size", 0)):
            if getattr(self, field) < least:
                raise UserError(f"model.{field}={getattr(self, field)} must be at least {least}.")
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}.")
        paired = {"sinusoidal": self.width, "rotary": self.width // self.heads}.get(self.positions, 2)
        if paired % 2:
            raise UserError(f"model.positions={self.positions} needs an even width, of the stream or of a head; it is {paired}.")
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"model.{field}={getattr(self, field)} must lie in [0, 1).")

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


def huggingface(config: OPTConfig, bos_id: int = 2) -> dict[str, Any]:
    """Write `config` as the entries of HuggingFace's config.json.

    A variant that `transformers` cannot express gets a `model_type` of its own, so that loading it there fails loudly
    instead of giving other logits.
    """
    cannot = config.inexpressible
    note = {"note": f"transformers' OPT has no {' and no '.join(cannot)}, so it cannot open this model"} if cannot else {}
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": f"{OURS}_opt" if cannot else "opt",
        "activation_function": ACTIVATIONS[config.activation],
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "ffn_dim": config.neurons,
        "word_embed_proj_dim": config.token_width,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab_size,
        "do_layer_norm_before": config.norm == "pre",
        "_remove_final_layer_norm": config.norm == "pre" and not config.final_norm,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "layerdrop": 0.0,
        "init_std": config.init_std,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
        "bos_token_id": bos_id,
        "eos_token_id": bos_id,
        "pad_token_id": 1,
        "torch_dtype": "float32",
        OURS: asdict(config) | {"fires": config.fires} | note,
    }


def from_huggingface(entries: dict[str, Any], where: str) -> OPTConfig:
    """Read HuggingFace's config.json; `where` is named in errors.

    Raises:
        UserError: the model is not an OPT, or an OPT with something we do not compute.
    """
    if entries.get("model_type") not in ("opt", f"{OURS}_opt"):
        raise UserError(f"{where} is a model of type {entries.get('model_type')!r}; only 'opt' can be read.")
    activation = {theirs: ours for ours, theirs in ACTIVATIONS.items()}.get(entries.get("activation_function", "relu"))
    if activation is None:
        readable = ", ".join(map(repr, ACTIVATIONS.values()))
        raise UserError(f"{where} has activation_function={entries['activation_function']!r}; only {readable} can be read.")
    for field in ("enable_bias", "layer_norm_elementwise_affine"):
        if not entries.get(field, True):
            raise UserError(f"{where} has {field}=false; only OPT with biases and LayerNorm gains can be read.")
    ours = entries.get(OURS, {})
    pre = bool(entries.get("do_layer_norm_before", True))
    try:
        return OPTConfig(
            layers=entries["num_hidden_layers"],
            width=entries["hidden_size"],
            heads=entries["num_attention_heads"],
            neurons=entries["ffn_dim"],
            embed_dim=entries.get("word_embed_proj_dim"),
            context=entries["max_position_embeddings"],
            vocab_size=entries["vocab_size"],
            positions=ours.get("positions", "learned"),
            norm="pre" if pre else "post",
            final_norm=bool(ours.get("final_norm", pre and not entries.get("_remove_final_layer_norm", False))),
            activation=activation,
            init_std=ours.get("init_std", 0.006),  # theirs says 0.02 of every OPT, which was not trained from that
            dropout=entries.get("dropout", 0.1),
            attention_dropout=entries.get("attention_dropout", 0.0),
        )
    except KeyError as missing:
        raise UserError(f"{where} lacks the entry {missing}; it is not a complete OPT configuration.") from None
