"""Reading lines: what is kept, repaired and counted, and which file, line and byte an error names."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files

NAMES = [f"train{kind}{gz}" for kind in files.KINDS for gz in ("", ".gz")]


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name="train.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


def _read(path, **options):
    """Lines and repairs."""
    found = Counter()
    return list(files.read_lines(path, found, **options)), dict(found)


def _outcome(path):
    """Lines, or the message."""
    try:
        return _read(path)[0], None
    except InputError as error:
        return [], str(error)


def _refused(path, *parts):
    """An error of one line that begins with the file's name and goes on with `parts`."""
    with pytest.raises(InputError) as caught:
        _read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(re.escape(f"{path}: ") + ".*".join(map(re.escape, parts)), message), message


@pytest.mark.parametrize("name", ["train.txt", "train.txt.gz"])
@pytest.mark.parametrize("last", [b"\n", b""], ids=["newline at the end", "none at the end"])
def test_sentences_are_words_between_spaces(write, name, last):
    assert _read(write(b"a man  sleeps .\n" + "ünï\u3000b ".encode() + last, name)) == (
        [(None, "a man sleeps ."), (None, "ünï b")],
        {},
    )


@pytest.mark.parametrize("name", ["train.txt", "train.tsv", "train.tsv.gz"])
def test_labels_stand_before_a_tab(write, name):
    content = b"1\ta b\n-2\tc\n +0 \td\t7\n"
    assert _read(write(content, name))[0] == [(1, "a b"), (-2, "c"), (0, "d 7")]


def test_a_jsonl_line_is_an_object(write):
    rows = [{"text": "a\nb", "label": 3}, {"label": "4", "text": "ü", "other": []}]
    content = "\n".join(map(json.dumps, rows)).encode()
    assert _read(write(content, "train.jsonl")) == ([(3, "a b"), (4, "ü")], {})
    assert _read(write(b'{"body": "a b"}\n\n', "train.jsonl.gz"), field="body") == ([(None, "a b")], {"blank": 1})


def test_crlf_blank_lines_and_control_characters_are_repaired_and_counted(write):
    content = b"\xef\xbb\xbfa b\r\n\r\n \nc\x00d\x1b\x85\n\tlabelled\n".replace(b"\x85", "\x85".encode())
    with pytest.raises(InputError):  # a tab in one line only
        _read(write(content))
    assert _read(write(content.replace(b"\t", b" "))) == (
        [(None, "a b"), (None, "c d"), (None, "labelled")],
        {"crlf": 2, "blank": 2, "control": 1},
    )


def test_a_label_without_words_is_a_blank_line(write):
    assert _read(write(b"1\ta\n1\t\n")) == ([(1, "a")], {"blank": 1})


def test_a_line_of_ten_megabytes_is_read(write):
    (line,), found = _read(write(b"word " * 2_000_000))
    assert len(line[1].split()) == 2_000_000
    assert not found


REFUSED = {
    "not UTF-8": (b"a\nb \xff c\n", "train.txt", ("line 2: ", "byte 3", "UTF-8")),
    "UTF-16": ("a b\n".encode("utf-16"), "train.txt", ("line 1: ", "byte 1", "UTF-8")),
    "a label later": (b"a\nb\n1\tb\n", "train.txt", ("line 3: ", "in every line or in none")),
    "no label later": (b"1\ta\n\nb\n", "train.txt", ("line 3: ", "in every line or in none")),
    "no label at all": (b"a\n", "train.tsv", ("line 1: ", "in every line or in none")),
    "a word for a label": (b"1\ta\ngood\tb\n", "train.txt", ("line 2: ", "'good'", "not an integer")),
    "a fraction for a label": (b"1.5\ta\n", "train.tsv", ("line 1: ", "'1.5'", "not an integer")),
    "an empty label": (b"\ta\n", "train.tsv", ("line 1: ", "''", "not an integer")),
    "a huge label": (b"9999999999999999999\ta\n", "train.tsv", ("line 1: ", "not an integer of at most 18")),
    "a truth for a label": (b'{"text": "a", "label": true}', "train.jsonl", ("line 1: ", "True", "not an integer")),
    "not JSON": (b'{"text": "a"}\n{"text"', "train.jsonl", ("line 2: ", "not JSON")),
    "JSON without end": (b"[" * 100_000, "train.jsonl", ("line 1: ", "not JSON")),
    "another field": (b'{"body": "a"}', "train.jsonl", ("line 1: ", "'text'", "data.field")),
    "no object": (b'"text"', "train.jsonl", ("line 1: ", "'text'")),
    "a surrogate": (b'{"text": "\\ud800"}', "train.jsonl", ("line 1: ", "surrogate")),
    "no such kind": (b"a", "train.csv", ("a file whose name ends in .txt, .tsv, .jsonl",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_read_is_refused_with_its_line(write, case):
    content, name, parts = REFUSED[case]
    _refused(write(content, name), *parts)


def test_a_line_without_end_is_refused(write, monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 2**20)
    _refused(write(b"a\n" + b"b" * 2**20), "line 2: ", "longer than 1 MiB", "one sentence a line")


def test_a_truncated_or_damaged_gz_is_refused(tmp_path):
    packed = gzip.compress(b"a man sleeps .\n" * 100)
    damaged = packed[:12] + bytes([packed[12] ^ 255, packed[13] ^ 255]) + packed[14:]
    for i, content in enumerate((packed[:-12], b"a man sleeps .\n", damaged, b"")):
        path = tmp_path / f"{i}.txt.gz"
        path.write_bytes(content)
        if content:
            _refused(path, "can not be read")
        else:
            assert _read(path) == ([], {})


def test_what_is_missing_or_a_folder_is_refused(tmp_path):
    _refused(tmp_path / "train.txt", "can not be read", "No such file")
    (tmp_path / "folder.txt").mkdir()
    _refused(tmp_path / "folder.txt", "can not be read", "directory")


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\t\r"), max_size=20)


def _words(text: str) -> str:
    return " ".join(files.CONTROL.sub(" ", text).split())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(texts=st.lists(WORDS, max_size=20), end=st.sampled_from(["\n", "\r\n"]), name=st.sampled_from(NAMES))
def test_no_valid_line_is_lost(write, texts, end, name):
    if "jsonl" in name:
        rows = [json.dumps({"text": text, "label": i}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
    else:
        rows = [f"{i}\t{text}" for i, text in enumerate(texts)]
    got, found = _read(write("".join(row + end for row in rows).encode(), name))
    assert got == [(i, _words(text)) for i, text in enumerate(texts) if _words(text)]
    assert found.get("blank", 0) == len(texts) - len(got)
    assert found.get("crlf", 0) == (len(texts) if end == "\r\n" else 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.binary(max_size=200), name=st.sampled_from(NAMES), packed=st.booleans())
def test_random_bytes_are_read_or_refused_in_one_line(write, content, name, packed):
    path = write(content, name)
    if not packed:
        path.write_bytes(content)
    got, error = _outcome(path)
    if error is not None:
        assert error.startswith(f"{path}: ")
        assert "\n" not in error
        return
    if path.name == "train.txt":
        kept = [_words(line.rpartition("\t")[2]) for line in content.decode("utf-8-sig").split("\n")]
        assert len(got) == sum(map(bool, kept))
    assert all(text and text == " ".join(text.split()) for _, text in got)
