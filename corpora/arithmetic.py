"""text -> documents: questions on numbers for the sheets of school mathematics.

Every kind is a pure function of a `random.Random` that returns a question and its answer.
"""

import math
from fractions import Fraction
from random import Random

QuestionAndAnswer = tuple[str, str]
PLACES = ("the nearest integer", "one decimal place", "two decimal places", "three decimal places", "four decimal places")


def integer(rng: Random, digits: int) -> int:
    """Any sign, at most so many digits, small ones as likely as large ones."""
    return rng.randint(-(10 ** (size := rng.randint(1, digits))) + 1, 10**size - 1)


def number(rng: Random, digits: int) -> Fraction:
    """An integer, or one time in three a decimal."""
    return Fraction(integer(rng, digits), rng.choice((1, 1, 1, 1, 10, 100)))


def decimal(value: Fraction | int) -> str:
    """A fraction as people write it: `-3`, `0.25`, and `2/7` where no decimal ends."""
    value = Fraction(value)
    places = next((places for places in range(13) if 10**places % value.denominator == 0), None)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def arithmetic(rng: Random) -> QuestionAndAnswer:
    a, b = number(rng, 5), number(rng, 5)
    x, y = decimal(a), decimal(b)
    kind = rng.choice("+-*/")
    if kind == "+":
        return rng.choice((f"What is {x} + {y}?", f"Add {x} and {y}.", f"Calculate {x} plus {y}.")), decimal(a + b)
    if kind == "-":
        return rng.choice((f"What is {x} - {y}?", f"Subtract {y} from {x}.", f"{x} minus {y}")), decimal(a - b)
    if kind == "*":
        return rng.choice((f"What is {x} * {y}?", f"Multiply {x} and {y}.", f"Product of {x} and {y}.")), decimal(a * b)
    divisor = integer(rng, 3) or 7
    product = divisor * a if rng.random() < 0.8 else a
    return rng.choice(("Divide {} by {}.", "What is {} divided by {}?")).format(decimal(product), divisor), decimal(
        product / divisor
    )


def _chain(rng: Random, depth: int) -> tuple[str, Fraction]:
    """An expression with all its brackets, and its value."""
    if depth == 0:
        number = integer(rng, 2)
        return (f"({number})" if number < 0 else str(number)), Fraction(number)
    left, a = _chain(rng, rng.randrange(depth))
    right, b = _chain(rng, rng.randrange(depth))
    sign = rng.choice("+-*/" if b else "+-*")
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
    return f"({left} {sign} {right})", value


def mixed_arithmetic(rng: Random) -> QuestionAndAnswer:
    expression, value = _chain(rng, rng.randint(2, 3))
    return rng.choice(("Evaluate {}.", "What is the value of {}?", "Calculate {}.")).format(expression[1:-1]), decimal(value)


def common_divisor(rng: Random) -> QuestionAndAnswer:
    shared = rng.randint(1, 60)
    a, b = shared * rng.randint(1, 120), shared * rng.randint(1, 120)
    question = rng.choice(
        ("Calculate the greatest common divisor of {} and {}.", "What is the highest common factor of {} and {}?")
    )
    return question.format(a, b), str(math.gcd(a, b))


def common_multiple(rng: Random) -> QuestionAndAnswer:
    a, b = rng.randint(2, 300), rng.randint(2, 300)
    question = rng.choice(
        ("Calculate the least common multiple of {} and {}.", "What is the lowest common multiple of {} and {}?")
    )
    return question.format(a, b), str(math.lcm(a, b))


def remainder(rng: Random) -> QuestionAndAnswer:
    divisor, quotient = rng.randint(2, 400), rng.randint(1, 200)
    number = divisor * quotient + rng.randrange(divisor)
    question = rng.choice(
        ("What is the remainder when {} is divided by {}?", "Calculate the remainder when {} is divided by {}.")
    )
    return question.format(number, divisor), str(number % divisor)


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors + [number] * (number > 1)


def primes(rng: Random) -> QuestionAndAnswer:
    number = rng.randint(2, 4000)
    factors = _prime_factors(number)
    kind = rng.randrange(4)
    if kind == 0:
        return f"Is {number} prime?", str(len(factors) == 1)
    if kind == 1:
        return f"Is {number} composite?", str(len(factors) > 1)
    if kind == 2:
        return f"List the prime factors of {number}.", ", ".join(map(str, sorted(set(factors))))
    divisor = rng.randint(2, 30)
    return f"Is {divisor} a factor of {number}?", str(number % divisor == 0)


def _in_base(number: int, base: int) -> str:
    digits = "0123456789abcdef"
    return (_in_base(number // base, base) if number >= base else "") + digits[number % base]


def base_conversion(rng: Random) -> QuestionAndAnswer:
    number, (before, after) = rng.randrange(5000), rng.sample(range(2, 17), 2)
    return f"Convert {_in_base(number, before)} (base {before}) to base {after}.", _in_base(number, after)


def place_value(rng: Random) -> QuestionAndAnswer:
    digits = str(rng.randint(10, 10 ** rng.randint(2, 8) - 1))
    places = ("units", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands", "millions", "ten millions")
    place = rng.randrange(len(digits))
    return f"What is the {places[place]} digit of {digits}?", digits[-1 - place]


def rounding(rng: Random) -> QuestionAndAnswer:
    """No number stands half-way, so there is one answer."""
    number = Fraction(rng.randint(-999_999, 999_999) * 10 + rng.choice((1, 2, 3, 4, 6, 7, 8, 9)), 10**5)
    places = rng.randint(0, 4)
    rounded = Fraction(round(number * 10**places), 10**places)
    return f"Round {decimal(number)} to {PLACES[places]}.", decimal(rounded)
