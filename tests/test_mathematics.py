"""Every kind of question, answered a second time by other means."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from random import Random

import pytest
import sympy

from corpora.mathematics import KINDS, mathematics


def integers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"-?\d+", text)]


def fractions(text: str) -> list[Fraction]:
    return [Fraction(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text)]


def formula(text: str) -> sympy.Expr:
    """A polynomial or an arithmetic expression, read by sympy."""
    return sympy.sympify(text, rational=True, locals={name: sympy.Symbol(name) for name in "abcdghkmnpqrtuvwxyz"})


def arithmetic(question: str) -> Fraction:
    a, b = fractions(re.sub(r"(?<=\d) - ", " minus ", question))
    if " + " in question or re.search("Add|plus", question):
        return a + b
    if question.startswith("Subtract"):
        return b - a
    if re.search(r" - | minus ", question):
        return a - b
    return a * b if re.search(r" \* |Multiply|Product", question) else a / b


def root(question: str) -> sympy.Expr:
    equations, unknown = re.fullmatch(r"Solve (.*) for (\w)\.", question).groups()  # type: ignore[union-attr]
    sides = [equation.split(" = ") for equation in equations.split(", ")]
    solution = sympy.solve([formula(left) - formula(right) for left, right in sides], dict=True)[0]
    return solution[sympy.Symbol(unknown)]


def chance(question: str) -> Fraction:
    bag = [letter for letter, n in re.findall(r"(\w): (\d+)", question) for _ in range(int(n))]
    picked = sorted("".join(letter * int(n) for n, letter in re.findall(r"(\d+) (\w)\b", question.split("picking")[1])))
    draws = [sorted(draw) for draw in combinations(bag, len(picked))]
    return Fraction(draws.count(picked), len(draws))


def next_term(question: str) -> int:
    """By differences: at most quadratic, so the second one stays."""
    a, b, c = integers(question)[-3:]
    return c + (c - b) + ((c - b) - (b - a))


ANSWERS: dict[str, Callable[[str], object]] = {
    "arithmetic": arithmetic,
    "mixed_arithmetic": lambda q: formula(re.sub(r"^\D*? (?=[(\d-])|[.?]$", "", q)),
    "common_divisor": lambda q: math.gcd(*integers(q)),
    "common_multiple": lambda q: math.lcm(*integers(q)),
    "remainder": lambda q: math.fmod(*integers(q)),
    "linear_equation": root,
    "linear_system": root,
    "next_term": next_term,
    "rounding": lambda q: Fraction(
        round(fractions(q)[0], ["nearest", "one", "two", "three", "four"].index(re.findall(r"nearest|one|two|three|four", q)[0]))
    ),
    "letters": chance,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_right(name: str) -> None:
    kind = next(kind for kind in KINDS if kind.__name__ == name)
    rng = Random(name)
    for _ in range(40):
        question, answer = kind(rng)
        assert Fraction(answer) == Fraction(str(ANSWERS[name](question))), (question, answer)


def test_algebra_agrees_with_sympy() -> None:
    kinds = {kind.__name__: kind for kind in KINDS}
    rng = Random(0)
    for _ in range(25):
        question, answer = kinds["derivative"](rng)
        shown, name = re.search(r"(?:derivative of|Differentiate) (.*) with respect to (\w)", question).groups()  # type: ignore[union-attr]
        assert sympy.expand(sympy.diff(formula(shown), sympy.Symbol(name)) - formula(answer)) == 0, question
        question, answer = kinds["evaluation"](rng)
        name, shown, x = re.search(r"f\((\w)\) = (.*)\. What is f\((-?\d+)\)", question).groups()  # type: ignore[union-attr]
        assert formula(shown).subs(sympy.Symbol(name), int(x)) == int(answer), question
        for kind, words in (("collecting_terms", "Collect the terms in "), ("expanding", "Expand ")):
            question, answer = kinds[kind](rng)
            assert sympy.expand(formula(question.removeprefix(words)[:-1]) - formula(answer)) == 0, question


def test_numbers_in_bases_places_and_factors() -> None:
    kinds = {kind.__name__: kind for kind in KINDS}
    rng = Random(0)
    for _ in range(100):
        question, answer = kinds["base_conversion"](rng)
        digits, before, after = re.search(r"Convert (\w+) \(base (\d+)\) to base (\d+)", question).groups()  # type: ignore[union-attr]
        assert int(digits, int(before)) == int(answer, int(after)), question
        question, answer = kinds["primes"](rng)
        number = integers(question)[-1]
        truth = {
            "prime?": str(sympy.isprime(number)),
            "composite?": str(not sympy.isprime(number)),
            "List": ", ".join(map(str, sympy.primefactors(number))),
            "factor of": str(number % integers(question)[0] == 0),
        }
        assert next(true for words, true in truth.items() if words in question) == answer, question


def test_order_and_time() -> None:
    kinds = {kind.__name__: kind for kind in KINDS}
    rng = Random(0)
    for _ in range(100):
        question, answer = kinds["sorting"](rng)
        assert fractions(answer) == sorted(fractions(question), reverse="descending" in question)
        question, answer = kinds["closest"](rng)
        goal, *candidates = fractions(question)
        assert abs(Fraction(answer) - goal) == min(abs(candidate - goal) for candidate in candidates)
        question, answer = kinds["time"](rng)
        clocks = [
            (int(h) % 12 + 12 * (half == "PM")) * 60 + int(m)
            for h, m, half in re.findall(r"(\d+):(\d+) (AM|PM)", question + answer)
        ]
        passed = int(answer) if "between" in question else integers(question)[0] * (-1 if "before" in question else 1)
        assert (clocks[1] - clocks[0] - passed) % 1440 == 0, question


def test_sheets_are_a_function_of_the_seed() -> None:
    first, again, other = (list(mathematics(seed, 50_000)) for seed in (0, 0, 1))
    assert first == again != other
    assert all(2000 <= len(sheet.text) <= 8400 and sheet.text.count("\n") % 2 == 0 for sheet in first)
    assert sum(len(sheet.text) for sheet in first) >= 50_000
