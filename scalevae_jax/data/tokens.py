"""Raw text to words and back, by NLTK's Treebank rules (`n't`, `'s` and punctuation are words of their own)."""

import functools
from typing import Any


@functools.cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # here, since importing it takes a second that others do not need

    return NLTKWordTokenizer()


@functools.cache
def _detokenizer() -> Any:
    from nltk.tokenize.treebank import TreebankWordDetokenizer

    return TreebankWordDetokenizer()


def tokenize(text: str) -> str:
    """Lower-cased words, separated by spaces; `<unk>`, which a text may hold already, stays one word."""
    return " ".join(_tokenizer().tokenize(text.lower())).replace("< unk >", "<unk>")


def detokenize(text: str) -> str:
    """The sentence for reading: punctuation and clitics joined to their words."""
    return _detokenizer().detokenize(text.split())
