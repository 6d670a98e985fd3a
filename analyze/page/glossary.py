"""What the words on a page mean: told when one points at them, and listed at its end."""

from analyze.config import Thresholds
from analyze.neuron_types.taxonomy import NEURON_TYPES, POSITION_PATTERNS
from analyze.tables.neurons import ALL

TYPES = {kind.name: kind for kind in NEURON_TYPES}

MEANINGS = {  # `asked` are the thresholds of the census
    "neuron": "One of the numbers between the two matrices of a layer's FFN. L5N123 is neuron 123 of layer 5; both count from 0.",
    "fires": "A neuron fires at a token if its value before the activation is above zero.",
    "counted tokens": "Tokens that the census reads and counts: all but the beginning-of-sequence token </s>.",
    "type": "The first that holds of: dead, token detector, bigram detector, trigram detector, positional; else other.",
    TYPES["dead"].label: TYPES["dead"].meaning,
    "frequency": "Share of counted tokens at which the neuron fires.",
    "fired": "Counted tokens at which the neuron fires, of all counted tokens.",
    **{TYPES[name].label: TYPES[name].meaning for name in ("token", "bigram", "trigram")},
    "detected": "A token, or n-gram, at whose occurrences the neuron fires at least {asked.detection}% of the time.",
    "fires on it": "How often the neuron fires at this token or n-gram.",
    "occurs": "How often the token or n-gram occurs in the text.",
    "position": "A token's place in its sequence, from 0, where the beginning-of-sequence token stands.",
    "position curve": "Frequency of the neuron at each position. Positions that stand close together share a point.",
    TYPES["positional"].label: TYPES["positional"].meaning,
    "pattern": "How the frequency of a positional neuron depends on position: oscillatory, both extremes, one extreme, or other.",
    **{pattern.label: pattern.meaning for pattern in POSITION_PATTERNS},
    "strong": "The pattern is exact: it reaches {asked.positions.strong_zero:g} and {asked.positions.strong_one:g}; of other "
    "patterns, that the curve is smooth.",
    "first positions": "Neurons that fire almost only at the first few positions: {asked.coverage}% of their firings are at "
    "positions below {asked.positions.first}.",
    "team": "The strong oscillatory neurons of a layer. Each indicates the positions at which it fires at least "
    "{asked.positions.indicated:.0%} of the time.",
    "redundant": "Neurons of a team that were left out, one after another, without losing a position that it indicates.",
    "promotes": "The tokens whose logits the neuron raises most when it fires.",
    "suppresses": "The tokens whose logits it lowers most when it fires.",
    **{column.label: column.hint for column in ALL if column.label},
    "nats": "Information with the natural logarithm: 0.69 nats are one bit.",
    "in no layer below": "Tokens that this layer detects and no layer below does.",
    "up to this layer": "Distinct tokens that this layer or a layer below detects.",
}


def meanings(asked: Thresholds) -> dict[str, str]:
    """What each word means under these thresholds."""
    return {word: meaning.format(asked=asked) for word, meaning in MEANINGS.items()}
