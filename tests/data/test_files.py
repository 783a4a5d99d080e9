"""Finding the files of a corpus and reading their lines: what is kept, repaired, and refused with its place."""

import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files, lines
from scalevae_jax.data.config import Data

NAMES = [f"train{kind}{gz}" for kind in lines.KINDS for gz in ("", ".gz")][:-1]  # .parquet is compressed inside


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name="train.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


def _read(path, **options):
    """Lines and repairs."""
    repairs = Counter()
    return list(lines.read_lines(path, repairs, **options)), dict(repairs)


def _refused(function, *parts):
    """An error of one line that holds `parts` in this order."""
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(".*".join(map(re.escape, parts)), message), message


def _touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"a\n")


def test_a_folder_has_a_file_for_each_split_and_a_single_file_holds_them_all(tmp_path):
    _touch(tmp_path, "train.txt", "valid.jsonl", "test.tsv", "other.txt")
    found = files.find(Data(path=str(tmp_path)))
    names = {"train": "train.txt", "valid": "valid.jsonl", "test": "test.tsv"}
    assert found.files == {split: tmp_path / name for split, name in names.items()}
    assert found.split == ""
    found = files.find(Data(path=str(tmp_path / "other.txt"), split="8/1/1", split_seed=3))
    assert found.files == dict.fromkeys(files.SPLITS, tmp_path / "other.txt")
    assert (found.split, found.seed) == ("8/1/1", 3)


def test_plain_files_go_before_compressed_ones_and_bare_names_before_longer_ones(tmp_path):
    for name in ["yahoo.train.txt", "train.tsv", "train.txt.gz", "train.txt"]:
        _touch(tmp_path, name)
        assert files.find(Data(path=str(tmp_path))).files["train"].name == name


def test_a_corpus_of_the_paper_without_a_path_is_read_from_its_folder_in_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/yahoo"
    data = Data(name="yahoo")
    _refused(lambda: files.find(data), f"no such file or folder: {folder}: put train.txt, ", "--config.data.path=PATH")
    folder.mkdir(parents=True)
    _touch(folder, "yahoo.train.txt")
    assert set(files.find(data).files) == {"train"}


def test_missing_and_ambiguous_files_are_refused_with_the_remedy(tmp_path):
    def find(path):
        return lambda: files.find(Data(path=str(path)))

    _refused(find(tmp_path), f"no train.txt or train.txt.gz in {tmp_path}", "data.path=")
    _refused(find(tmp_path / "no"), f"no such file or folder: {tmp_path / 'no'}")
    _touch(tmp_path, "deutsch.txt")
    _refused(find(tmp_path / "deutch.txt"), f"no such file: {tmp_path / 'deutch.txt'} (deutsch.txt is beside it); give")
    for name in ("nothing", "../../tests", "/etc", ".."):
        _refused(find(f"package:{name}"), f"package:{name}: no corpus of the package")
    _refused(find(""), "no text is given: --config.data.path=")
    _touch(tmp_path, "my.doc", "my.parquet.gz", "yahoo.train.txt", "yelp.train.txt")
    for name in ("my.doc", "my.parquet.gz"):
        _refused(find(tmp_path / name), f"{tmp_path / name}: expected a file name that ends in .txt, .tsv, .csv, ")
    _refused(find(tmp_path), f"{tmp_path}: expected one file for the train split, got yahoo.train.txt, yelp.train.txt")


def test_the_digest_covers_bytes_names_and_how_they_are_read(tmp_path):
    _touch(tmp_path, "train.txt", "my.txt")
    folder, file = str(tmp_path), str(tmp_path / "my.txt")
    ways = [{"path": folder}, {"path": folder, "raw": True}, {"path": folder, "text_column": "a"}]
    ways += [{"path": folder, "label_column": "a"}, {"path": file, "split": "8/1/1"}]
    ways += [{"path": file, "split_seed": seed} for seed in (0, 1)]
    digests = [files.find(Data(**way)).digest() for way in ways]
    for name, content in (("valid.txt", b"a\n"), ("valid.txt", b"b\n"), ("valid.txt.gz", gzip.compress(b"b\n"))):
        (tmp_path / "valid.txt").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(content)
        digests.append(files.find(Data(path=folder)).digest())
    assert len(set(digests)) == len(digests)
    assert files.find(Data(path=folder)).digest() == digests[-1]


