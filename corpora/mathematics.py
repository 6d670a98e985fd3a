"""text -> documents: generated school mathematics, question and answer lines in the manner of DM Mathematics.

Saxton et al., 2019, "Analysing Mathematical Reasoning Abilities of Neural Models". The questions are in arithmetic.py,
algebra.py and everyday.py.
"""

from collections.abc import Callable, Iterator
from random import Random

from corpora import algebra, arithmetic, everyday
from corpora.document import Document

KINDS: tuple[Callable[[Random], tuple[str, str]], ...] = (
    arithmetic.arithmetic,
    arithmetic.mixed_arithmetic,
    arithmetic.common_divisor,
    arithmetic.common_multiple,
    arithmetic.remainder,
    arithmetic.primes,
    arithmetic.base_conversion,
    arithmetic.place_value,
    arithmetic.rounding,
    algebra.linear_equation,
    algebra.linear_system,
    algebra.next_term,
    algebra.evaluation,
    algebra.derivative,
    algebra.collecting_terms,
    algebra.expanding,
    everyday.comparison,
    everyday.sorting,
    everyday.closest,
    everyday.units,
    everyday.time,
    everyday.letters,
)
BYTES = 10_000_000  # written where nobody says how much


def mathematics(seed: int, n_bytes: int | None) -> Iterator[Document]:
    """Sheets until `n_bytes` (ASCII) are written; sheet i is a pure function of (seed, i)."""
    number, written = 0, 0
    while written < (n_bytes or BYTES):
        document = Document("mathematics", f"sheet-{number:06d}", sheet(Random(f"{seed}/{number}")))
        written += len(document.text)
        number += 1
        yield document


def sheet(rng: Random) -> str:
    """Lines `question`, `answer`, `question`, ..., 2 to 8 kB, of one to four kinds."""
    kinds = rng.sample(KINDS, rng.choice((1, 1, 2, 4)))
    length = rng.randint(2000, 8000)
    lines: list[str] = []
    written = 0
    while written < length:
        question, answer = rng.choice(kinds)(rng)
        lines += (question, answer)
        written += len(question) + len(answer) + 2
    return "\n".join(lines) + "\n"
