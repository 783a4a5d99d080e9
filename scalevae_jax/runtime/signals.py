"""SIGINT and SIGTERM, caught so that a run can save before it ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import jax

from scalevae_jax.runtime import console


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal stopped the run; the message says in what state."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number


class Interrupted(Exception):  # noqa: N818 (no error)
    """A signal came while `Signals.at_once` was on."""


class Signals:
    """Catches the first SIGINT or SIGTERM, which the loop reads as `received`; a second one ends the process at once.

    None of several processes catches SIGTERM: JAX's service does, and makes all of them stop at the same step
    (`Checkpoints.preempted`). A first SIGINT becomes a SIGTERM.

    With an `answer`, a thread prints it as soon as a signal comes. The handler itself waits for the end of whatever
    the interpreter has called, which may be a compilation of minutes; so does a second signal, unless there is an
    answer.
    """

    def __init__(self, answer: str = "") -> None:
        self.received: int | None = None
        self._at_once = False
        self._answer = answer

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():  # Python admits handlers in the main one alone
            self._previous, self._answer = {}, ""
            return self
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
        if jax.process_count() > 1:
            handlers = {signal.SIGINT: self._send_sigterm}
        self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        if self._answer:
            reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._listen, args=(reading,), daemon=True)
            self._thread.start()
        return self

    def _listen(self, reading: int) -> None:
        """Read the number of each signal that comes, until the pipe is closed."""
        with open(reading, "rb", buffering=0) as pipe:
            answered = False
            while number := int.from_bytes(pipe.read(1)):
                if number not in self._previous:
                    continue
                if answered:  # the first one's handler has not run yet, or this one would have ended the process
                    os._exit(128 + number)
                answered = True
                with contextlib.suppress(OSError):  # nobody reads the output
                    console.log(f"{signal.Signals(number).name}: {self._answer}")

    def __exit__(self, *_: object) -> None:
        if self._answer:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writing)
            self._thread.join()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        self.received = number
        for caught in self._previous:
            signal.signal(caught, signal.SIG_DFL)
        if self._at_once:
            self._at_once = False
            raise Interrupted

    def _send_sigterm(self, number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Generator[None, None, None]:
        """Around work that may be given up: a signal in it, or before it, raises Interrupted."""
        self._at_once = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False
