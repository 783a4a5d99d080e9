"""A corpus: train, valid and test files of one sentence a line, words separated by spaces, optional `label<TAB>`."""

import dataclasses
import gzip
import hashlib
import zlib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scalevae_jax.data import synthetic
from scalevae_jax.data.vocab import Vocabulary, as_array
from scalevae_jax.types import InputError

SPLITS = ("train", "valid", "test")
EMBEDDED = "package:"
SYNTHETIC = "package:synthetic"


class Text(NamedTuple):
    """One split as it stands in its file."""

    sentences: list[list[str]]
    labels: list[int] | None
    digest: str  # sha256 of the file's bytes
    blank: int  # lines left out
    cut: int  # sentences cut to the longest length allowed


@dataclasses.dataclass(frozen=True)
class Split:
    """One split as numbers: row i is `tokens[offsets[i]:offsets[i + 1]]`, marks included."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, both marks counted."""
        return np.diff(self.offsets)

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]


def folder(path: str) -> Path:
    """Where the corpus lies; `package:NAME` is a corpus that comes with the package."""
    if path.startswith(EMBEDDED):
        return Path(str(resources.files("scalevae_jax.data") / path.removeprefix(EMBEDDED)))
    return Path(path).expanduser()


def locate(path: str, split: str) -> Path:
    """The file of a split. Raises InputError with the place to put it."""
    where = folder(path)
    for name in (f"{split}.txt", f"{split}.txt.gz"):
        if (where / name).is_file():
            return where / name
    wanted = ", ".join(f"{name}.txt" for name in SPLITS)
    raise InputError(
        f"no {split}.txt or {split}.txt.gz in {where.absolute()}: put {wanted} there (or .txt.gz), one sentence a "
        "line, or give another folder with --config.data.path=DIR"
    )


def read(path: Path, max_words: int) -> Text:
    """Read one file. Lines without a word are left out and over-long sentences cut, both counted.

    Raises InputError for a file that is unreadable, not UTF-8, empty, or labelled in some lines only.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can not be read: {error}") from error
    sentences, labels, blank, cut = [], [], 0, 0
    labelled: bool | None = None
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: line {number}: byte {error.start + 1} is not UTF-8; convert the file") from error
        label, tab, rest = text.partition("\t")
        words = (rest if tab else text).split()
        if not words:
            blank += 1
            continue
        if labelled is None:
            labelled = bool(tab)
        if bool(tab) != labelled:
            raise InputError(f"{path}: line {number}: `label<TAB>` must stand in every line or in none")
        if labelled:
            try:
                labels.append(int(label))
            except ValueError:
                raise InputError(f"{path}: line {number}: label {label!r} is not an integer") from None
        cut += len(words) > max_words
        sentences.append(words[:max_words])
    if not sentences:
        raise InputError(f"{path}: the file has no sentence; one a line is wanted")
    digest = hashlib.sha256(raw).hexdigest()
    return Text(sentences, labels if labelled else None, digest, blank, cut)


def split_text(path: str, split: str, max_words: int) -> Text:
    """One split of the corpus at `path`; `package:synthetic` is drawn, its labels are the components."""
    if path != SYNTHETIC:
        return read(locate(path, split), max_words)
    drawn = synthetic.splits()[split]
    digest = hashlib.sha256(drawn.tokens.astype(np.int32).tobytes()).hexdigest()
    return Text([synthetic.words(row) for row in drawn.tokens], drawn.component.tolist(), digest, 0, 0)


def encode(text: Text, vocab: Vocabulary) -> Split:
    """Words to ids."""
    tokens, offsets = as_array([vocab.encode(sentence) for sentence in text.sentences])
    labels = None if text.labels is None else np.asarray(text.labels)
    return Split(tokens, offsets, labels)
