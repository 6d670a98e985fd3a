"""The shape of an OPT model and the switches that make a variant of it; to and from HuggingFace's config.json."""

from dataclasses import asdict, dataclass
from typing import Any

from errors import UserError

POSITIONS = ("learned", "none")
NORMS = ("pre", "post")
OURS = "neuron_census"  # our own entry in config.json, for what HuggingFace's fields cannot say
INEXPRESSIBLE = "transformers' OPT has no final LayerNorm after post-LayerNorm blocks, so it cannot open this model"


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
    positions: str = "learned"  # learned | none
    norm: str = "pre"  # LayerNorm before (pre) or after (post) each sub-block
    final_norm: bool = True  # a LayerNorm after the last block
    init_std: float = 0.006  # of the initial weights; what writes into the residual stream has it divided by sqrt(2 layers)
    dropout: float = 0.1  # on both residual branches, in training
    attention_dropout: float = 0.1  # on attention weights, in training

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise UserError(f"model.positions={self.positions!r} is none of {', '.join(POSITIONS)}.")
        if self.norm not in NORMS:
            raise UserError(f"model.norm={self.norm!r} is none of {', '.join(NORMS)}.")
        for field, least in (("layers", 1), ("width", 1), ("heads", 1), ("neurons", 1), ("context", 1), ("vocab_size", 0)):
            if getattr(self, field) < least:
                raise UserError(f"model.{field}={getattr(self, field)} must be at least {least}.")
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}.")
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"model.{field}={getattr(self, field)} must lie in [0, 1).")

    @property
    def token_width(self) -> int:
        """Width of the token embedding."""
        return self.embed_dim or self.width

    @property
    def projected(self) -> bool:
        """Whether the token embedding is narrower than the residual stream, as in 350m."""
        return self.token_width != self.width

    @property
    def expressible(self) -> bool:
        """Whether `transformers`' OPT can be this model (it has no final LayerNorm after post-LayerNorm blocks)."""
        return not (self.norm == "post" and self.final_norm)


def huggingface(config: OPTConfig, bos_id: int = 2) -> dict[str, Any]:
    """Write `config` as the entries of HuggingFace's config.json.

    A variant that `transformers` cannot express gets a `model_type` of its own, so that loading it there fails loudly
    instead of giving other logits.
    """
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt" if config.expressible else f"{OURS}_opt",
        "activation_function": "relu",
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
        OURS: asdict(config) | ({} if config.expressible else {"note": INEXPRESSIBLE}),
    }


def from_huggingface(entries: dict[str, Any], where: str) -> OPTConfig:
    """Read HuggingFace's config.json; `where` is named in errors.

    Raises:
        UserError: the model is not an OPT, or an OPT with something we do not compute.
    """
    if entries.get("model_type") not in ("opt", f"{OURS}_opt"):
        raise UserError(f"{where} is a model of type {entries.get('model_type')!r}; only 'opt' can be read.")
    if entries.get("activation_function", "relu") != "relu":
        raise UserError(f"{where} has activation_function={entries['activation_function']!r}; only 'relu' can be read.")
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
            init_std=entries.get("init_std", 0.006),
            dropout=entries.get("dropout", 0.1),
            attention_dropout=entries.get("attention_dropout", 0.0),
        )
    except KeyError as missing:
        raise UserError(f"{where} lacks the entry {missing}; it is not a complete OPT configuration.") from None
