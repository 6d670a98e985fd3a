"""Work that may be done beside the program, one piece after another."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Beside:
    """A thread that works on one piece at a time; without one, each piece is done at once. What goes wrong is raised here."""

    def __init__(self, thread: bool) -> None:
        self.thread = ThreadPoolExecutor(1) if thread else None
        self.pending: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin this piece, after the one before is done."""
        if self.thread is None:
            work()
        else:
            self.wait()
            self.pending = self.thread.submit(work)

    def wait(self) -> None:
        """Until nothing is in work."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type[BaseException] | None, mistake: BaseException | None, trace: TracebackType | None) -> None:
        """Finish what is in work, also where the program ends in a mistake."""
        if self.thread is not None:
            self.thread.shutdown()
        if kind is None:
            self.wait()
