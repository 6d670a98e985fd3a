"""OPTConfig -> HuggingFace's config.json, and back."""

from dataclasses import asdict, fields
from typing import Any

from errors import UserError
from models.config import ACTIVATIONS, OPTConfig

OURS = "neuron_census"  # our own entry in config.json, for what HuggingFace's fields cannot say
SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "neurons": "ffn_dim",
    "context": "max_position_embeddings",
    "vocab_size": "vocab_size",
}  # ours -> HuggingFace's, which has to have them
SWITCHES = {"biases": "enable_bias", "gains": "layer_norm_elementwise_affine", "tied": "tie_word_embeddings"}
THEIRS = SIZES | SWITCHES | {"embed_dim": "word_embed_proj_dim"}


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
        **{theirs: getattr(config, ours) for ours, theirs in SWITCHES.items()},
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
        raise UserError(another_architecture(entries, where))
    if entries.get("quantization_config"):
        method = _entry(entries, "quantization_config", {}, where).get("quant_method", "an unnamed method")
        raise UserError(
            f"{where} is quantised ({method}): its weights stand in another form. Give the checkpoint that it was made from, "
            "in float32, bfloat16 or float16."
        )
    ours, pre = _entry(entries, OURS, {}, where), _entry(entries, "do_layer_norm_before", True, where)
    if lacking := [theirs for theirs in SIZES.values() if theirs not in entries]:
        raise UserError(f"{where} lacks the entry {lacking[0]!r} in config.json; it is not a complete OPT configuration.")
    activation = {theirs: ours for ours, theirs in ACTIVATIONS.items()}.get(_entry(entries, "activation_function", "relu", where))
    if activation is None:
        readable = ", ".join(map(repr, ACTIVATIONS.values()))
        raise UserError(f"{where} has activation_function={entries['activation_function']!r}; only {readable} can be read.")
    said: dict[str, Any] = {name: entries[theirs] for name, theirs in SIZES.items()}
    said |= {name: _entry(entries, theirs, True, where) for name, theirs in SWITCHES.items()}
    removed = _entry(entries, "_remove_final_layer_norm", False, where)
    said |= {
        "embed_dim": entries.get("word_embed_proj_dim"),
        "positions": ours.get("positions", "learned"),
        "norm": "pre" if pre else "post",
        "final_norm": ours.get("final_norm", pre and not removed),
        "activation": activation,
        "init_std": ours.get("init_std", 0.006),  # theirs says 0.02 of every OPT, which was not trained from that
        "dropout": entries.get("dropout", 0.1),
        "attention_dropout": entries.get("attention_dropout", 0.0),
    }
    try:
        return OPTConfig.of(said)
    except UserError as mistake:
        raise UserError(f"{where}: {in_their_words(str(mistake))}") from None


def _entry(entries: dict[str, Any], name: str, default: Any, where: str) -> Any:
    """An entry of the default's kind."""
    value = entries.get(name, default)
    if value is None and not isinstance(default, dict):
        return default
    if not isinstance(value, type(default)):
        kind = {bool: "true or false", str: "a word", dict: "an object"}[type(default)]
        raise UserError(f"{where}: {name}={str(value)[:40]} in config.json must be {kind}.")
    return value


def file_name(name: str, prefix: str = "model.") -> str:
    """What HuggingFace calls a tensor of ours: an unembedding of its own stands outside of the decoder."""
    return "lm_head.weight" if name == "decoder.lm_head.weight" else f"{prefix}{name}"


def in_their_words(mistake: str) -> str:
    """A sentence about `model.layers=...` as one about the entry of config.json."""
    for name in (field.name for field in fields(OPTConfig)):
        mistake = mistake.replace(f"model.{name}=", f"{THEIRS.get(name, name)}=")
    return mistake.removesuffix(".") + " in config.json."


def another_architecture(entries: dict[str, Any], where: str) -> str:
    """What is said of a config.json that is no OPT's."""
    kind = entries.get("model_type")
    if entries.get("is_encoder_decoder") is True:
        return f"{where} is an encoder-decoder of type {kind!r}; only decoders of type 'opt' can be read."
    if kind is None:
        return f"{where} has a config.json without a model_type; only models of type 'opt' can be read."
    return f"{where} is a model of type {str(kind)[:40]!r}; only 'opt' can be read."
