"""Splits as ids: which sentences they hold, cut, dropped and limited, and by which vocabulary."""

import re

import numpy as np
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus, tokenizer, vocab
from scalevae_jax.data.config import TOKENIZERS, Data
from scalevae_jax.data.corpus import Split

LINES = ["2\ta b c d", "0\ta b c", "1\ta b", "1\tb e"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A folder of three files; the words of `test` are in no other split."""
    folder = tmp_path_factory.mktemp("text")
    for split, lines in zip(corpus.SPLITS, (LINES, LINES, ["0\tb b z"] * 3), strict=True):
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def read(path):
    """The corpus of that folder, with these fields of its configuration."""
    return lambda **fields: corpus.open(Data(path=str(path), cache=str(path / "cache"), **fields))


def test_rows_of_a_split_are_the_encoded_sentences(read):
    text = read()
    words = text.vocabulary()
    assert words.words == (*vocab.SPECIALS, *"bacde")
    split = text.split("valid", words)
    assert [split[i].tolist() for i in range(len(split))] == [words.encode(line[2:].split()) for line in LINES]
    assert split.lengths.tolist() == [6, 5, 4, 4]
    assert split.labels.tolist() == [2, 0, 1, 1]
    assert split.unknown == 0
    assert split.digest == text.metadata("valid")["sha256"]
    np.testing.assert_allclose(text.split("test", words).unknown, 1 / 3)
    assert len(split.first(0)) == 4
    first = split.first(2)
    assert len(first) == len(first.labels) == 2
    made = Split.of([row.tolist() for row in (first[0], first[1])])
    np.testing.assert_array_equal(made.tokens, first.tokens)
    np.testing.assert_array_equal(made.offsets, first.offsets)


def test_a_limit_takes_the_first_sentences_of_training_and_validation_and_their_words_alone(read):
    few = read(limit_train=2, limit_valid=3)
    words = few.vocabulary()
    assert list(few.sentences("train", words)) == ["a b c d".split(), "a b c".split()]
    assert set(words.words[4:]) == set("abcd")
    assert [len(few.split(split, words)) for split in corpus.SPLITS] == [2, 3, 3]
    assert len(few.split("train", words).tokens) == 4 + 3 + 2 * 2
    assert read(limit_train=2, max_words=2).split("train", words).long == 2  # of those alone


@pytest.mark.parametrize(
    ("long", "kept", "labels", "done"),
    [
        ("cut", ["a b c", "a b c", "a b", "b e"], [2, 0, 1, 1], "cut"),
        ("drop", ["a b c", "a b", "b e"], [0, 1, 1], "left out"),
    ],
)
def test_long_sentences_are_cut_or_dropped_and_counted(read, long, kept, labels, done):
    text = read(max_words=3, long=long)
    words = text.vocabulary()
    assert "d" not in words.words
    split = text.split("train", words)
    assert [words.decode(split[i]) for i in range(len(split))] == kept
    assert split.labels.tolist() == labels
    assert split.long == 1
    assert f"train: 1 sentences of more than 3 words {done}" in corpus.remarks(text, {"train": split})


def test_a_split_whose_sentences_were_all_dropped_is_refused(read):
    text = read(max_words=1, long="drop")
    with pytest.raises(InputError, match=r"every train sentence has more than config\.data\.max_words=1"):
        text.split("train", text.vocabulary())


def test_a_missing_split_is_refused_where_it_is_read(tmp_path):
    (tmp_path / "train.txt").write_text("a b\n")
    text = corpus.open(Data(path=str(tmp_path), cache=str(tmp_path)))
    assert len(text.split("train", text.vocabulary())) == 1
    with pytest.raises(InputError, match=rf"^no valid\.txt or valid\.txt\.gz in {re.escape(str(tmp_path))}"):
        text.metadata("valid")


def test_a_vocabulary_in_nfd_is_that_of_a_text_in_nfc(read, tmp_path):
    vocab.vocabulary(["cafe\u0301", "a", "caf\u00e9"]).save(tmp_path / "vocab.txt")
    assert read(vocab=str(tmp_path / "vocab.txt")).vocabulary().words == (*vocab.SPECIALS, "caf\u00e9", "a")


KNOWN = ["a man sleeps .", "the dog runs home ."]
ROUGH, RARE = "many have capitals or punctuation; config.data.raw=True ", "they are rare or missing in train "
UNKNOWN = {
    "capitals": ("A MAN Sleeps .", {}, ROUGH),
    "unsplit punctuation": ("a man, the dog.", {}, ROUGH),
    "raw already": ("A cow eats!", {"raw": True}, RARE),
    "a small vocabulary": (KNOWN[1], {"vocab_size": 6}, RARE),
    "no spaces": ("今天天气好", {}, "most sentences are one word; expected spaces between words"),
    "special symbols": ("<s> a man </s>", {}, "most are <unk> or another special symbol in the text itself"),
    "another vocabulary": (KNOWN[0], {"vocab": "vocab.txt"}, "the vocabulary is that of config.data.vocab=vocab.txt"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_why_many_words_are_unknown_is_said(tmp_path, monkeypatch, case):
    valid, fields, reason = UNKNOWN[case]
    monkeypatch.chdir(tmp_path)
    vocab.vocabulary(["sentence"]).save(tmp_path / "vocab.txt")
    (tmp_path / "train.txt").write_text("\n".join(KNOWN))
    (tmp_path / "valid.txt").write_text(valid)
    text = corpus.open(Data(path=".", cache="cache", **fields))
    split = text.split("valid", text.vocabulary())
    expected = f"valid: {split.unknown:.1%} of the words are unknown: {reason}"
    assert any(line.startswith(expected) for line in corpus.remarks(text, {"valid": split}))


RAW = ["A man sleeps.", "The dog isn't here, is it?", "Ünï 日本 !"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_tokenizer_reads_whole_lines_back_and_counts_their_bytes(tmp_path, name):
    """Bytes are those of UTF-8, of the kept part of a long sentence, and of a line end."""
    (tmp_path / "train.txt").write_text("\n".join(RAW))
    fields = {"vocab_size": 270, "tokenizer": name, "path": str(tmp_path), "cache": str(tmp_path)}
    text = corpus.open(Data(**fields))
    words = text.vocabulary()
    split = text.split("train", words)
    assert [words.decode(row) for row in split] == RAW
    assert split.bytes.tolist() == [len(line.encode()) + 1 for line in RAW]
    assert split.unknown == 0
    assert split.first(2).bytes.tolist() == split.bytes[:2].tolist()
    words.save(tmp_path / tokenizer.FILES[name])
    given = corpus.open(Data(**fields, vocab=str(tmp_path / tokenizer.FILES[name]))).vocabulary()
    assert given.words == words.words
    cut = corpus.open(Data(**fields, max_words=2)).split("train", words)
    assert cut.lengths.tolist() == [4, 4, 4]
    kept = [words.decode(row) for row in cut]
    assert all(line.startswith(part) for line, part in zip(RAW, kept, strict=True))
    assert cut.bytes.tolist() == [len(part.encode()) + 1 for part in kept]
    assert f"train: 3 sentences of more than 2 {tokenizer.UNITS[name]} cut" in corpus.remarks(
        corpus.open(Data(**fields, max_words=2)), {"train": cut}
    )


@pytest.mark.parametrize(
    ("lines", "divided"),
    [
        ([*[f"a man , who sleeps {i} ." for i in range(9)], "is it the u.s. ?"], True),
        ([f"A man , who sleeps {i} ." for i in range(9)], False),
        (["w1 w2", "w3"], False),
        (RAW, False),
    ],
)
def test_text_that_is_divided_into_words_already_is_recognised(tmp_path, lines, divided):
    (tmp_path / "train.txt").write_text("\n".join(lines))
    remarks = corpus.remarks(corpus.open(Data(path=str(tmp_path), cache=str(tmp_path), tokenizer="bpe")), {})
    assert any("config.data.tokenizer=words reads these words" in line for line in remarks) == divided
    assert corpus.remarks(corpus.open(Data(path=str(tmp_path), cache=str(tmp_path))), {}) == []


def test_raw_is_for_words_alone(read):
    with pytest.raises(
        InputError, match=r"^config\.data\.raw=True divides text into words, and bpe reads it as it stands"
    ):
        read(raw=True, tokenizer="bpe")


def test_another_text_is_read_in_the_same_way(path, read, tmp_path):
    (tmp_path / "other.txt").write_text("".join(f"0\ta b c {i}\n" for i in range(300)))
    data = Data(path=str(path), cache=str(tmp_path), name="yelp", max_words=2)
    split = corpus.read(data, "train", read().vocabulary(), str(tmp_path / "other.txt"))
    assert set(split.lengths.tolist()) == {4}
    assert 200 < len(split) < 300


def test_the_corpora_of_the_package_are_read(tmp_path):
    captions = corpus.open(Data(path="package:snli", cache=str(tmp_path)))
    digests = [captions.metadata(split)["sha256"][:8] for split in corpus.SPLITS]
    assert digests == ["bb79550a", "27768c91", "b7380922"]  # runs are recorded with them
    for split in corpus.SPLITS:
        metadata = captions.metadata(split)
        assert metadata["sentences"] >= 1000
        assert not metadata["labelled"]
        assert not metadata.get("in_train")
    assert corpus.remarks(captions, {}) == []
    reviews = corpus.open(Data(path="package:tiny", cache=str(tmp_path)))
    assert [reviews.metadata(split)["sentences"] for split in corpus.SPLITS] == [666, 100, 100]
    assert set(reviews.split("test", reviews.vocabulary()).labels.tolist()) == {0, 1}
