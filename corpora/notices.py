"""Lines on standard error that a user should see once, however often the code comes by."""

from functools import cache

from rich.console import Console


@cache
def announce(words: str) -> None:
    """Once a process: a run and each of its censuses look for the same corpus."""
    Console(stderr=True).print(words, markup=False, highlight=False, soft_wrap=True)
