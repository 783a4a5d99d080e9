"""A corpus as numbers: the prepared text, its vocabulary and the ids of its splits."""

import dataclasses
import itertools
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files, subwords, tokenizer, vocab
from scalevae_jax.data.config import Data
from scalevae_jax.data.files import SPLITS, Source
from scalevae_jax.data.lines import repaired
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.runtime import storage

__all__ = ["SPLITS", "Corpus", "Split", "open", "read", "remarks"]

MANY_UNKNOWN = 0.1  # of a split's words
LOOKED_AT = 1000  # sentences, to see why so many words are unknown
MARKS = frozenset(".,;:!?")
UNSPLIT = re.compile(r"\w[.,;:!?)\"]$|^[(\"]\w")  # a word and its punctuation in one


@dataclasses.dataclass(frozen=True)
class Split:
    """One split as ids: row i is `tokens[offsets[i]:offsets[i + 1]]`, `<s>` and `</s>` included."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    digest: str = ""  # sha256 of the text before words became ids
    long: int = 0  # sentences of more than `max_words` tokens
    bytes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))  # of each line and its end
    names: tuple[str, ...] = ()  # of the labels, where they are no numbers

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Split":
        """The split of these rows of ids, `<s>` and `</s>` included."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter((i for row in rows for i in row), np.int32, offsets[-1]), offsets, None)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, `<s>` and `</s>` included."""
        return np.diff(self.offsets)

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def first(self, rows: int) -> "Split":
        """The first `rows` rows; 0 takes all."""
        if not rows:
            return self
        offsets, labels = self.offsets[: rows + 1], None if self.labels is None else self.labels[:rows]
        tokens, sizes = self.tokens[: offsets[-1]], self.bytes[:rows]
        return dataclasses.replace(self, tokens=tokens, offsets=offsets, labels=labels, bytes=sizes)

    def label_name(self, label: int | np.integer) -> str:
        """A label as it stands in the text."""
        return self.names[label] if self.names else str(label)

    @property
    def unknown(self) -> float:
        """Share of the tokens that are `<unk>`."""
        return float(np.sum(self.tokens == vocab.UNKNOWN)) / max(len(self.tokens) - 2 * len(self), 1)


class Row(NamedTuple):
    """A sentence: its tokens (none where it is dropped), the bytes of their text and of a newline, its label (if any),
    and whether it was too long."""

    tokens: list[str]
    bytes: int
    label: np.ndarray
    long: bool


