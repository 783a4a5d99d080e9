"""Byte-level BPE: every line comes back, whatever it was learned from; its file is read back, or refused."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalevae_jax.core.types import InputError
from scalevae_jax.data import subwords
from scalevae_jax.data.lines import clean_line
from scalevae_jax.data.vocab import BEGIN, END, SPECIALS, UNKNOWN

LINES = ["A man is sleeping on the train.", "The man isn't sleeping!", "Ünïted 日本 trains."] * 3


@pytest.fixture(scope="module")
def learned():
    return subwords.learn(LINES, 300)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_line_comes_back_without_an_unknown_token(learned, text):
    """Also what no reader lets through: control characters, line ends, runs of blanks, letters and accents apart."""
    ids = learned.encode(learned.split(text))
    assert (ids[0], ids[-1]) == (BEGIN, END)
    assert min(ids[1:-1], default=4) > UNKNOWN
    assert learned.decode(ids) == text
    line = clean_line(text, Counter())
    assert learned.written(learned.decode(learned.encode(learned.split(line)))) == line


def test_special_symbols_in_the_text_are_text(learned):
    text = " ".join(SPECIALS)
    assert learned.decode(learned.encode(learned.split(text))) == text


def test_what_is_common_is_one_token_and_learning_is_deterministic(learned):
    assert learned.words[:4] == SPECIALS
    assert learned.split("man sleeping")[-1] == "Ġsleeping"
    assert subwords.learn(LINES, 300).words == learned.words
    assert len(subwords.learn(LINES, 270)) == 270
    assert len(subwords.learn(LINES, 10_000, min_count=100)) == subwords.LEAST  # no pair is so frequent


def test_a_decoded_line_end_is_a_space_where_a_person_reads_it(learned):
    ids = learned.encode(learned.split("a\nb\x1b"))
    assert learned.written(learned.decode(ids)) == "a b"


def test_saved_subwords_are_read_back(learned, tmp_path):
    from tokenizers import Tokenizer

    learned.save(tmp_path / "tokenizer.json")
    loaded = subwords.load(tmp_path / "tokenizer.json")
    assert loaded == learned
    tokens = learned.split("The men slept, <s> 日!")
    assert loaded.split("The men slept, <s> 日!") == tokens
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("The men slept, <s> 日!").tokens == tokens


REFUSED = {
    "no JSON": lambda tree: None,
    "another model": lambda tree: tree | {"model": {"type": "WordLevel", "vocab": {}}},
    "no special symbols": lambda tree: tree | {"model": {"vocab": {"a": 0}, "merges": []}},
    "a gap in the ids": lambda tree: tree["model"]["vocab"].update({"!": 1000}) or tree,
    "a byte is missing": lambda tree: tree["model"]["vocab"].update({"two": tree["model"]["vocab"].pop("!")}) or tree,
    "a merge of nothing": lambda tree: tree["model"]["merges"].append(["never", "seen"]) or tree,
    "not UTF-8": lambda tree: b"\xff",
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_file_is_refused_by_name(learned, tmp_path, case):
    path = tmp_path / "tokenizer.json"
    learned.save(path)
    content = REFUSED[case](json.loads(path.read_text()))
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: not a ") as caught:
        subwords.load(path)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_room_for_every_byte_is_refused():
    with pytest.raises(InputError, match=r"^config\.data\.vocab_size: 259; bpe needs 260 entries or more"):
        subwords.learn(LINES, 259)
