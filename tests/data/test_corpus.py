"""Reading text: what is kept and counted, and which file and line an error names."""

import gzip
import hashlib
import re

import numpy as np
import pytest

from scalevae_jax.data import corpus, vocab
from scalevae_jax.types import InputError


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name="train.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def _refused(path, *parts):
    """An error of one line that begins with the file's name and goes on with `parts`."""
    with pytest.raises(InputError) as caught:
        corpus.read(path, 50)
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(re.escape(f"{path}: ") + ".*".join(parts), message), message


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["newline at the end", "none at the end"])
def test_sentences_are_words_between_spaces(write, end, last):
    text = corpus.read(write(b"a man  sleeps ." + end + "ünï b".encode() + end * last), 50)
    assert text.sentences == [["a", "man", "sleeps", "."], ["ünï", "b"]]
    assert (text.labels, text.blank, text.cut) == (None, 0, 0)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_labels_stand_before_a_tab(write, end):
    text = corpus.read(write(b"1\ta b" + end + b"-2\tc" + end + b"0\td 7" + end), 50)
    assert text.sentences == [["a", "b"], ["c"], ["d", "7"]]
    assert text.labels == [1, -2, 0]


@pytest.mark.parametrize("prefix", [b"", b"3\t"])
def test_blank_lines_are_left_out_and_counted(write, prefix):
    text = corpus.read(write(prefix + b"a\n\n  \n\r\n" + prefix + b"b\n\n"), 50)
    assert text.sentences == [["a"], ["b"]]
    assert text.blank == 4
    assert text.labels == ([3, 3] if prefix else None)


def test_a_blank_first_line_does_not_hide_the_labels(write):
    assert corpus.read(write(b"\n1\ta\n"), 50).labels == [1]


def test_a_label_without_words_is_no_sentence(write):
    try:
        text = corpus.read(write(b"1\ta\n1\t\n"), 50)
    except InputError:
        return
    assert text.sentences == [["a"]]


def test_long_sentences_are_cut_and_counted(write):
    text = corpus.read(write(b"a b c d\na b c\na b\n"), 3)
    assert text.sentences == [["a", "b", "c"], ["a", "b", "c"], ["a", "b"]]
    assert text.cut == 1


def test_a_compressed_file_reads_like_a_plain_one(write):
    plain, packed = b"0\ta b\n1\tc\n", gzip.compress(b"0\ta b\n1\tc\n")
    one, other = corpus.read(write(plain), 50), corpus.read(write(packed, "train.txt.gz"), 50)
    assert one._replace(digest="") == other._replace(digest="")
    assert one.digest == hashlib.sha256(plain).hexdigest()
    assert other.digest == hashlib.sha256(packed).hexdigest()


def test_what_is_not_utf8_is_refused_with_its_line(write):
    _refused(write(b"a\nb \xff c\n"), "line 2: ", "byte 3", "UTF-8")


def test_a_truncated_or_damaged_gz_is_refused(write):
    packed = gzip.compress(b"a man sleeps .\n" * 100)
    _refused(write(packed[:-12], "train.txt.gz"), "can not be read")
    _refused(write(b"a man sleeps .\n", "valid.txt.gz"), "can not be read")
    damaged = packed[:12] + bytes([packed[12] ^ 255, packed[13] ^ 255]) + packed[14:]
    _refused(write(damaged, "test.txt.gz"), "can not be read")


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \n\n"])
def test_a_file_without_a_sentence_is_refused(write, content):
    _refused(write(content), "the file has no sentence")


@pytest.mark.parametrize("content", [b"1\ta\n\nb\n", b"a\nb\n1\tb\n"], ids=["later none", "later one"])
def test_labels_in_some_lines_only_are_refused_with_the_line(write, content):
    _refused(write(content), "line 3: ", "in every line or in none")


@pytest.mark.parametrize("label", ["good", "1.5", ""])
def test_a_label_that_is_no_integer_is_refused_with_its_line(write, label):
    _refused(write(f"1\ta\n{label}\tb\n".encode()), "line 2: ", re.escape(repr(label)), "not an integer")


def test_a_missing_file_is_refused(tmp_path):
    _refused(tmp_path / "train.txt", "can not be read")


def test_a_missing_split_is_named_with_its_folder(tmp_path, write):
    write(b"a\n")
    assert corpus.locate(str(tmp_path), "train") == tmp_path / "train.txt"
    where = re.escape(str(tmp_path))
    with pytest.raises(InputError, match=rf"no valid\.txt or valid\.txt\.gz in {where}.*data\.path"):
        corpus.locate(str(tmp_path), "valid")


def test_a_plain_file_goes_before_a_compressed_one(tmp_path, write):
    packed = write(gzip.compress(b"a\n"), "test.txt.gz")
    assert corpus.locate(str(tmp_path), "test") == packed
    plain = write(b"b\n", "test.txt")
    assert corpus.locate(str(tmp_path), "test") == plain


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_the_embedded_corpus_reads(split):
    text = corpus.read(corpus.locate("package:snli", split), 200)
    assert len(text.sentences) >= 1000
    assert (text.labels, text.blank, text.cut) == (None, 0, 0)
    assert all(text.sentences)


def test_an_embedded_corpus_that_is_not_there_is_an_input_error():
    with pytest.raises(InputError, match=r"no train\.txt"):
        corpus.locate("package:nothing", "train")


def test_rows_of_a_split_are_the_encoded_sentences(write):
    text = corpus.read(write(b"4\ta b a\n5\tc\n-6\tb zebra\n"), 50)
    words = vocab.vocabulary(["a", "b", "c"])
    split = corpus.encode(text, words)
    assert len(split) == 3
    for i, sentence in enumerate(text.sentences):
        np.testing.assert_array_equal(split[i], words.encode(sentence))
    np.testing.assert_array_equal(split.lengths, [5, 3, 4])
    np.testing.assert_array_equal(split.labels, [4, 5, -6])
    assert corpus.encode(text._replace(labels=None), words).labels is None