class Corpus(NamedTuple):
    """Prepared text: read, repaired, divided into splits and stored."""

    data: Data
    source: Source
    prepared: Any  # the TFDS builder, whose own types are open

    def metadata(self, split: str) -> dict[str, Any]:
        """`sentences`, `labelled`, `sha256`, `in_train` and the repairs. Raises InputError where the split is missing.

        `in_train` counts the sentences of the split that are in train too.
        """
        try:
            return dict(self.prepared.info.metadata[split])
        except KeyError:
            raise InputError(files.missing(self.source.place, split)) from None

    def blocks(self, split: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Sentences in the order of the file and their labels (empty without labels), a block at a time."""
        self.metadata(split)
        try:
            records = self.prepared.as_data_source(split)
            for i in range(len(records)):
                record = records[i]
                yield record["text"].decode().split("\n"), record["labels"]
        except RuntimeError as error:  # array_record has no error of its own
            folder, message = self.prepared.data_path, storage.first_line(error)
            raise InputError(f"{folder}: damaged ({message}); delete the folder, and it will be made again") from error

    def _limit(self, split: str) -> int:
        return {"train": self.data.limit_train, "valid": self.data.limit_valid}.get(split, 0)

    def lines(self, split: str) -> Iterator[str]:
        """Each sentence as it was read, up to the split's limit."""
        every = (text for texts, _ in self.blocks(split) for text in texts)
        return itertools.islice(every, self._limit(split) or None)

    def sentences(self, split: str, words: Vocabulary) -> Iterator[list[str]]:
        """The tokens of each sentence, up to the split's limit; long sentences are cut, or dropped."""
        kept = (row.tokens for row in self._rows(split, words) if row.tokens)
        return itertools.islice(kept, self._limit(split) or None)

    def _rows(self, split: str, words: Vocabulary) -> Iterator[Row]:
        limit, drop = self.data.max_words, self.data.long == "drop"
        for texts, labels in self.blocks(split):
            for i, text in enumerate(texts):
                tokens = words.split(text, limit)
                long = len(tokens) > limit
                tokens = [] if long and drop else tokens[:limit]
                kept = words.join(tokens) if long else text
                yield Row(tokens, len(kept.encode()) + 1, labels[i : i + 1], long)

    def vocabulary(self) -> Vocabulary:
        """The tokens of the training split, or those of the file that the configuration names. Raises InputError."""
        data = self.data
        if data.vocab:
            given = tokenizer.load(data.tokenizer, storage.path(data.vocab))
            if data.tokenizer != "words":
                return given
            # The text is in NFC; a vocabulary from elsewhere need not be.
            words = given.words[len(vocab.SPECIALS) :]
            return vocab.vocabulary(list(dict.fromkeys(unicodedata.normalize("NFC", word) for word in words)))
        if data.tokenizer == "bpe":
            return subwords.learn(self.lines("train"), data.vocab_size, data.min_count)
        empty = vocab.vocabulary([], tokenizer.SEPARATORS[data.tokenizer])
        return vocab.build(self.sentences("train", empty), data.vocab_size, data.min_count, empty.separator)

    def split(self, name: str, words: Vocabulary) -> Split:
        """The split as ids, up to its limit. Raises InputError where it is missing or every sentence was dropped."""
        # Arrays of numbers, since lists of Python integers would take eight times the memory.
        tokens, ends, sizes, labels, long = array("i"), array("q", [0]), array("q"), array("q"), 0
        limit = self._limit(name)
        for row in self._rows(name, words):
            if limit and len(ends) > limit:
                break
            long += row.long
            if row.tokens:
                tokens.extend(words.encode(row.tokens))
                ends.append(len(tokens))
                sizes.append(row.bytes)
                labels.extend(row.label)
        if len(ends) == 1:
            limit = f"config.data.max_words={self.data.max_words}"
            raise InputError(f"{self.source.place}: every {name} sentence has more than {limit}")
        ids, offsets = np.frombuffer(tokens, np.int32), np.frombuffer(ends, np.int64)
        all_labels = np.frombuffer(labels, np.int64) if len(labels) else None
        names = tuple(self.prepared.info.metadata.get("names", ()))
        digest, all_sizes = self.metadata(name)["sha256"], np.frombuffer(sizes, np.int64)
        return Split(ids, offsets, all_labels, digest, long, all_sizes, names)


def remarks(corpus: Corpus, splits: Mapping[str, Split]) -> list[str]:
    """What a user should know, a line each: repairs, equal and long sentences, unknown words, what is in train too."""
    said, unit = [], tokenizer.UNITS[corpus.data.tokenizer]
    if unit != "words" and _divided(itertools.islice(corpus.lines("train"), LOOKED_AT)):
        said.append(
            "train: already divided into words (punctuation stands alone, no capitals); "
            f"config.data.tokenizer=words reads these words, {corpus.data.tokenizer} reads the text as it stands"
        )
    for split in SPLITS:
        if split not in corpus.prepared.info.splits:
            continue
        metadata = corpus.metadata(split)
        notes = repaired(metadata)
        if metadata["distinct"] == 1:
            notes.append("one sentence only" if metadata["sentences"] == 1 else "all sentences are equal")
        if split in splits:
            rows = splits[split]
            if rows.long:
                done = {"cut": "cut", "drop": "left out"}[corpus.data.long]
                notes.append(f"{rows.long:,} sentences of more than {corpus.data.max_words} {unit} {done}")
            if rows.unknown > MANY_UNKNOWN:
                notes.append(f"{rows.unknown:.1%} of the {unit} are unknown: {_reason(corpus, split, rows)}")
        if repeated := metadata.get("in_train"):
            notes.append(f"{repeated:,} of {metadata['sentences']:,} sentences are in train too")
        said += [f"{split}: {note}" for note in notes]
    return said


def _divided(lines: Iterable[str]) -> bool:
    """Whether a tokenizer has been at these lines: punctuation stands alone, and hardly a word has a capital."""
    words = [word for line in lines for word in line.split(" ")]
    marks, joined = sum(word in MARKS for word in words), sum(UNSPLIT.search(word) is not None for word in words)
    return marks > 10 * joined and 100 * sum(word != word.lower() for word in words) < len(words)


def _reason(corpus: Corpus, name: str, rows: Split) -> str:
    """Why many words of a split are unknown, by what they look like, and the remedy."""
    data = corpus.data
    limits = f"config.data.vocab_size={data.vocab_size}, config.data.min_count={data.min_count}"
    if data.tokenizer != "words":
        return f"they are rare or missing in train ({limits})"
    sentences = itertools.islice(corpus.sentences(name, vocab.vocabulary([])), min(LOOKED_AT, len(rows)))
    words = [pair for i, sentence in enumerate(sentences) for pair in zip(sentence, rows[i][1:-1], strict=True)]
    unknown = [word for word, token in words if token == vocab.UNKNOWN]
    rough = [word for word in unknown if word != word.lower() or UNSPLIT.search(word)]
    if 2 * sum(word in vocab.SPECIALS for word in unknown) > len(unknown):
        return "most are <unk> or another special symbol in the text itself"
    if len(words) < 2 * min(LOOKED_AT, len(rows)):
        return "most sentences are one word; expected spaces between words, or config.data.tokenizer=bpe"
    if not data.raw and 3 * len(rough) > len(unknown):
        return (
            "many have capitals or punctuation; config.data.raw=True lower-cases the text and splits it into words, "
            "config.data.tokenizer=bpe reads it as it stands"
        )
    if data.vocab:
        return f"the vocabulary is that of config.data.vocab={data.vocab}; without it, it is that of train"
    return f"they are rare or missing in train ({limits})"


def open(data: Data, path: str | None = None) -> Corpus:
    """The corpus of a configuration, prepared if it is not yet; `path` names another text, read in the same way.

    Raises InputError for text that is missing or cannot be read.
    """
    from scalevae_jax.data import builder  # importing TFDS takes a second, which --help does not need

    data = data if path is None else dataclasses.replace(data, path=path, name="text")
    if data.raw and data.tokenizer != "words":
        raise InputError(
            f"config.data.raw=True divides text into words, and {data.tokenizer} reads it as it stands; leave out raw, "
            "or take config.data.tokenizer=words"
        )
    source = files.find(data)
    return Corpus(data, source, builder.prepare(source, builder.cache_folder(data.cache)))


def read(data: Data, split: str, words: Vocabulary, path: str | None = None) -> Split:
    """One split of a corpus as ids. Raises InputError as `open` does."""
    return open(data, path).split(split, words)
