"""A corpus as numbers: the prepared text, its vocabulary, the ids of its splits."""

import dataclasses
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files, source, vocab
from scalevae_jax.data.config import Data
from scalevae_jax.data.source import SPLITS, Source
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.runtime import storage


@dataclasses.dataclass(frozen=True)
class Split:
    """One split as numbers: row i is `tokens[offsets[i]:offsets[i + 1]]`, marks included."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    digest: str = ""  # sha256 of the text before words became ids
    long: int = 0  # sentences over the longest length allowed

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Split":
        """Rows of ids, marks included."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter((i for row in rows for i in row), np.int32, offsets[-1]), offsets, None)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, both marks counted."""
        return np.diff(self.offsets)

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def first(self, rows: int) -> "Split":
        """The first so many rows; 0 is all."""
        if not rows:
            return self
        offsets, labels = self.offsets[: rows + 1], None if self.labels is None else self.labels[:rows]
        return dataclasses.replace(self, tokens=self.tokens[: offsets[-1]], offsets=offsets, labels=labels)

    @property
    def unknown(self) -> float:
        """Share of the words that are `<unk>`."""
        return float(np.sum(self.tokens == vocab.UNKNOWN)) / max(len(self.tokens) - 2 * len(self), 1)


class Corpus(NamedTuple):
    """Text made ready: read, repaired, cut into splits, and kept."""

    data: Data
    source: Source
    prepared: Any  # the TFDS builder

    def about(self, split: str) -> dict[str, Any]:
        """`sentences`, `labelled`, `sha256`, `in_train` and what was repaired. Raises InputError without the split."""
        try:
            return dict(self.prepared.info.metadata[split])
        except KeyError:
            raise InputError(source.missing(self.source.place, split)) from None

    def blocks(self, split: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Sentences in the order of the file, and their labels (none where there are none), a block at a time."""
        self.about(split)
        try:
            records = self.prepared.as_data_source(split)
            for i in range(len(records)):
                record = records[i]
                yield record["text"].decode().split("\n"), record["labels"]
        except RuntimeError as error:  # of array_record
            folder, said = self.prepared.data_path, storage.first_line(error)
            raise InputError(f"{folder}: damaged ({said}); delete the folder, it is made anew") from error

    def limit(self, split: str) -> int:
        """How many sentences of the split the configuration takes; 0 is all."""
        return {"train": self.data.limit_train, "valid": self.data.limit_valid}.get(split, 0)

    def sentences(self, split: str) -> Iterator[list[str]]:
        """The words of each sentence that is not dropped, as far as the split's limit; long ones are cut."""
        kept = (words for words, _, _ in self._rows(split) if words)
        return itertools.islice(kept, self.limit(split) or None)

    def _rows(self, split: str) -> Iterator[tuple[list[str], np.ndarray, bool]]:
        """Of each sentence its words, none where it is dropped; its label, if any; whether it was too long."""
        limit, drop = self.data.max_words, self.data.long == "drop"
        for texts, labels in self.blocks(split):
            for i, text in enumerate(texts):
                words = text.split(" ", limit)
                long = len(words) > limit
                yield [] if long and drop else words[:limit], labels[i : i + 1], long

    def vocabulary(self) -> Vocabulary:
        """The words of the training split, or those of the file that the configuration names."""
        if self.data.vocab:
            return vocab.load(storage.path(self.data.vocab))
        return vocab.build(self.sentences("train"), self.data.vocab_size, self.data.min_count)

    def split(self, name: str, words: Vocabulary) -> Split:
        """The split as ids, up to its limit. Raises InputError where it is missing or every sentence was too long."""
        tokens, ends, labels, long = array("i"), array("q", [0]), array("q"), 0
        for sentence, label, too_long in self._rows(name):
            long += too_long
            if sentence:
                tokens.extend(words.encode(sentence))
                ends.append(len(tokens))
                labels.extend(label)
        if len(ends) == 1:
            most = f"config.data.max_words={self.data.max_words}"
            raise InputError(f"{self.source.place}: every {name} sentence has more than {most}")
        ids, offsets = np.frombuffer(tokens, np.int32), np.frombuffer(ends, np.int64)
        of = np.frombuffer(labels, np.int64) if len(labels) else None
        return Split(ids, offsets, of, self.about(name)["sha256"], long).first(self.limit(name))

    def about_all(self) -> dict[str, dict[str, Any]]:
        """`about` of every split that there is."""
        return {split: self.about(split) for split in SPLITS if split in self.prepared.info.splits}


def remarks(text: Corpus, splits: Mapping[str, Split]) -> list[str]:
    """What the user should know of the text: what was repaired, cut or dropped, and what stands in train too."""
    said = []
    for split, about in text.about_all().items():
        said += [f"{split}: {about[key]:,} {what}" for key, what in files.REPAIRS.items() if about.get(key)]
        if split in splits and (long := splits[split].long):
            done = {"cut": "cut", "drop": "left out"}[text.data.long]
            said.append(f"{split}: {long:,} sentences of more than {text.data.max_words} words {done}")
        if again := about.get("in_train"):
            said.append(f"{split}: {again:,} of {about['sentences']:,} sentences are in train too")
    return said


def open(data: Data, path: str | None = None) -> Corpus:
    """The corpus of a configuration, prepared where it is not yet; `path` is another text, read alike.

    Raises InputError for what can not be found or read.
    """
    from scalevae_jax.data import builder  # here, since importing TFDS takes a second that --help does not need

    data = data if path is None else dataclasses.replace(data, path=path, name="text")
    found = source.find(data)
    return Corpus(data, found, builder.prepare(found, builder.cache_folder(data.cache)))


def read(data: Data, split: str, words: Vocabulary, path: str | None = None) -> Split:
    """One split of a corpus as ids."""
    return open(data, path).split(split, words)


__all__ = ["SPLITS", "Corpus", "Split", "open", "read"]
