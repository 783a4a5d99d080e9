"""Raw text to words, words or characters to ids, and both ways back."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.data.lines import clean_line
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
LARGEST_FILE = 2**28  # bytes


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """`words[i]` is the token of id i; the four special symbols come first. Tokens are words, or characters where the
    separator is empty; `data.subwords` has those of BPE."""

    words: tuple[str, ...]
    ids: dict[str, int]
    separator: str = " "

    def __len__(self) -> int:
        return len(self.words)

    def split(self, line: str, most: int = -1) -> list[str]:
        """The tokens of a line; with `most`, those past so many may come as one token more."""
        return line.split(self.separator, most) if self.separator else list(line)

    def join(self, tokens: Sequence[str]) -> str:
        """The line of these tokens."""
        return self.separator.join(tokens)

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """`<s> w1 .. wT </s>` as ids; tokens outside the vocabulary, and special symbols in the text, are `<unk>`."""
        get = self.ids.get
        return [BEGIN, *(max(get(token, UNKNOWN), UNKNOWN) for token in tokens), END]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The line up to `</s>`."""
        tokens: list[str] = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, BEGIN):
                tokens.append(self.words[i])
        return self.join(tokens)

    def written(self, line: str) -> str:
        """A decoded line as a person writes it: words are joined with their punctuation and clitics; of other tokens,
        what could not be in a line (line ends and other control characters) is a space."""
        return detokenize(line) if self.separator else clean_line(line, Counter())

    def save(self, path: Path) -> None:
        """Write one token a line; the number of the line, from 0, is the id."""
        storage.write(path, "\n".join(self.words) + "\n")


def vocabulary(words: Sequence[str], separator: str = " ") -> Vocabulary:
    """The vocabulary of these tokens, after the special symbols."""
    entries = (*SPECIALS, *words)
    return Vocabulary(entries, {word: i for i, word in enumerate(entries)}, separator)


def build(sentences: Iterable[Sequence[str]], size: int, min_count: int = 1, separator: str = " ") -> Vocabulary:
    """The commonest tokens: at most `size` entries, special symbols included; ties go to the token seen first."""
    counts = Counter(word for sentence in sentences for word in sentence)
    for special in SPECIALS:
        counts.pop(special, None)
    kept = [word for word, n in counts.most_common(max(size - len(SPECIALS), 0)) if n >= min_count]
    return vocabulary(kept, separator)


def read(path: Path) -> str:
    """The text of a vocabulary's file. Raises InputError."""
    try:
        return storage.read_text(path, LARGEST_FILE)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable vocabulary ({error})") from error


def load(path: Path, separator: str = " ") -> Vocabulary:
    """Read what `save` wrote. Raises InputError for another file."""
    # An editor of Windows puts a byte order mark before the first line, and CR at the end of each.
    words = read(path).removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise InputError(f"{path}: line 1: expected a vocabulary that begins with the lines {' '.join(SPECIALS)}")
    for number, word in enumerate(words[len(SPECIALS) :], len(SPECIALS) + 1):
        if word.split() != [word] if separator else len(word) != 1:
            expected = "word without white space, and no count" if separator else "character"
            raise InputError(f"{path}: line {number}: expected one {expected}; got {word!r}")
    loaded, kind = vocabulary(words[len(SPECIALS) :], separator), "word" if separator else "character"
    if len(loaded.ids) != len(loaded.words):
        # `ids` keeps the last of equal words, so the first word with another id is one that comes again.
        twice = next(word for i, word in enumerate(loaded.words) if loaded.ids[word] != i)
        first, second = loaded.words.index(twice) + 1, loaded.ids[twice] + 1
        raise InputError(f"{path}: line {second}: the {kind} {twice!r} is already in line {first}")
    return loaded


def tokenize(text: str) -> str:
    """Lower-cased words separated by spaces, by NLTK's Treebank rules (`n't`, `'s` and punctuation are words)."""
    from nltk.tokenize import NLTKWordTokenizer  # importing NLTK takes a second, which tokenized text does not need

    # Special symbols may stand in the text already, each as one word, which NLTK would take apart.
    return re.sub(r"< (/?s|pad|unk) >", r"<\1>", " ".join(NLTKWordTokenizer().tokenize(text.lower())))


def detokenize(text: str) -> str:
    """The sentence for a reader: punctuation and clitics joined to their words."""
    from nltk.tokenize.treebank import TreebankWordDetokenizer  # as above

    return TreebankWordDetokenizer().detokenize(text.split())
