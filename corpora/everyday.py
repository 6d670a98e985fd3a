"""text -> documents: questions of order, measure, time and chance for the sheets of school mathematics.

Every kind is a pure function of a `random.Random` that returns a question and its answer.
"""

from collections import Counter
from fractions import Fraction
from math import comb, prod
from random import Random

from corpora.arithmetic import QuestionAndAnswer, decimal, integer, number

UNITS = {  # how many of the smallest unit of its list each one is
    "length": {"millimeters": 1, "centimeters": 10, "meters": 1000, "kilometers": 10**6},
    "mass": {"milligrams": 1, "grams": 1000, "kilograms": 10**6, "tonnes": 10**9},
    "time": {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800},
    "volume": {"milliliters": 1, "centiliters": 10, "liters": 1000},
}


def comparison(rng: Random) -> QuestionAndAnswer:
    a = number(rng, 4)
    b = a + Fraction(integer(rng, 2), rng.choice((1, 10, 100))) * rng.randrange(4)
    x, y = decimal(a), decimal(b)
    if rng.random() < 0.5:
        sign = rng.choice(("smaller than", "greater than", "equal to"))
        return f"Is {x} {sign} {y}?", str({"smaller than": a < b, "greater than": a > b, "equal to": a == b}[sign])
    if a == b:
        return f"Are {x} and {decimal(other := rng.choice((a, a + 1)))} equal?", str(a == other)
    larger = rng.random() < 0.5
    return f"Which is {'bigger' if larger else 'smaller'}: {x} or {y}?", decimal(max(a, b) if larger else min(a, b))


def sorting(rng: Random) -> QuestionAndAnswer:
    numbers = sorted({number(rng, 3) for _ in range(rng.randint(3, 8))})
    shown, rising = rng.sample(numbers, len(numbers)), rng.random() < 0.6
    question = (
        f"{rng.choice(('Sort', 'Put'))} {', '.join(map(decimal, shown))} in {'ascending' if rising else 'descending'} order."
    )
    return question, ", ".join(map(decimal, numbers if rising else numbers[::-1]))


def closest(rng: Random) -> QuestionAndAnswer:
    """The candidates' distances differ, so there is one answer."""
    goal = number(rng, 2)
    candidates = list({abs(c - goal): c for c in (number(rng, 2) for _ in range(rng.randint(3, 6)))}.values())
    nearest = min(candidates, key=lambda c: abs(c - goal))
    return f"Which is the closest to {decimal(goal)}: {', '.join(map(decimal, candidates))}?", decimal(nearest)


def units(rng: Random) -> QuestionAndAnswer:
    measures = UNITS[rng.choice(list(UNITS))]
    big, small = sorted(rng.sample(list(measures), 2), key=lambda unit: -measures[unit])
    ratio = measures[big] // measures[small]
    if rng.random() < 0.5:
        amount = abs(number(rng, 2)) or Fraction(5)
        return f"How many {small} are there in {decimal(amount)} {big}?", decimal(amount * ratio)
    amount = Fraction(ratio * rng.randint(1, 400), rng.choice((1, 2, 4)))
    return f"Convert {decimal(amount)} {small} to {big}.", decimal(amount / ratio)


def _clock(minutes: int) -> str:
    hour, minute = divmod(minutes % 1440, 60)
    return f"{(hour - 1) % 12 + 1}:{minute:02d} {'AM' if hour < 12 else 'PM'}"


def time(rng: Random) -> QuestionAndAnswer:
    start, passed = rng.randrange(1440), rng.randint(1, 719)
    kind = rng.randrange(3)
    if kind == 0:
        return f"What is {passed} minutes after {_clock(start)}?", _clock(start + passed)
    if kind == 1:
        return f"What is {passed} minutes before {_clock(start)}?", _clock(start - passed)
    return f"How many minutes are there between {_clock(start)} and {_clock(start + passed)}?", str(passed)


def letters(rng: Random) -> QuestionAndAnswer:
    """Chance of a draw without replacement: of the ways to take so many letters, how many give these."""
    start = rng.randrange(22)
    there = Counter(rng.choices("abcdefghijklmnopqrstuvwxyz"[start : start + 4], k=rng.randint(4, 16)))
    bag = list(there.elements())
    wanted = Counter(rng.sample(bag, rng.randint(2, 3)) if rng.random() < 0.8 else rng.choices(bag, k=2))
    ways = prod(comb(there[letter], n) for letter, n in wanted.items())
    chance = Fraction(ways, comb(len(bag), wanted.total()))
    counts = ", ".join(f"{letter}: {n}" for letter, n in sorted(there.items()))
    picked = ", ".join(f"{n} {letter}" for letter, n in sorted(wanted.items()))
    question = (
        f"{wanted.total()} letters are picked without replacement from {{{counts}}}. What is the probability of picking {picked}?"
    )
    return question, str(chance)
