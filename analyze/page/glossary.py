"""What the words on a page mean: told when one points at them, and listed at its end."""

from analyze.config import Thresholds
from analyze.neuron_types.taxonomy import NEURON_TYPES, POSITION_PATTERNS

TYPES = {kind.name: kind for kind in NEURON_TYPES}

MEANINGS = {  # `asked` are the thresholds of the census
    "neuron": "One of the numbers between the two matrices of a layer's FFN. L5N123 is neuron 123 of layer 5; both count from 0.",
    "fires": "A neuron fires at a token if its value before the activation is above zero.",
    "counted tokens": "Tokens that the census reads and counts: all but the beginning-of-sequence token </s>.",
    "type": "The first that holds of: dead, token detector, bigram detector, trigram detector, positional; else other.",
    TYPES["dead"].label: TYPES["dead"].meaning,
    "frequency": "Share of counted tokens at which the neuron fires.",
    "fired": "Counted tokens at which the neuron fires, of all counted tokens.",
    "fired at BOS": "Times it fires at the beginning-of-sequence token, which is not counted elsewhere.",
    "greatest pre-activation": "The greatest value before the activation over counted tokens: how far a dead neuron is from living.",
    "first fired at": "Index, in the order of the text, of the first counted token at which it fires.",
    "tokens that cover it": "The least number of distinct tokens that make up {asked.coverage}% of its firings. Few: the "
    "neuron follows the current token.",
    "bigrams that cover it": "The least number of distinct pairs of tokens, ending at the current one, that make up "
    "{asked.coverage}% of its firings.",
    "trigrams that cover it": "The same for three tokens in a row.",
    **{TYPES[name].label: TYPES[name].meaning for name in ("token", "bigram", "trigram")},
    "detected": "A token, or n-gram, at whose occurrences the neuron fires at least {asked.detection}% of the time.",
    "token support": "Share of its firings on detected n-grams that occur at least {asked.support_occurrences} times. A "
    "token seen once is detected too easily.",
    "bigram support": "The same for detected bigrams.",
    "trigram support": "The same for detected trigrams.",
    "fires on it": "How often the neuron fires at this token or n-gram.",
    "occurs": "How often the token or n-gram occurs in the text.",
    "position": "A token's place in its sequence, from 0, where the beginning-of-sequence token stands.",
    "position curve": "Frequency of the neuron at each position. Positions that stand close together share a point.",
    TYPES["positional"].label: TYPES["positional"].meaning,
    "position, nats": "Mutual information between firing and position, less what chance alone gives. ln 2 = 0.69 is the most possible.",
    "uncorrected": "The same, before chance is taken off.",
    "pattern": "How the frequency of a positional neuron depends on position: oscillatory, both extremes, one extreme, or other.",
    **{pattern.label: pattern.meaning for pattern in POSITION_PATTERNS},
    "strong": "The pattern is exact: it reaches {asked.positions.strong_zero:g} and {asked.positions.strong_one:g}; of other "
    "patterns, that the curve is smooth.",
    "changes across domains": "The greatest difference, in frequency, between its position curves in two domains of the text.",
    "first positions": "Neurons that fire almost only at the first few positions: {asked.coverage}% of their firings are at "
    "positions below {asked.positions.first}.",
    "team": "The strong oscillatory neurons of a layer. Each indicates the positions at which it fires at least "
    "{asked.positions.indicated:.0%} of the time.",
    "redundant": "Neurons of a team that were left out, one after another, without losing a position that it indicates.",
    "most firings up to": "The position by which {asked.coverage}% of its firings have happened. Small: it serves the first "
    "few positions only.",
    "promotes": "The tokens whose logits the neuron raises most when it fires.",
    "suppresses": "The tokens whose logits it lowers most when it fires.",
    "writes on its triggers": "Mean effect of a token detector on the logits of the tokens it detects. Below 0: it suppresses them.",
    "centered": "The same, less its mean effect on all tokens, which changes no probability.",
    "nats": "Information with the natural logarithm: 0.69 nats are one bit.",
    "in no layer below": "Tokens that this layer detects and no layer below does.",
    "up to this layer": "Distinct tokens that this layer or a layer below detects.",
}


def meanings(asked: Thresholds) -> dict[str, str]:
    """What each word means under these thresholds."""
    return {word: meaning.format(asked=asked) for word, meaning in MEANINGS.items()}
