"""The folder of a run: its files, what they belong to, and the lock that keeps a second process out."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import socket
import subprocess
import threading
import time
from typing import Any, TextIO

import jax

import scalevae_jax
from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError
from scalevae_jax.data import tokenizer
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.runtime import console, processes, storage
from scalevae_jax.runtime.command import LARGEST
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training.checkpoint import FOLDER, Checkpoints
from scalevae_jax.training.log import METRICS

CONFIG, RUN, LOCK = "config.json", "run.json", "lock"
WEIGHTS = "model.safetensors"  # of an exported model
PATTERN = "*?["  # what a glob reads as a pattern
HEARTBEAT = 60.0  # seconds
SILENCE = 10 * HEARTBEAT  # after which a process on another host counts as dead


def provenance() -> dict[str, Any]:
    """Versions of what the numbers depend on, the git commit if there is one, and the devices."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.devices()[0]
    return {
        "versions": {"scalevae_jax": scalevae_jax.__version__}
        | {name: importlib.metadata.version(name) for name in names},
        "git": _commit(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }


def _commit() -> str | None:
    checkout = pathlib.Path(scalevae_jax.__file__).parents[1]
    if not (checkout / ".git").exists():  # an installed package; a repository further up is not its own
        return None
    try:
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        git = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # git is missing or refuses
        return None
    return git.stdout.strip()


def read_record(workdir: Path) -> dict[str, Any]:
    """run.json: versions, git commit, device and command of the run's first start, digests of its corpus."""
    path = workdir / RUN
    record = storage.read_json(path)
    steps = record.get("steps_per_epoch")
    if type(steps) is not int or not 0 < steps <= LARGEST or type(record.get("data")) is not dict:
        raise InputError(f"{path}: not a readable record of a run (steps_per_epoch or data is out of range)")
    return record


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved a state there."""
    folder = workdir / FOLDER
    return (workdir / CONFIG).exists() and folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def check(workdir: Path) -> None:
    """Raises InputError if a run cannot keep its checkpoints there, or would overwrite what no run wrote."""
    place = str(workdir if storage.is_remote(workdir) else workdir.resolve())
    if wrong := [character for character in PATTERN if character in place]:
        raise InputError(
            f"--workdir {workdir}: {place} contains {' '.join(wrong)}, which orbax, the library that writes "
            "checkpoints, takes for a pattern; choose a path without them"
        )
    if (workdir / WEIGHTS).exists():
        raise InputError(f"{workdir}: holds {WEIGHTS}, an exported model; choose another --workdir")
    if (workdir / RUN).exists():
        read_record(workdir)  # which names the file if it is another program's
        return
    for name in (CONFIG, *tokenizer.FILES.values(), METRICS, FOLDER):
        if (workdir / name).exists():
            raise InputError(f"{workdir}: holds {name}, but no {RUN}: it is no run's folder; choose another --workdir")


def checkpoints(workdir: Path, settings: Config, words: Vocabulary, writing: bool = False) -> Checkpoints:
    """The checkpoints of a run, which belong to its method and vocabulary."""
    digest = hashlib.blake2b("\n".join(words.words).encode(), digest_size=16).hexdigest()
    about = {"method": settings.method.name, "vocabulary": f"{len(words)} words with digest {digest}"}
    return Checkpoints(workdir, about, writing)


def lock(workdir: Path) -> contextlib.AbstractContextManager[Any]:
    """Keeps every other run out of the folder. The main process holds it for all; a bucket has no locks."""
    if not processes.is_main_process():
        return contextlib.nullcontext()
    if isinstance(workdir, pathlib.Path):
        return Lock(workdir)
    console.warn(f"{workdir}: nothing can be locked in a bucket; make sure that no other run uses this --workdir")
    return contextlib.nullcontext()


class Lock:
    """A locked file with the holder's process id and host. The system unlocks it however the process ends.

    Where hosts do not see each other's locks, they see the file's time, which its holder sets every minute. Raises
    InputError if another process holds it.
    """

    def __init__(self, workdir: pathlib.Path):
        self._path = workdir / LOCK
        self._ended = threading.Event()

    def __enter__(self) -> "Lock":
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse("wait for it, stop it, or choose another --workdir")
        if os.fstat(self._file.fileno()).st_nlink == 0:  # its last holder deleted it after it was opened here
            self._file.close()
            return self.__enter__()
        silent = time.time() - os.fstat(self._file.fileno()).st_mtime
        if self._holder()[1] not in ("", socket.gethostname()) and silent < SILENCE:
            self._refuse(f"if it is gone, delete {self._path}, or wait {SILENCE - silent:.0f} s")
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} {socket.gethostname()}\n")
        self._file.flush()
        threading.Thread(target=self._beat, args=(self._file,), daemon=True).start()
        return self

    def _holder(self) -> tuple[str, str]:
        self._file.seek(0)
        process, _, host = self._file.read(1000).strip().partition(" ")
        return process, host

    def _refuse(self, remedy: str) -> None:
        process, host = self._holder()
        self._file.close()
        raise InputError(f"{self._path.parent}: process {process} on {host} is training here; {remedy}")

    def _beat(self, file: TextIO) -> None:
        while not self._ended.wait(HEARTBEAT):
            os.utime(file.fileno())

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._path.unlink(missing_ok=True)
        self._file.close()
