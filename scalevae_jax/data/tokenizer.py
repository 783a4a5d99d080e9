"""The tokenizers of a configuration (`data.tokenizer`) by name, each with the file in which a run keeps its own."""

from scalevae_jax.data import subwords, vocab
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.runtime.storage import Path

SEPARATORS = {"words": " ", "characters": ""}
UNITS = {"words": "words", "bpe": "subwords", "characters": "characters"}
FILES = {"words": "vocab.txt", "bpe": "tokenizer.json", "characters": "vocab.txt"}


def load(name: str, path: Path) -> Vocabulary:
    """Read the file of a tokenizer of this name. Raises InputError for another file."""
    return subwords.load(path) if name == "bpe" else vocab.load(path, SEPARATORS[name])
