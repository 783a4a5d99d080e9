"""Where the text of a corpus lies, and what it is recognised by."""

import hashlib
import importlib.metadata
from importlib import resources
from typing import NamedTuple

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files as data_files
from scalevae_jax.data.config import Data
from scalevae_jax.data.files import KINDS
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

SPLITS: tuple[str, ...] = ("train", "valid", "test")
EMBEDDED = "package:"
SYNTHETIC = "package:synthetic"


class Source(NamedTuple):
    """The files of the splits; without files the corpus is downloaded or drawn."""

    name: str
    place: Path
    files: dict[str, Path]
    field: str = "text"
    raw: bool = False
    seed: int | None = None  # where one file is cut into the splits

    def digest(self) -> str:
        """sha256 of the files' bytes and of all that decides how they are read. Raises InputError."""
        of = hashlib.sha256(repr((self.field, self.raw and _tokeniser(), self.seed)).encode())
        for split, path in self.files.items():
            of.update(f"{split} {data_files.kind(path)}".encode())
            try:
                with storage.open_bytes(path) as file:
                    of.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InputError(f"{path}: can not be read: {error}") from error
        return of.hexdigest()


def _tokeniser() -> str:
    return f"nltk {importlib.metadata.version('nltk')}, <unk> whole"


def place(data: Data) -> Path:
    """Where the corpus lies; `package:NAME` is one that comes with the package. Raises InputError for another name."""
    if not data.path.startswith(EMBEDDED):
        return storage.path(data.path or f"data/{data.name}")
    name = data.path.removeprefix(EMBEDDED)
    folder = storage.path(str(resources.files("scalevae_jax.data") / name))
    if data.path != SYNTHETIC and not (name.isidentifier() and folder.is_dir()):
        raise InputError(
            f"{data.path}: no corpus of the package; there are {EMBEDDED}snli, {EMBEDDED}tiny, {SYNTHETIC}"
        )
    return folder


def find(data: Data) -> Source:
    """The source that the configuration means. Raises InputError with the place to put the files."""
    if data.path == SYNTHETIC:
        return Source("synthetic", storage.path(SYNTHETIC), {})
    if not data.path and data.name == "text":
        raise InputError("no text is given: --config.data.path=FILE_OR_FOLDER (--path of scalevae_jax.data)")
    where = place(data)
    try:
        if where.is_file():
            data_files.kind(where)
            return Source(data.name, where, dict.fromkeys(SPLITS, where), data.field, data.raw, data.split_seed)
        if not data.path and not where.is_dir():
            return Source(data.name, where, {})
        files = {split: path for split in SPLITS if (path := in_folder(where, split))}
    except OSError as error:
        raise InputError(f"{where}: can not be read: {error}") from error
    if not files:
        raise InputError(missing(where, "train"))
    return Source(data.name, where, files, data.field, data.raw)


def missing(where: Path, split: str) -> str:
    """What to say where a split is not there."""
    wanted = ", ".join(f"{name}.txt" for name in SPLITS)
    lacking = f"no {split}.txt or {split}.txt.gz in" if where.is_dir() else "no such file or folder:"
    return (
        f"{lacking} {storage.absolute(where)}: put {wanted} there (or .txt.gz, .tsv, .jsonl) "
        "with one sentence a line, or give another folder, or one file to be split, with --config.data.path=PATH"
    )


def in_folder(where: Path, split: str) -> Path | None:
    """The split's file: train.txt before train.txt.gz, .tsv and .jsonl, and these before NAME.train.txt."""
    endings = [f"{kind}{gz}" for kind in KINDS for gz in ("", ".gz")]
    for prefix in ("", "*."):
        for ending in endings:
            candidates = sorted(where.glob(f"{prefix}{split}{ending}"))
            if len(candidates) > 1:
                raise InputError(f"{where}: which is the {split} split: {', '.join(path.name for path in candidates)}?")
            if candidates:
                return candidates[0]
    return None