REPAIRED = {
    "white space": ("a  man\u3000sleeps .\n", ["a man sleeps ."], {}),
    "blank lines": ("a\n\n \nb\n", ["a", "b"], {"blank": 2}),
    "CRLF": ("a b\r\nc\r\n", ["a b", "c"], {}),
    "CR alone": ("a b\rc\rd", ["a b", "c", "d"], {"cr": 2}),
    "control characters": ("c\x00d\x1b\x85\nünï\n", ["c d", "ünï"], {"control": 1}),
    "a byte order mark at the start": ("\ufeffa b\n", ["a b"], {}),
    "byte order marks where files were joined": ("a\n\ufeffb c\nd\ufeffe\n", ["a", "b c", "de"], {"invisible": 2}),
    "zero-width characters": ("runs\u200b so\xadfar\n\u200c\n", ["runs sofar"], {"invisible": 2, "blank": 1}),
    "a joiner in a Persian word": ("\u0645\u06cc\u200c\u062e\n", ["\u0645\u06cc\u200c\u062e"], {}),
    "NFD": ("cafe\u0301\ncaf\u00e9\n", ["caf\u00e9", "caf\u00e9"], {"composed": 1}),
    "special symbols": ("<s> a </s>\na <pad>\na <unk>\n", ["<s> a </s>", "a <pad>", "a <unk>"], {"mark": 2}),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_not_as_it_seems_is_repaired_and_counted(write, case):
    content, sentences, repairs = REPAIRED[case]
    assert _read(write(content.encode())) == ([(None, text) for text in sentences], repairs)
    assert len(lines.repaired(repairs)) == len(repairs)


def test_a_file_of_cr_ends_is_read_in_chunks(write, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    found = _read(write(b"aaaa\rbbbb\r\ncc\rdd\n"))  # ten bytes end between CR and LF
    assert found == ([(None, text) for text in ("aaaa", "bbbb", "cc", "dd")], {"cr": 2})


def test_sentences_from_elsewhere_are_read_like_those_of_a_corpus():
    def read(content):
        repairs = Counter()
        return lines.read_texts(io.BytesIO(content), "--input -", repairs), +repairs

    assert read("\ufeff1\ta b\r\n\n0\tc\n".encode()) == (["a b", "", "c"], {"label": 2})
    assert read(b"1\ta\nthe dog\truns\n") == (["1 a", "the dog runs"], {})
    assert read(b"") == ([], {})
    _refused(lambda: read(b"a\n\xff"), "--input -: line 2: byte 1 is not UTF-8")


@pytest.mark.parametrize("name", ["train.txt", "train.tsv.gz"])
def test_labels_stand_before_a_tab_and_a_label_without_words_is_a_blank_line(write, name):
    content = b"1\ta b\n-2\tc\n +0 \td\t\n1\t\n"
    assert _read(write(content, name)) == ([(1, "a b"), (-2, "c"), (0, "d")], {"blank": 1})


def test_a_jsonl_line_is_an_object(write):
    rows = [{"text": "a\nb", "label": 3}, {"label": "4", "text": "ü", "other": []}]
    content = "\n".join(map(json.dumps, rows)).encode()
    assert _read(write(content, "train.jsonl")) == ([(3, "a b"), (4, "ü")], {})
    named = _read(write(b'{"body": "a b", "y": "c"}\n\n', "train.jsonl"), text_column="body", label_column="y")
    assert named == ([("c", "a b")], {"blank": 1})


def test_a_csv_has_a_header_and_a_quoted_cell_may_have_commas_quotes_and_lines(write):
    content = b'id,label,text\r\n1,good,"a, ""b""\nc"\r\n\r\n2,bad,d\r\n'
    assert _read(write(content, "train.csv")) == ([("good", 'a, "b" c'), ("bad", "d")], {"blank": 1})
    other = _read(write(content, "train.csv.gz"), text_column="label", label_column="id")[0]
    assert other == [(1, "good"), (2, "bad")]


def test_a_parquet_file_has_columns(tmp_path):
    table = pa.table(
        {"text": ["a  b", "", "c"], "stars": pa.array(["5", "1", "2"]).dictionary_encode(), "n": [1, 2, 3]}
    )
    parquet.write_table(table, tmp_path / "train.parquet")
    assert _read(tmp_path / "train.parquet") == ([(None, "a b"), (None, "c")], {"blank": 1})
    assert _read(tmp_path / "train.parquet", label_column="stars")[0] == [(5, "a b"), (2, "c")]


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        (["1", " +2", "-3"], [1, 2, -3]),
        (["good", "5", "not  good"], ["good", "5", "not good"]),
        (["1.5", "2"], ["1.5", "2"]),
    ],
)
def test_labels_are_integers_or_where_the_first_is_none_names(write, labels, read):
    content = "".join(f"{label}\ta\n" for label in labels).encode()
    assert [label for label, _ in _read(write(content))[0]] == read


