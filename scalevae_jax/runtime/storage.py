"""Where files lie: in folders of this machine, or in buckets of Google's object storage (gs://BUCKET/...), by etils.

A bucket writes an object whole or not at all. Its folders need not be made, its files can be neither locked nor
appended to, and it has no links.
"""

import contextlib
import errno
import importlib.util
import json
import logging
import os
import pathlib
from collections.abc import Generator
from typing import Any

import jax
from etils import epath

from scalevae_jax.core.types import InputError

Path = pathlib.Path | epath.Path
BUCKETS = "gs://"


def path(text: str | os.PathLike[str]) -> Path:
    """The path of this name. Raises InputError for a URL of another kind, or a bucket that cannot be read."""
    name = os.fspath(text)
    if "://" not in name:
        try:
            return pathlib.Path(name).expanduser()
        except RuntimeError as error:  # ~NOBODY
            raise InputError(f"{name}: no such user") from error
    if not name.startswith(BUCKETS):
        raise InputError(f"{name}: expected a folder, or {BUCKETS}BUCKET/FOLDER")
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{name}: the package gcsfs is missing: pip install 'scalevae_jax[gcs]'")
    for loud in ("gcsfs", "google.auth"):  # they log, with a traceback, what their exceptions say too
        logging.getLogger(loud).setLevel(logging.CRITICAL)
    remote = epath.Path(name)
    try:
        next(remote.iterdir(), None)
    except FileNotFoundError:  # an empty bucket, or a folder to be written
        pass
    except Exception as error:  # gcsfs and Google's libraries have errors of their own
        raise InputError(f"{name}: cannot be read: {first_line(error)}") from error
    return remote


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_remote(path: Path) -> bool:
    """Whether the path lies in a bucket."""
    return not isinstance(path, pathlib.Path)


def read_text(path: Path, limit: int = 2**24) -> str:
    """A file of text that may come from a stranger. Raises ValueError past `limit` bytes."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return content.decode("utf-8")


def read_json(path: Path, limit: int = 2**24) -> dict[str, Any]:
    """A JSON object; nothing in the file is executed. Raises InputError that names the file."""
    try:
        tree = json.loads(read_text(path, limit))
        if not isinstance(tree, dict):
            raise ValueError("expected a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return tree


@contextlib.contextmanager
def writing(place: object) -> Generator[None]:
    """Around what writes: a failure of the disk raises InputError that names the place."""
    try:
        yield
    except BrokenPipeError:  # of standard output, which has nothing to do with the place
        raise
    except OSError as error:
        raise InputError(f"{place}: cannot be written: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """The file then holds this text, whole, or what it held before. Raises OSError."""
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
        raise OSError(errno.EIO, first_line(error), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; of several processes the main one writes."""
    if jax.process_index() == 0:
        write(path, text)


def write_json(path: Path, tree: Any) -> None:
    """Write a JSON file, whole or not at all; of several processes the main one writes."""
    write_text(path, json.dumps(tree, indent=2) + "\n")
