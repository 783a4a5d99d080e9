"""Signs of life between the processes of a run, in the key-value store of JAX's runtime, which process 0 holds.

JAX ends all processes by an abort, with a stack, where one of them has gone. What is here is sooner, and says why.
Process 0 looks at all others and tells them; they look at process 0.
"""

import contextlib
import json
import math
import threading
from collections.abc import Callable
from typing import Any

ALIVE = "scalevae_jax/alive/"
Leave = Callable[[int, str], None]  # by exit code and message


class Watch:
    """Calls `leave` once another process has given no sign of life for `limit` seconds, or says why it has ended."""

    def __init__(self, client: Any, me: int, count: int, limit: float, leave: Leave):
        self._client, self._me, self._limit, self._leave = client, me, limit, leave
        self._every = min(1.0, limit / 10)
        self._last_words: str | None = None
        others = range(1, count) if me == 0 else [0]
        self._heard: dict[int, tuple[str, int]] = dict.fromkeys(others, ("", 0))  # said last, and rounds since
        self._stopped = threading.Event()
        self._talking = threading.Thread(target=self._talk, daemon=True)
        self._talking.start()
        threading.Thread(target=self._count, daemon=True).start()

    def tell(self, code: int, why: str) -> None:
        """The last words of this process, for all others."""
        self._last_words = json.dumps({"code": code, "why": why})
        with contextlib.suppress(RuntimeError):  # where process 0 has gone
            self._client.key_value_set(f"{ALIVE}{self._me}", self._last_words, True)

    def stop(self) -> None:
        """Of a run that has ended well; before the interpreter does, which must find no thread inside JAX's client."""
        self._stopped.set()
        self._talking.join(10)

    def _talk(self) -> None:
        beat = 0
        while not self._stopped.wait(self._every):
            beat += 1
            with contextlib.suppress(RuntimeError):  # process 0 does not answer: nothing is heard
                self._client.key_value_set(f"{ALIVE}{self._me}", self._last_words or str(beat), True)
                if self._me:
                    self._hear(0, self._client.key_value_try_get(f"{ALIVE}0"))
                else:
                    for key, said in self._client.key_value_dir_get(ALIVE):
                        self._hear(int(key.rpartition("/")[2]), said)

    def _hear(self, process: int, said: str) -> None:
        if process in self._heard and said != self._heard[process][0]:
            self._heard[process] = (said, 0)
            if said.startswith("{"):
                words = json.loads(said)
                self._end(words["code"], words["why"])

    def _count(self) -> None:
        """In a thread of its own, since a call to process 0 may hang. Rounds are counted, not seconds: where this
        process was held up itself, nobody else is to blame."""
        rounds = math.ceil(self._limit / self._every)
        while not self._stopped.wait(self._every):
            for process, (said, silent) in self._heard.items():
                self._heard[process] = (said, silent + 1)
                if silent >= rounds:
                    self._end(3, f"process {process} has given no sign of life for {self._limit:g} s")

    def _end(self, code: int, why: str) -> None:
        if not self._stopped.is_set():
            if self._me == 0:
                self.tell(code, why)
            self._leave(code, why)