def test_a_line_of_a_megabyte_is_read_and_an_empty_gz_has_no_line(write, tmp_path):
    (line,), repairs = _read(write(b"word " * 200_000))
    assert len(line[1].split()) == 200_000
    assert not repairs
    (tmp_path / "empty.txt.gz").write_bytes(b"")
    assert _read(tmp_path / "empty.txt.gz") == ([], {})


PACKED = gzip.compress(b"a man sleeps .\n" * 100)
FLIPPED = PACKED[:12] + bytes([PACKED[12] ^ 255, PACKED[13] ^ 255]) + PACKED[14:]
IN_EVERY_LINE = "expected `label<TAB>` in every line or in none"
WIDE, ICONV = "a man\nsleeps\n", "if the file is UTF-16 without a byte order mark, convert it (iconv -f UTF-16LE"
REFUSED = {
    "not UTF-8": ("train.txt", b"a\nb \xff c\n", ("line 2: byte 3 is not UTF-8",)),
    "UTF-16": ("train.txt", WIDE.encode("utf-16"), ("line 1: the file is UTF-16; ", "iconv -f UTF-16 -t UTF-8")),
    "UTF-16 without a mark": ("train.txt", WIDE.encode("utf-16-le"), ("line 1: ", ICONV)),
    "UTF-16, big-endian": ("train.txt", WIDE.encode("utf-16-be"), ("line 1: ", ICONV, "UTF-16BE")),
    "UTF-16 of Cyrillic": ("train.txt", "привет мир\n".encode("utf-16-le"), ("line 1: ", ICONV)),
    "UTF-16 taken for Latin-1": ("train.txt", WIDE.encode("utf-16").decode("latin-1").encode(), ("line 1: ", ICONV)),
    "three columns": ("train.tsv", b"0\t1\ta b\n", ("line 1: 3 columns; ", "cut -f2,3")),
    "a label later": ("train.txt", b"a\nb\n1\tb\n", ("line 3: ", IN_EVERY_LINE)),
    "no label later": ("train.txt", b"1\ta\n\nb\n", ("line 3: ", IN_EVERY_LINE)),
    "no label at all": ("train.tsv", b"a\n", ("line 1: ", IN_EVERY_LINE)),
    "a word among integers": ("train.txt", b"1\ta\ngood\tb\n", ("line 2: label 'good' is not an integer, as",)),
    "an empty label": ("train.tsv", b"\ta\n", ("line 1: the label is empty",)),
    "a huge label": ("train.tsv", b"1\ta\n9999999999999999999\ta\n", ("line 2: ", "is not an integer")),
    "a boolean label": ("train.jsonl", b'{"text": "a", "label": true}', ("line 1: label True: expected an integer",)),
    "no such column": ("train.csv", b"a;text\nb;c\n", ("line 1: no column 'text' among 'a;text' ", "data.text_column")),
    "a column twice": ("train.csv", b"text,text\nb,c\n", ("line 1: more than one column 'text' among ",)),
    "a row of other columns": ("train.csv", b"label,text\n1,b,c\n", ("line 2: 3 columns; the header has 2",)),
    "a quote without end": ("train.csv", b'text\n"a\nb\n', ("line 3: not CSV: ",)),
    "no label in a cell": ("train.csv", b"label,text\n1,a\n,b\n", ("line 3: the label is empty",)),
    "no Parquet": ("train.parquet", b"PAR1", ("not a readable Parquet file: ",)),
    "labels in part": (
        "train.jsonl",
        b'{"text": "a", "label": 1}\n{"text": "a"}',
        ("line 2: expected a label in 'label' in every line or in none",),
    ),
    "not JSON": ("train.jsonl", b'{"text": "a"}\n{"text"', ("line 2: not JSON",)),
    "JSON without end": ("train.jsonl", b"[" * 100_000, ("line 1: not JSON",)),
    "another field": ("train.jsonl", b'{"body": "a"}', ("line 1: ", "a string in 'text'", "data.text_column")),
    "no object": ("train.jsonl", b'"text"', ("line 1: ", "'text'")),
    "a surrogate": ("train.jsonl", b'{"text": "\\ud800"}', ("line 1: ", "surrogate")),
    "too long a line": ("train.txt", b"a\n" + b"b" * 2**20, ("line 2: longer than 1 MiB", "one sentence a line")),
    "another kind": ("train.doc", b"a", ("expected a file name that ends in .txt, .tsv, .csv, .jsonl, .parquet",)),
    "a truncated gz": ("train.txt.gz", PACKED[:-12], ("cannot be read: ", "end-of-stream")),
    "a damaged gz": ("train.txt.gz", FLIPPED, ("cannot be read: ",)),
    "no gz at all": ("train.txt.gz", b"a man sleeps .\n", ("cannot be read: ", "Not a gzipped file")),
    "no file": ("train.txt", None, ("cannot be read: ", "No such file")),
    "a folder": ("folder.txt", None, ("cannot be read: ", "directory")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_its_name_and_line(tmp_path, monkeypatch, case):
    name, content, parts = REFUSED[case]
    monkeypatch.setattr(lines, "LONGEST_LINE", 2**20)
    (tmp_path / "folder.txt").mkdir()
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    _refused(lambda: _read(path), f"{path}: ", *parts)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def _words(text: str) -> str:
    return lines.clean_line(text, Counter())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(texts=st.lists(TEXTS, max_size=20), end=st.sampled_from(["\n", "\r\n"]), name=st.sampled_from(NAMES))
def test_no_valid_line_is_lost(write, texts, end, name):
    if "parquet" in name:
        content = io.BytesIO()
        parquet.write_table(pa.table({"text": pa.array(texts, pa.string()), "label": range(len(texts))}), content)
        found, repairs = _read(write(content.getvalue(), name))
    else:
        if "jsonl" in name:
            rows = [json.dumps({"text": text, "label": i}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
        elif "csv" in name:
            rows = ["text,label"] + ['"{}",{}'.format(text.replace('"', '""'), i) for i, text in enumerate(texts)]
        else:
            rows = [f"{i}\t{text}" for i, text in enumerate(texts)]
        found, repairs = _read(write("".join(row + end for row in rows).encode(), name))
    assert found == [(i, _words(text)) for i, text in enumerate(texts) if _words(text)]
    assert repairs.get("blank", 0) == len(texts) - len(found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.binary(max_size=200), name=st.sampled_from(NAMES), packed=st.booleans())
def test_random_bytes_are_read_or_refused_in_one_line(write, content, name, packed):
    path = write(content, name)
    if not packed:
        path.write_bytes(content)
    try:
        found, _ = _read(path)
    except InputError:
        _refused(lambda: _read(path), f"{path}: ")
        return
    if path.name == "train.txt":
        kept = [_words(line.rpartition(b"\t")[2].decode()) for line in content.splitlines()]
        assert len(found) == sum(map(bool, kept))
    assert all(text and text == " ".join(text.split()) for _, text in found)
