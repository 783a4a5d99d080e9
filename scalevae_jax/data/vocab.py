"""Words and their numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

PAD, BEGIN, END, UNKNOWN = range(4)
LARGEST_FILE = 2**28  # bytes
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


class Vocabulary(NamedTuple):
    """`words[i]` is the word of id i; the four special symbols come first."""

    words: tuple[str, ...]
    ids: dict[str, int]

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: Sequence[str]) -> list[int]:
        """`<s> w1 .. wT </s>` as ids; words outside the vocabulary, and special symbols in the text, are `<unk>`."""
        get = self.ids.get
        return [BEGIN, *(max(get(word, UNKNOWN), UNKNOWN) for word in sentence), END]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The sentence up to `</s>`, words separated by spaces."""
        words = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, BEGIN):
                words.append(self.words[i])
        return " ".join(words)

    def save(self, path: Path) -> None:
        """One word a line; the line's number is the id."""
        storage.write(path, "\n".join(self.words) + "\n")


def vocabulary(words: Sequence[str]) -> Vocabulary:
    """From the words after the special symbols."""
    every = (*SPECIALS, *words)
    return Vocabulary(every, {word: i for i, word in enumerate(every)})


def build(sentences: Iterable[Sequence[str]], size: int, min_count: int = 1) -> Vocabulary:
    """The commonest words, `size` entries at most with the special ones; ties go to the word seen first."""
    counts = Counter(word for sentence in sentences for word in sentence)
    for special in SPECIALS:
        counts.pop(special, None)
    kept = [word for word, n in counts.most_common(max(size - len(SPECIALS), 0)) if n >= min_count]
    return vocabulary(kept)


def load(path: Path) -> Vocabulary:
    """Read what `save` wrote. Raises InputError where it is not a vocabulary."""
    try:
        words = storage.read_text(path, LARGEST_FILE).removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable vocabulary ({error})") from error
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise InputError(f"{path}: line 1: a vocabulary begins with the lines {' '.join(SPECIALS)}")
    made = vocabulary(words[len(SPECIALS) :])
    if len(made.ids) != len(made.words):
        twice = next(word for i, word in enumerate(made.words) if made.ids[word] != i)
        first, second = made.words.index(twice) + 1, made.ids[twice] + 1
        raise InputError(f"{path}: line {second}: the word {twice!r} stands in line {first} already")
    return made
