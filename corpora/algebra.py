"""text -> documents: questions of algebra for the sheets of school mathematics.

Every kind is a pure function of a `random.Random` that returns a question and its answer.
"""

from random import Random

from corpora.arithmetic import QuestionAndAnswer, integer

LETTERS = "abcdghkmnpqrtuvwxyz"  # names of unknowns; not e, f, i, j, l, o, s


def _term(coefficient: int, name: str, first: bool) -> str:
    """`3*x` where it opens an expression, ` - x` and nothing at all for 0 further on."""
    size = name if name and abs(coefficient) == 1 else f"{abs(coefficient)}{'*' if name else ''}{name}"
    if coefficient == 0:
        return "0" if first and not name else ""
    return (("-" if coefficient < 0 else "") if first else (" - " if coefficient < 0 else " + ")) + size


def expression(terms: list[tuple[int, str]]) -> str:
    """`2*x**2 - x + 5` of coefficients and powers; `0` where nothing is left."""
    text = ""
    for coefficient, name in terms:
        text += _term(coefficient, name, first=not text)
    return text or "0"


def linear_equation(rng: Random) -> QuestionAndAnswer:
    x, name = integer(rng, 2), rng.choice(LETTERS)
    a, b, c = integer(rng, 2), integer(rng, 3), integer(rng, 2)
    a += a == c  # so that one solution is left
    left, right = expression([(a, name), (b, "")]), expression([(c, name), (a * x + b - c * x, "")])
    return f"Solve {left} = {right} for {name}.", str(x)


def linear_system(rng: Random) -> QuestionAndAnswer:
    x, y = integer(rng, 2), integer(rng, 2)
    m, n = rng.sample(LETTERS, 2)
    a, b, c, d = (integer(rng, 1) for _ in range(4))
    if a * d == b * c:
        a, b, c, d = 1, 1, 1, -1
    first = f"{expression([(a, m), (b, n)])} = {a * x + b * y}"
    second = f"{expression([(c, m), (d, n)])} = {c * x + d * y}"
    return f"Solve {first}, {second} for {m}.", str(x)


def next_term(rng: Random) -> QuestionAndAnswer:
    a, b, c = integer(rng, 1) * rng.randrange(2), integer(rng, 2), integer(rng, 3)
    terms = [str(a * n * n + b * n + c) for n in range(1, 8)]
    shown = rng.randint(4, 6)
    return f"What is next in {', '.join(terms[:shown])}?", terms[shown]


def polynomial(coefficients: list[int], name: str) -> str:
    """Highest power first: `polynomial([5, 0, 2], "x")` is `2*x**2 + 5`."""
    powers = ["", name, *(f"{name}**{power}" for power in range(2, len(coefficients)))]
    return expression([(c, power) for c, power in zip(coefficients, powers, strict=False) if c][::-1])


def _coefficients(rng: Random) -> list[int]:
    """Of 1, x, x**2, ...; degree 1 to 4, the last not 0."""
    return [integer(rng, 2) for _ in range(rng.randint(1, 4))] + [integer(rng, 1) or 1]


def evaluation(rng: Random) -> QuestionAndAnswer:
    coefficients, name, x = _coefficients(rng), rng.choice(LETTERS), integer(rng, 1)
    value = sum(c * x**power for power, c in enumerate(coefficients))
    return f"Let f({name}) = {polynomial(coefficients, name)}. What is f({x})?", str(value)


def derivative(rng: Random) -> QuestionAndAnswer:
    coefficients, name = _coefficients(rng), rng.choice(LETTERS)
    question = rng.choice(("What is the derivative of {} with respect to {}?", "Differentiate {} with respect to {}."))
    answer = polynomial([power * c for power, c in enumerate(coefficients)][1:], name)
    return question.format(polynomial(coefficients, name), name), answer


def collecting_terms(rng: Random) -> QuestionAndAnswer:
    name = rng.choice(LETTERS)
    terms = [(integer(rng, 2) or 3, rng.randrange(3)) for _ in range(rng.randint(3, 6))]
    shown = expression([(c, ("", name, f"{name}**2")[power]) for c, power in terms])
    sums = [sum(c for c, power in terms if power == wanted) for wanted in range(3)]
    return f"Collect the terms in {shown}.", polynomial(sums, name)


def expanding(rng: Random) -> QuestionAndAnswer:
    name = rng.choice(LETTERS)
    a, b, c, d = integer(rng, 1) or 1, integer(rng, 1), integer(rng, 1) or 2, integer(rng, 1)
    shown = f"({polynomial([b, a], name)})*({polynomial([d, c], name)})"
    return f"Expand {shown}.", polynomial([b * d, a * d + b * c, a * c], name)
