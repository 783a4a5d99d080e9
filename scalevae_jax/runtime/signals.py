"""SIGINT and SIGTERM, caught so that a run can save before it ends."""

import contextlib
import os
import signal
from collections.abc import Generator

import jax


class Stopped(Exception):  # noqa: N818 (no error)
    """The run was stopped by a signal; the message says what became of it."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number


class Interrupted(Exception):  # noqa: N818 (no error)
    """A signal came while `Signals.at_once` was on."""


class Signals:
    """Catches the first SIGINT or SIGTERM for the loop to see; a second one ends the process at once, by the system.

    Of several processes none catches SIGTERM: JAX's own service does, for all of them (`Checkpoints.preempted`), and a
    first SIGINT becomes one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False

    def __enter__(self) -> "Signals":
        one = jax.process_count() == 1
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle} if one else {signal.SIGINT: self._to_all}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        self.received = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if self._at_once:
            self._at_once = False
            raise Interrupted

    def _to_all(self, number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Generator[None, None, None]:
        """Work that may be broken off: raises Interrupted when a signal comes, or has come."""
        self._at_once = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False
