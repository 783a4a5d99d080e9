"""Words and their numbers: what is kept, in which order, and what a damaged file is told."""

import re

import numpy as np
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import vocab
from scalevae_jax.data.vocab import BEGIN, END, PAD, SPECIALS, UNKNOWN

TEXT = [["b", "a", "c"], ["a", "b", "d"], ["a"], ["e", "c", "f"]]


def test_words_stand_by_count_and_ties_by_first_appearance():
    made = vocab.build(TEXT, size=100)
    assert made.words == (*SPECIALS, "a", "b", "c", "d", "e", "f")
    assert made.ids == {word: i for i, word in enumerate(made.words)}
    assert [made.ids[word] for word in SPECIALS] == [PAD, BEGIN, END, UNKNOWN]


@pytest.mark.parametrize("size", range(11))
def test_size_counts_the_special_symbols(size):
    made = vocab.build(TEXT, size)
    assert len(made) == max(size, len(SPECIALS))
    assert made.words == (*SPECIALS, *"abcdef")[: max(size, len(SPECIALS))]


def test_rare_words_are_left_out():
    assert vocab.build(TEXT, size=100, min_count=2).words == (*SPECIALS, "a", "b", "c")
    assert vocab.build(TEXT, size=6, min_count=2).words == (*SPECIALS, "a", "b")


def test_building_twice_gives_the_same_words(rng):
    text = [[f"w{i}" for i in rng.integers(0, 40, 6)] for _ in range(30)]
    assert vocab.build(text, size=20) == vocab.build(text, size=20)


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


def test_a_word_that_stands_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "a", "b", "c", "b"]) + "\n")
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: line [68]: .*'b'"):
        vocab.load(path)


@pytest.mark.parametrize("lines", [["a", "b"], [], SPECIALS[:3], ["<s>", "<pad>", "</s>", "<unk>", "a"]])
def test_a_file_without_the_special_symbols_is_no_vocabulary(tmp_path, lines):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: line 1: .*<pad> <s> </s> <unk>"):
        vocab.load(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\n"])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        vocab.load(path)
