"""Ctrl-C and SIGTERM: a run is left at once, but a training step ends first."""

import atexit
import multiprocessing.util  # its own atexit must be there before ours, which then comes first
import os
import select
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

from thaw.errors import Interrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """What asked this process to stop, and whether it may be left now."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the first signal that came
        self.in_epoch = False  # then it waits for the step's end; a second one does not
        self.since = 0.0

    def handle(self) -> None:
        """Takes the signals over, which only the main thread of a process may."""
        self.asked, self.in_epoch = None, False
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._leave_closed_pipes()
        if self.asked is None:
            self.asked, self.since = number, time.monotonic()
            if self.in_epoch:
                name = signal.Signals(number).name
                text = f"\n{name}: saving a checkpoint, then stopping; once more stops at once\n"
                with suppress(OSError):  # who reads it may end in this moment
                    os.write(2, text.encode())  # `print` fails where it interrupts another `print`
                return
        elif time.monotonic() - self.since < 1:
            return  # `timeout` and some terminals send a signal twice
        raise Interrupted(number)

    def _leave_closed_pipes(self) -> None:
        """After `python train.py | tee FILE`, Ctrl-C ended tee too: a print would be an error."""
        poll = select.poll()
        for descriptor in (1, 2):
            poll.register(descriptor, 0)
        for descriptor, _ in poll.poll(0):  # only of those that nobody reads
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)

    def check(self, after: float = 0.0) -> None:
        """Raises Interrupted if a signal came, at least so many seconds ago."""
        if self.asked is not None and time.monotonic() - self.since >= after:
            raise Interrupted(self.asked)


signals = Signals()  # a process has one set of handlers


def ignore_signals(worker: int = 0) -> None:
    """For what ends already, and for a DataLoader's worker, which its parent ends.

    Else a signal to a whole group of processes, as systemd sends it, would end the workers first.
    """
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """multiprocessing would ask them by a SIGTERM, and wait for ever for one that ignores it."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
