"""Where files lie: in folders of this machine, or in buckets of Google's object storage (gs://BUCKET/...), by etils.

In a bucket an object is written whole or not at all; folders need not be made, links do not exist, nothing can be
locked, and nothing appended to.
"""

import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import pathlib
import shutil
from typing import Any

import jax
from etils import epath

from scalevae_jax.core.types import InputError

Path = pathlib.Path | epath.Path
BUCKETS = "gs://"


def path(text: str | os.PathLike[str]) -> Path:
    """The path of this name. Raises InputError for a URL of another kind, or storage that can not be asked."""
    name = os.fspath(text)
    if "://" not in name:
        try:
            return pathlib.Path(name).expanduser()
        except RuntimeError as error:  # ~NOBODY
            raise InputError(f"{name}: no such user") from error
    if not name.startswith(BUCKETS):
        raise InputError(f"{name}: a folder, or {BUCKETS}BUCKET/FOLDER, is wanted")
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{name}: wants the package gcsfs: pip install 'scalevae_jax[gcs]'")
    for loud in ("gcsfs", "google.auth"):  # what matters of it is in the exception
        logging.getLogger(loud).setLevel(logging.CRITICAL)
    found = epath.Path(name)
    try:
        next(found.iterdir(), None)
    except FileNotFoundError:  # nothing yet
        pass
    except Exception as error:  # gcsfs and Google's libraries have errors of their own
        raise InputError(f"{name}: can not be read: {first_line(error)}") from error
    return found


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def remote(path: Path) -> bool:
    """Whether it is in a bucket."""
    return not isinstance(path, pathlib.Path)


def absolute(path: Path) -> Path:
    """From the root on, as a URL is already."""
    return path if remote(path) else path.absolute()


def open_bytes(path: Path) -> io.BufferedReader:
    """To read from."""
    file: Any = path.open("rb")
    return io.BufferedReader(file) if remote(path) else file  # gcsfs has no `readline` of so many bytes


def size(path: Path) -> int:
    """Bytes of a file."""
    about: Any = path.stat()
    return about.length if remote(path) else about.st_size


def size_below(folder: Path) -> int:
    """Bytes of all files of a folder and of those in it."""
    if isinstance(folder, pathlib.Path):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(size(path) if path.is_file() else size_below(path) for path in folder.iterdir())


def read_text(path: Path, limit: int = 2**24) -> str:
    """A file of text that may come from a stranger. Raises ValueError past `limit` bytes."""
    if size(path) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return path.read_text(encoding="utf-8")


def read_json(path: Path, limit: int = 2**24) -> dict[str, Any]:
    """A JSON object; nothing in the file is executed. Raises InputError that names the file."""
    try:
        tree = json.loads(read_text(path, limit))
        if not isinstance(tree, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error})") from error
    return tree


def write(path: Path, text: str) -> None:
    """The file holds this text, whole, or what it held before. Raises OSError."""
    if isinstance(path, pathlib.Path):
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
        return
    try:
        path.write_bytes(text.encode())
    except OSError:
        raise
    except Exception as error:  # gcsfs and Google's libraries have errors of their own
        raise OSError(f"{path}: {first_line(error)}") from error


def move(folder: Path, to: Path) -> None:
    """A folder gets another name, in place of what has that name."""
    if isinstance(folder, pathlib.Path):
        shutil.rmtree(to, ignore_errors=True)
        to.parent.mkdir(exist_ok=True)
        folder.rename(to)
        return
    _copy(folder, to)
    folder.rmtree()


def _copy(folder: epath.Path, to: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
        else:
            _copy(path, to / path.name)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all; of several processes the first one writes."""
    if jax.process_index() == 0:
        write(path, text)


def write_json(path: Path, tree: Any) -> None:
    """Whole or not at all."""
    write_text(path, json.dumps(tree, indent=2) + "\n")
