"""Raw text to words, words to ids, and both ways back."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
LARGEST_FILE = 2**28  # bytes


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
        """Write one word a line; the number of the line, from 0, is the id."""
        storage.write(path, "\n".join(self.words) + "\n")


def vocabulary(words: Sequence[str]) -> Vocabulary:
    """The vocabulary of these words, after the special symbols."""
    entries = (*SPECIALS, *words)
    return Vocabulary(entries, {word: i for i, word in enumerate(entries)})


def build(sentences: Iterable[Sequence[str]], size: int, min_count: int = 1) -> Vocabulary:
    """The commonest words: at most `size` entries, special symbols included; ties go to the word seen first."""
    counts = Counter(word for sentence in sentences for word in sentence)
    for special in SPECIALS:
        counts.pop(special, None)
    kept = [word for word, n in counts.most_common(max(size - len(SPECIALS), 0)) if n >= min_count]
    return vocabulary(kept)


def load(path: Path) -> Vocabulary:
    """Read what `save` wrote. Raises InputError for another file."""
    try:
        text = storage.read_text(path, LARGEST_FILE)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable vocabulary ({error})") from error
    # An editor of Windows puts a byte order mark before the first line, and CR at the end of each.
    words = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise InputError(f"{path}: line 1: expected a vocabulary that begins with the lines {' '.join(SPECIALS)}")
    for number, word in enumerate(words, 1):
        if word.split() != [word]:
            raise InputError(
                f"{path}: line {number}: expected one word without white space, and no count; got {word!r}"
            )
    loaded = vocabulary(words[len(SPECIALS) :])
    if len(loaded.ids) != len(loaded.words):
        # `ids` keeps the last of equal words, so the first word with another id is one that comes again.
        twice = next(word for i, word in enumerate(loaded.words) if loaded.ids[word] != i)
        first, second = loaded.words.index(twice) + 1, loaded.ids[twice] + 1
        raise InputError(f"{path}: line {second}: the word {twice!r} is already in line {first}")
    return loaded


@functools.cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # importing NLTK takes a second, which tokenized text does not need

    return NLTKWordTokenizer()


@functools.cache
def _detokenizer() -> Any:
    from nltk.tokenize.treebank import TreebankWordDetokenizer  # as above

    return TreebankWordDetokenizer()


def tokenize(text: str) -> str:
    """Lower-cased words separated by spaces, by NLTK's Treebank rules (`n't`, `'s` and punctuation are words)."""
    # Special symbols may stand in the text already, each as one word, which NLTK would take apart.
    return re.sub(r"< (/?s|pad|unk) >", r"<\1>", " ".join(_tokenizer().tokenize(text.lower())))


def detokenize(text: str) -> str:
    """The sentence for a reader: punctuation and clitics joined to their words."""
    return _detokenizer().detokenize(text.split())
