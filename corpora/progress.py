"""documents -> tokens: how far a preparation is. A bar where somebody watches, one closing line everywhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from corpora.document import Document


class Progress:
    """Counts documents and megabytes (10^6 UTF-8 bytes) on standard error."""

    def __init__(self, name: str) -> None:
        self.name, self.documents, self.n_bytes, self.start = name, 0, 0, time.monotonic()
        self.console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.task = self.bar.add_task(f"{name}: reading text")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, mistake: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def say(self, what: str) -> None:
        """What is being done now."""
        self.bar.update(self.task, description=f"{self.name}: {what}")

    def add(self, batch: list[Document]) -> None:
        """So many documents more are tokenised."""
        self.documents += len(batch)
        self.n_bytes += sum(len(document.text.encode()) for document in batch)
        rate = self.n_bytes / 1e6 / max(time.monotonic() - self.start, 1e-3)
        self.say(f"{self.documents:,} documents, {self.n_bytes / 1e6:,.1f} MB, {rate:.1f} MB/s")

    def close(self, n_tokens: int) -> None:
        """The closing line."""
        self.bar.stop()
        seconds = time.monotonic() - self.start
        said = f"{self.documents:,} documents, {self.n_bytes / 1e6:,.1f} MB, {n_tokens:,} tokens in {seconds:.0f} s"
        self.console.print(f"corpus {self.name}: {said}", highlight=False, soft_wrap=True)
