"""documents -> tokens: how far a preparation is. A bar where somebody watches, a line at the beginning and the end everywhere."""

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from corpora.cost_estimate import Estimate
from corpora.document import Document

WORTH_SAYING = 20.0  # seconds; what takes less is done before it is read


class Progress:
    """Counts documents, megabytes (10^6 UTF-8 bytes) and tokens on standard error."""

    def __init__(self, name: str) -> None:
        self.name, self.documents, self.n_bytes, self.tokens = name, 0, 0, 0
        self.start = time.monotonic()
        self.console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.task = self.bar.add_task(f"{name}: reading text", total=None)

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, mistake: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def say(self, what: str) -> None:
        """What is being done now."""
        self.bar.update(self.task, description=f"{self.name}: {what}")

    def announce(self, what: str) -> None:
        """A line that stays."""
        self.console.print(f"corpus {self.name}: {what}", highlight=False, markup=False, soft_wrap=True)

    def expect(self, needs: Estimate, done_bytes: int, where: Path, free: int) -> None:
        """What will be needed, before it is; `done_bytes` of the text are done already."""
        self.bar.update(self.task, total=max(needs.text_bytes - done_bytes, 1))
        self.start = time.monotonic()
        left = max(1 - done_bytes / needs.text_bytes, 0)
        if needs.seconds < WORTH_SAYING:
            return
        self.announce(
            f"about {needs.text_bytes / 1e9:.2f} GB of text, {needs.tokens:,} tokens; needs {needs.disk_bytes / 1e9:.2f} GB "
            f"in {where} ({free / 1e9:.1f} GB free) and {duration(needs.seconds * left)} "
            f"({needs.tokens_per_second:,.0f} tokens/s by each of {needs.workers} processes)"
        )

    def add(self, batch: list[Document], tokens: int) -> None:
        """So many documents more are tokenised."""
        self.documents += len(batch)
        self.tokens += tokens
        self.n_bytes += (n_bytes := sum(document.n_bytes for document in batch))
        seconds = max(time.monotonic() - self.start, 1e-3)
        rates = f"{self.n_bytes / 1e6 / seconds:.1f} MB/s, {self.tokens / seconds:,.0f} tokens/s"
        self.bar.update(self.task, advance=n_bytes)
        self.say(f"{self.documents:,} documents, {self.n_bytes / 1e6:,.1f} MB, {rates}")

    def close(self, n_documents: int, n_bytes: int, n_tokens: int) -> None:
        """The closing line, on the whole corpus."""
        self.bar.stop()
        seconds = max(time.monotonic() - self.start, 1e-3)
        self.announce(
            f"{n_documents:,} documents, {n_bytes / 1e6:,.1f} MB, {n_tokens:,} tokens in {seconds:.0f} s "
            f"({self.tokens / seconds:,.0f} tokens/s)"
        )


def duration(seconds: float) -> str:
    """A time as people say it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
