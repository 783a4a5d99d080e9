"""What the training steps compile, and how long it takes."""

from typing import Any

import jax


class Compiling:
    """Counts the seconds spent tracing, lowering and compiling while it is open, and names each new program."""

    def __init__(self, programs: int):
        self._programs, self._named, self._seconds = programs, set[tuple[int, int]](), 0.0

    def __enter__(self) -> "Compiling":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self._seconds += duration_secs

    def seconds(self) -> float:
        """The seconds since this was last called."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def announce(self, tokens: int, together: int) -> str | None:
        """What compiles now, if no dispatch of so many steps together, of so many padded tokens, came before."""
        if (tokens, together) in self._named:
            return None
        self._named.add((tokens, together))
        steps = "a step" if together == 1 else f"{together} steps"
        return f"compiling {len(self._named)} of {self._programs}: {steps} of {tokens} tokens"
