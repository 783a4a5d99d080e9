"""Raw text to words and back; which words a vocabulary keeps, in which order; damaged files are refused."""

import re

import numpy as np
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import vocab
from scalevae_jax.data.vocab import BEGIN, END, PAD, SPECIALS, UNKNOWN

TEXT = [["b", "a", "c"], ["a", "b", "d"], ["a"], ["e", "c", "f"]]


@pytest.mark.parametrize("size", range(11))
def test_the_commonest_words_are_kept_and_ties_go_to_the_first_seen(size):
    made = vocab.build(TEXT, size)
    assert made.words == (*SPECIALS, *"abcdef")[: max(size, len(SPECIALS))]
    assert made.ids == {word: i for i, word in enumerate(made.words)}
    assert [made.ids[word] for word in SPECIALS] == [PAD, BEGIN, END, UNKNOWN]
    assert vocab.build(TEXT, size, min_count=2).words == made.words[:7]


def test_special_symbols_in_the_text_take_no_place_and_read_as_unknown():
    made = vocab.build([["<s>", "<s>", "a", "</s>", "<pad>", "<unk>"]], size=100)
    assert made.words == (*SPECIALS, "a")
    assert made.encode([*SPECIALS, "a"]) == [BEGIN, *[UNKNOWN] * 4, 4, END]


def test_encoding_and_decoding_are_inverse_but_for_unknown_words():
    made = vocab.build(TEXT, size=100)
    assert made.encode(["c", "zebra", "a"]) == [BEGIN, made.ids["c"], UNKNOWN, made.ids["a"], END]
    for sentence in TEXT:
        assert made.decode(made.encode(sentence)) == " ".join(sentence)
    assert made.encode([]) == [BEGIN, END]


def test_decoding_stops_at_the_end_and_skips_padding():
    made = vocab.build(TEXT, size=100)
    assert made.decode(np.array([BEGIN, 4, PAD, UNKNOWN, END, 5, END])) == "a <unk>"


def test_saved_words_are_read_back(tmp_path):
    made = vocab.build([["ünï", "日本", "\u200b", "'", '"', "a"]], size=100)
    made.save(tmp_path / "vocab.txt")
    assert vocab.load(tmp_path / "vocab.txt") == made


def test_characters_are_tokens_and_only_new_ones_are_unknown(tmp_path):
    made = vocab.build(["a b<s>", "b"], size=100, separator="")
    assert made.words == (*SPECIALS, *"ba <s>")
    assert made.decode(made.encode(made.split("a <b>"))) == "a <b>"
    assert made.encode(made.split("aé")) == [BEGIN, made.ids["a"], UNKNOWN, END]
    made.save(tmp_path / "vocab.txt")
    assert vocab.load(tmp_path / "vocab.txt", separator="") == made
    with pytest.raises(InputError, match=r"line 7: expected one word without white space"):
        vocab.load(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, "a", "bc"]))
    with pytest.raises(InputError, match=r"line 6: expected one character; got 'bc'"):
        vocab.load(tmp_path / "vocab.txt", separator="")


def test_a_vocabulary_saved_by_an_editor_of_windows_is_read(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*SPECIALS, "a", "b", ""]).encode())
    assert vocab.load(tmp_path / "vocab.txt") == vocab.vocabulary(["a", "b"])


SPECIAL_LINES = " ".join(SPECIALS)
REFUSED = {
    "a word twice": ("\n".join([*SPECIALS, "a", "b", "c", "b"]).encode(), "line 8: the word 'b' is already in line 6"),
    "other words": (b"a\nb\n", SPECIAL_LINES),
    "nothing": (b"", SPECIAL_LINES),
    "too few special symbols": ("\n".join(SPECIALS[:3]).encode(), SPECIAL_LINES),
    "special symbols in another order": (b"<s>\n<pad>\n</s>\n<unk>\na\n", SPECIAL_LINES),
    "words with counts": ("\n".join([*SPECIALS, "the 120"]).encode(), "line 5: expected one word without white space"),
    "a blank line": ("\n".join([*SPECIALS, "a", "", "b"]).encode(), "line 6: expected one word"),
    "not UTF-8": (b"\xff\xfe\n", "not a readable vocabulary"),
    "no file": (None, "not a readable vocabulary"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_its_name_and_line(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}"):
        vocab.load(path)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("The food is GREAT!", "the food is great !"),
        ("It's $5, isn't it?", "it 's $ 5 , is n't it ?"),
        ("(ünï)", "( ünï )"),
        ("The <UNK> man, <unk>.", "the <unk> man , <unk> ."),
        ("<s> A man! </s>", "<s> a man ! </s>"),
    ],
)
def test_raw_text_to_words_and_back(raw, words):
    assert vocab.tokenize(raw) == words
    assert vocab.detokenize(words) == raw.lower()
