"""One training process a workdir: a lock with the holder's process id and host, which dies with its holder."""

import fcntl
import os
import socket
import threading
import time
from pathlib import Path
from typing import TextIO

from scalevae_jax.core.types import InputError

LOCK = "lock"
BEAT = 60.0  # seconds between signs of life, which another host goes by
SILENCE = 10 * BEAT  # after which a holder on another host counts as gone


class Lock:
    """Held while the `with` block runs. The system gives it back when the process ends in whatever way, so that what a
    killed process left is no obstacle; a file system without locks across hosts shows signs of life instead.

    Raises InputError where another process holds it.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / LOCK
        self._ended = threading.Event()

    def __enter__(self) -> "Lock":
        self._file = self._take()
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} {socket.gethostname()}\n")
        self._file.flush()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _take(self) -> TextIO:
        while True:
            file = self._path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._held(file, "wait for it, stop it, or choose another --workdir") from None
            if not self._path.exists() or os.fstat(file.fileno()).st_ino != self._path.stat().st_ino:
                file.close()  # its last holder took it away in between
                continue
            file.seek(0)
            _, _, host = file.read(1000).strip().partition(" ")
            silent = time.time() - os.fstat(file.fileno()).st_mtime
            if host and host != socket.gethostname() and silent < SILENCE:
                raise self._held(file, f"if it is gone, delete {self._path}, or wait {SILENCE - silent:.0f} s")
            return file

    def _held(self, file: TextIO, remedy: str) -> InputError:
        file.seek(0)
        process, _, host = file.read(1000).strip().partition(" ")
        file.close()
        return InputError(f"{self._path.parent}: process {process} on {host} is training here; {remedy}")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            os.utime(self._file.fileno())

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._path.unlink(missing_ok=True)
        self._file.close()
