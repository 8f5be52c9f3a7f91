"""Ctrl-C and SIGTERM end a run after the current step, so that its state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def catch_stop_signals() -> Iterator[threading.Event]:
    """Set the event on the first SIGINT or SIGTERM, which schedulers send; a second one has its usual effect."""
    caught, stop_requested = (signal.SIGINT, signal.SIGTERM), threading.Event()

    def ask(*_: object) -> None:
        stop_requested.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # where signals never arrive
        yield stop_requested
        return
    before = [signal.signal(number, ask) for number in caught]
    try:
        yield stop_requested
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)
