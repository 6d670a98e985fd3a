"""Queues of work that lag behind the host as long as they can, and run in a random order that a seed decides.

There are no threads: whoever of the host waits does the work meanwhile, sometimes a few milliseconds later, in which other threads of
the host go on. It does what it must wait for and, now and then, what it need not. Every stream has an eagerness, which changes at
random points: one that has none works only where the host must wait for it, so that whoever reads what it makes without waiting
comes too early; one that has all of it works at once, so that it comes too early itself where it forgot to wait for another. A
schedule is the same again for the same seed wherever one thread puts all work into the queues; of several threads the operating
system decides who comes first.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

EAGERNESS = (0.0, 0.0, 0.1, 0.6, 1.0)  # that streams have: the probability that one goes on when the host puts something anywhere
CHANGE = 0.02  # the probability that a stream changes its own then
NOISE = 0.15  # the probability that something else goes one step on first, where the host waits
OTHERS_FIRST = 0.25  # the probability that all other queues go on as far as they can first
SLOWLY = 0.25  # the probability that the host waits a while before anything is done
LONGEST = 0.004  # seconds of such a while


@dataclass
class Mark:
    """A point in a queue: what came before is done once it is reached."""

    queue: "Queue"
    reached: float | None = None  # when, by the host's clock


class Queue:
    """Work in order: functions, marks to be reached, and marks of other queues that must be reached first."""

    def __init__(self, queues: "Queues") -> None:
        self.work: deque[Callable[[], Any] | Mark] = deque()
        self.queues, self.eagerness = queues, queues.random.choice(EAGERNESS)
        queues.all.append(self)

    def put(self, work: Callable[[], Any] | Mark) -> None:
        """Do it when its turn comes, which is perhaps now."""
        with self.queues.lock:
            self.work.append(work)
            self.queues.drift()

    def mark(self) -> Mark:
        """A mark behind all that is in the queue now."""
        mark = Mark(self)
        self.put(mark)
        return mark

    @property
    def blocked(self) -> Mark | None:
        """The mark of another queue that it waits for."""
        head = self.work[0] if self.work else None
        return head if isinstance(head, Mark) and head.queue is not self and head.reached is None else None

    def step(self) -> None:
        """Do what comes first."""
        head = self.work.popleft()
        if not isinstance(head, Mark):
            self.queues.did(head)
        elif head.queue is self:
            head.reached = time.perf_counter()


class Queues:
    """All queues of a device. What goes wrong in one is raised wherever the host waits from then on."""

    def __init__(self, seed: int) -> None:
        self.random, self.lock = random.Random(seed), threading.RLock()
        self.all: list[Queue] = []
        self.mistake: BaseException | None = None
        self.done = 0  # pieces of work
        self.busy = False

    def did(self, work: Callable[[], Any]) -> None:
        """Do a piece of work; after a mistake nothing is done any more."""
        self.done += 1
        if self.mistake is None:
            try:
                work()
            except Exception as mistake:
                self.mistake = mistake

    def drift(self) -> None:
        """Let every queue go on as far as it is eager to."""
        if self.busy:
            return
        self.busy = True
        try:
            with _plainly():
                for queue in self.random.sample(self.all, len(self.all)):
                    if self.random.random() < CHANGE:
                        queue.eagerness = self.random.choice(EAGERNESS)
                    while queue.work and not queue.blocked and self.random.random() < queue.eagerness:
                        queue.step()
        finally:
            self.busy = False

    def reach(self, mark: Mark) -> None:
        """Work until a mark is reached, on what it needs and a little besides.

        Raises:
            RuntimeError: some work on the device has failed.
        """
        if self.random.random() < SLOWLY and mark.reached is None:
            time.sleep(self.random.random() * LONGEST)
        with self.lock, _plainly():
            if self.random.random() < OTHERS_FIRST:
                for queue in self.random.sample(self.all, len(self.all)):
                    while queue is not mark.queue and queue.work and not queue.blocked:
                        queue.step()
            while mark.reached is None:
                queue = mark.queue
                if self.random.random() < NOISE:
                    queue = self.random.choice(self.all)
                while blocked := queue.blocked:
                    queue = blocked.queue
                if queue.work:
                    queue.step()
            self.check()

    def check(self) -> None:
        """Raise what went wrong."""
        if self.mistake is not None:
            raise RuntimeError(f"work on the device failed: {self.mistake}") from self.mistake


_TRACKED = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)


@contextmanager
def _plainly() -> Iterator[None]:
    """Without the modes of whoever waits: the work is that of whoever asked for it, and torch has checked it then."""
    with (
        _disable_current_modes(),
        torch._C._AutoDispatchBelowAutograd(),
        torch._C._ExcludeDispatchKeyGuard(_TRACKED),
    ):
        yield
