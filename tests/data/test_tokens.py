"""Raw text to words and back."""

import pytest

from scalevae_jax.data import tokens


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("The food is GREAT!", "the food is great !"),
        ("It's $5, isn't it?", "it 's $ 5 , is n't it ?"),
        ("(ünï)", "( ünï )"),
        ("The <UNK> man, <unk>.", "the <unk> man , <unk> ."),
    ],
)
def test_words_and_back(raw, words):
    assert tokens.tokenize(raw) == words
    assert tokens.detokenize(words) == raw.lower()
