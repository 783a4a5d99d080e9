"""Subwords by byte-level BPE (Sennrich et al. 2016, on the bytes of UTF-8), learned by Hugging Face's `tokenizers`.

Every byte is a token, so that no text has an unknown one, and every line comes back as it was.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from scalevae_jax.core.types import InputError
from scalevae_jax.data.vocab import SPECIALS, Vocabulary, read
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

LEAST = len(SPECIALS) + 256  # entries: every byte is one


@dataclasses.dataclass(frozen=True)
class Subwords(Vocabulary):
    """Tokens are runs of bytes, each byte a character of GPT-2's alphabet; `bpe` is the library's tokenizer."""

    bpe: Any = dataclasses.field(default=None, compare=False)

    def split(self, line: str, most: int = -1) -> list[str]:
        return self.bpe.encode(line).tokens

    def join(self, tokens: Sequence[str]) -> str:
        return self.bpe.decoder.decode(list(tokens))

    def save(self, path: Path) -> None:
        """Write a tokenizer.json, which the library reads too."""
        storage.write(path, self.bpe.to_str(pretty=True) + "\n")


def _subwords(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Subwords:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # here, since only BPE needs the library

    bpe: Any = Tokenizer(models.BPE(vocabulary, merges))
    # The special symbols are entries that no text reaches: `<s>` in a sentence is three tokens, and comes back.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    words = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    return Subwords(words, vocabulary, "", bpe)


def learn(lines: Iterable[str], size: int, min_count: int = 1) -> Subwords:
    """The `size` subwords, special symbols and bytes included, of these lines; fewer where no pair of subwords comes
    `min_count` times any more. Raises InputError for a size without room for every byte."""
    if size < LEAST:
        raise InputError(
            f"config.data.vocab_size: {size}; bpe needs {LEAST} entries or more: every byte, and four special symbols"
        )
    from tokenizers import pre_tokenizers, trainers  # as above

    bpe = _subwords({}, []).bpe
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # a character of each byte
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    model = json.loads(bpe.to_str())["model"]
    return _subwords(model["vocab"], [tuple(pair) for pair in model["merges"]])


def load(path: Path) -> Subwords:
    """Read what `save` wrote. Raises InputError for another file."""
    from tokenizers import pre_tokenizers  # as above

    text = read(path)
    try:
        model = json.loads(text)["model"]
        vocabulary, merges = model["vocab"], [(first, second) for first, second in model["merges"]]
        loaded = _subwords(vocabulary, merges)
        if sorted(vocabulary.values()) != list(range(len(vocabulary))) or loaded.words[: len(SPECIALS)] != SPECIALS:
            raise ValueError(f"expected ids from 0, {' '.join(SPECIALS)} first")
        if not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
            raise ValueError("expected an entry for every byte")
    except Exception as error:  # the library raises Exception itself
        reason = storage.first_line(error)
        raise InputError(f"{path}: not a byte-level BPE as this package writes it ({reason})") from error
    return loaded
