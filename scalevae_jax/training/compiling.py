"""What the training steps compile: ahead in threads where it is known, and how long the run waits for it."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import jax


class Compiling:
    """Counts the seconds that this thread spends tracing, lowering, compiling, or waiting for others that do, while it
    is open, and names each of the `programs` as it comes."""

    def __init__(self, programs: int):
        self._programs, self._named, self._seconds = programs, set[tuple[int, int]](), 0.0
        self._ahead: dict[int, Future[Any]] = {}
        self._thread, self._tracing = threading.get_ident(), threading.Lock()
        # One core stays with the step that is needed first, and then with those that train.
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1))

    def __enter__(self) -> "Compiling":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(cancel_futures=True)
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: int | float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/") and threading.get_ident() == self._thread:
            self._seconds += duration_secs

    def seconds(self) -> float:
        """The seconds since this was last called."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def start(self, step: Any, state: Any, batches: Mapping[int, Any]) -> None:
        """Begin to compile a mapped step for a batch of each number of padded tokens, the first to come first."""
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)

        def compile_one(batch: Any) -> None:
            with self._tracing:  # two threads that trace one function at once would each keep their own
                lowered = step.lower(like, batch)
            lowered.compile()  # JAX keeps it with what it has lowered, where the call of the step finds it

        self._ahead = {tokens: self._pool.submit(compile_one, batch) for tokens, batch in batches.items()}

    def announce(self, tokens: int, together: int, show: Callable[[str], None]) -> bool:
        """Show what compiles now, if no dispatch of so many steps together, of so many padded tokens, came before.
        What is compiled ahead is waited for. Returns whether something was shown."""
        if (tokens, together) in self._named:
            return False
        self._named.add((tokens, together))
        if tokens not in self._ahead:
            steps = "a step" if together == 1 else f"{together} steps"
            show(f"compiling {len(self._named)} of {self._programs}: {steps} of {tokens} tokens")
            return True
        began, this, shown = time.monotonic(), self._ahead[tokens], False
        while this in (left := [future for future in self._ahead.values() if not future.done()]):
            show(f"compiling {self._programs - len(left) + 1} of {self._programs}")
            wait(left, return_when=FIRST_COMPLETED)
            shown = True
        self._seconds += time.monotonic() - began
        this.result()
        return shown
