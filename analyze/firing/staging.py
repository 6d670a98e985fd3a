"""Firing bits of a device -> the bit matrix in main memory, while the device computes on."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from device import Device, Event

BUFFERS = 2
Write = Callable[[UInt8[np.ndarray, "token byte"]], None]


class Staging:
    """Two buffers on the device, two pinned ones, a stream and a thread: micro-batch after micro-batch goes through them in order.

    The stream that computes fills a buffer on the device when its last bits have left it; a stream beside copies it into a pinned
    one, which the thread has emptied; the thread waits until the copy is done and hands the rows on. Bits that
    stay on the device need no buffer there: they leave from the rows of their matrix.
    """

    def __init__(self, device: Device, rows: int, width: int) -> None:
        self.device, self.side = device, device.stream()
        self.pinned = [device.pinned(rows * width).view(rows, width) for _ in range(BUFFERS)]
        self.buffers = [device.empty(rows, width, dtype=torch.uint8) for _ in range(BUFFERS)]
        self.left: list[Event | None] = [None] * BUFFERS  # when the bits in a device's buffer were copied out of it
        self.emptied = [threading.Semaphore(1) for _ in range(BUFFERS)]
        self.sent: SimpleQueue[tuple[int, int, Event, Write] | None] = SimpleQueue()
        self.mistake: BaseException | None = None
        self.number = 0
        self.thread = threading.Thread(target=self._hand_on, daemon=True)
        self.thread.start()

    def buffer(self, rows: int) -> UInt8[Tensor, "token byte"]:
        """Where the stream that computes puts the bits of the next micro-batch, of so many rows."""
        slot = self.number % BUFFERS
        if (left := self.left[slot]) is not None:
            self.device.computing.wait(left)
        return self.buffers[slot][:rows]

    def send(self, bits: UInt8[Tensor, "token byte"], write: Write) -> None:
        """Copy the bits that the stream that computes has put into `bits`; `write` gets them, in the order of sending, in the thread."""
        slot, rows = self.number % BUFFERS, len(bits)
        self.emptied[slot].acquire()
        self._raise()
        self.side.wait(self.device.computing.record())
        self.side.copy(bits, self.pinned[slot][:rows])
        self.left[slot] = left = self.side.record()
        self.sent.put((slot, rows, left, write))
        self.number += 1

    def finish(self) -> None:
        """All bits that were sent have been written.

        Raises:
            BaseException: what went wrong in the thread.
        """
        for emptied in self.emptied:
            emptied.acquire()
        for emptied in self.emptied:
            emptied.release()
        self._raise()

    def close(self) -> None:
        """End the thread, and wait for the copies in work: their buffers may be used for something else then."""
        self.sent.put(None)
        self.thread.join()
        self.side.synchronize()

    def _raise(self) -> None:
        if self.mistake is not None:
            raise self.mistake

    def _hand_on(self) -> None:
        while (sent := self.sent.get()) is not None:
            slot, rows, left, write = sent
            try:
                if self.mistake is None:
                    left.synchronize()
                    write(self.pinned[slot][:rows].numpy())
            except BaseException as mistake:  # it is raised where the next bits are sent, or all are waited for
                self.mistake = mistake
            finally:
                self.emptied[slot].release()
