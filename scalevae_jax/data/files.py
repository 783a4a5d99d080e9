"""Where the text of a corpus lies: one file for each split, or one file that is divided."""

import difflib
import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

from scalevae_jax.core.types import InputError
from scalevae_jax.data.config import LABEL, TEXT, Data
from scalevae_jax.data.lines import KINDS, Line, kind, open_bytes, read_lines
from scalevae_jax.data.vocab import tokenize
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

SPLITS: tuple[str, ...] = ("train", "valid", "test")
PACKAGE = "package:"
SYNTHETIC = f"{PACKAGE}synthetic"


class Source(NamedTuple):
    """The files of a corpus and how to read them; the synthetic corpus has none."""

    place: Path
    files: dict[str, Path]
    columns: tuple[str, str] = (TEXT, LABEL)  # of the sentence and of its label
    raw: bool = False
    split: str = ""  # shares of the splits of a single file; empty where every split has a file of its own
    seed: int = 0  # of that split

    def digest(self) -> str:
        """sha256 of the files' bytes and of everything that decides how they are read. Raises InputError."""
        # Another release of NLTK may tokenize the same text differently.
        tokenizer = self.raw and f"nltk {importlib.metadata.version('nltk')}"
        digest = hashlib.sha256(repr((self.columns, tokenizer, self.split, self.seed)).encode())
        for split, path in self.files.items():
            digest.update(f"{split} {kind(path)}".encode())
            try:
                with open_bytes(path) as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error}") from error
        return digest.hexdigest()

    def lines(self, split: str, repairs: Counter[str]) -> Iterator[Line]:
        """Label and sentence of each line of a split; counts in `repairs` what was repaired. Raises InputError."""
        # Every split of a single file reads all of its lines. To count a repair once, the split of the next sentence
        # counts it, and the first split counts what follows the last sentence.
        pending: Counter[str] = Counter()
        for label, text in read_lines(self.files[split], pending, *self.columns):
            if not self.split or assigned_split(text, self.split, self.seed) == split:
                repairs.update(pending)
                yield label, tokenize(text) if self.raw else text
            pending.clear()
        if not self.split or split == SPLITS[0]:
            repairs.update(pending)


def assigned_split(text: str, shares: str, seed: int) -> str:
    """The split of a sentence of a single file: a hash decides, so that equal sentences share a split."""
    train, valid, test = map(int, shares.split("/"))
    bounds = (share / (train + valid + test) for share in (train, train + valid))
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return SPLITS[sum(int.from_bytes(digest) >= bound * 2**64 for bound in bounds)]


def place(data: Data) -> Path:
    """The file or folder of the corpus; `package:NAME` comes with the package. Raises InputError for another NAME."""
    if not data.path.startswith(PACKAGE):
        return storage.path(data.path or f"data/{data.name}")
    name = data.path.removeprefix(PACKAGE)
    folder = storage.path(str(resources.files("scalevae_jax.data") / name))
    # A configuration may come from a stranger, so a name may not climb out of the package.
    if data.path != SYNTHETIC and not (name.isidentifier() and folder.is_dir()):
        raise InputError(f"{data.path}: no corpus of the package; expected {PACKAGE}snli, {PACKAGE}tiny or {SYNTHETIC}")
    return folder


def find(data: Data) -> Source:
    """The files that the configuration names. Raises InputError that says where missing files go."""
    if data.path == SYNTHETIC:
        return Source(storage.path(SYNTHETIC), {})
    if not data.path and data.name == "text":
        raise InputError("no text is given: --config.data.path=FILE_OR_FOLDER (--path for scalevae_jax.data)")
    where, columns = place(data), (data.text_column, data.label_column)
    try:
        if where.is_file():
            kind(where)
            return Source(where, dict.fromkeys(SPLITS, where), columns, data.raw, data.split, data.split_seed)
        files = {split: path for split in SPLITS if (path := _split_file(where, split))}
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error}") from error
    if not files:
        raise InputError(missing(where, "train"))
    return Source(where, files, columns, data.raw)


def missing(where: Path, split: str) -> str:
    """The message for a split without a file."""
    absolute = where if storage.is_remote(where) else where.absolute()
    if where.suffix and not where.is_dir():
        beside = [path.name for path in where.parent.iterdir()] if where.parent.is_dir() else []
        near = "".join(f" ({name} is beside it)" for name in difflib.get_close_matches(where.name, beside, 1))
        return f"no such file: {absolute}{near}; give another file, or a folder, with --config.data.path=PATH"
    names = ", ".join(f"{name}.txt" for name in SPLITS)
    problem = f"no {split}.txt or {split}.txt.gz in" if where.is_dir() else "no such file or folder:"
    return (
        f"{problem} {absolute}: put {names} there (or {', '.join(KINDS[1:])}) with one sentence a line, "
        "or give another folder, or one file to be split, with --config.data.path=PATH"
    )


def _split_file(folder: Path, split: str) -> Path | None:
    """train.txt goes before train.txt.gz, .tsv and the others, and these before NAME.train.txt."""
    endings = [f"{suffix}{gz}" for suffix in KINDS for gz in ("", ".gz") if f"{suffix}{gz}" != ".parquet.gz"]
    for prefix in ("", "*."):
        for ending in endings:
            paths = sorted(folder.glob(f"{prefix}{split}{ending}"))
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                raise InputError(f"{folder}: expected one file for the {split} split, got {names}")
            if paths:
                return paths[0]
    return None
