"""The lines of a text, repaired or refused: labels and sentences of a corpus, and sentences from elsewhere.

A file is .txt (one sentence a line, or `label<TAB>sentence` in every line), .tsv (`label<TAB>sentence`), or a table of
`data.tables` (.csv, .jsonl, .parquet); all but .parquet also with .gz. A file takes the memory of its longest line.
What reads a user's sentences calls `clean_line` for each of them, or `read_texts` for a file of them.
"""

import codecs
import gzip
import io
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from scalevae_jax.core.types import InputError
from scalevae_jax.data import tables
from scalevae_jax.data.config import LABEL, TEXT
from scalevae_jax.runtime.storage import Path

KINDS = (".txt", ".tsv", ".csv", ".jsonl", ".parquet")
LONGEST_LINE = 64 * 2**20  # bytes
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Zero-width spaces, marks of direction, soft hyphens and byte order marks. Joiners (U+200C, U+200D) are letters of a
# word in Persian and in the scripts of India, so they go only where they stand alone.
INVISIBLE = re.compile(
    r"[\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]|(?<!\S)[\u200c\u200d]+(?!\S)"
)
MARK = re.compile("</?s>|<pad>")
PRINTED = bytes([9, 10, 13, *range(32, 256)])  # all bytes but those of control characters
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
INTEGER = re.compile(r" *[+-]?[0-9]{1,18} *")
REPAIRS = {
    "blank": "blank lines left out",
    "cr": "lines ended by CR alone, taken as the end of a line",
    "control": "lines with control characters, now spaces",
    "invisible": "lines with zero-width characters or byte order marks, which are left out",
    "composed": "lines with letters and accents apart (Unicode NFD), now together (NFC)",
    "mark": "lines with <s>, </s> or <pad>, which as words are read as <unk>; take them out of the text",
    "label": "labels before a tab left out",
}
Line = tuple[int | str | None, str]  # label and sentence


def kind(path: Path) -> str:
    """One of KINDS. Raises InputError for another name."""
    suffix = PurePath(path.name.removesuffix(".gz")).suffix
    if suffix not in KINDS or path.name.endswith(".parquet.gz"):
        raise InputError(
            f"{path}: expected a file name that ends in {', '.join(KINDS)}, with or without .gz (.parquet without)"
        )
    return suffix


def open_bytes(path: Path) -> io.BufferedReader:
    """A file as bytes, in a folder or a bucket."""
    file: Any = path.open("rb")
    return io.BufferedReader(file)  # a file in a bucket has no `readline` with a limit


def read_lines(path: Path, repairs: Counter[str], text_column: str = TEXT, label_column: str = LABEL) -> Iterator[Line]:
    """Label and sentence of each line, words separated by one space; counts in `repairs` the lines repaired. Where the
    first label is no integer, all are names.

    Raises InputError for a file that is unreadable, not UTF-8, labelled in some lines only, or not of its kind.
    """
    file_kind = kind(path)
    labelled = True if file_kind == ".tsv" else None  # None until the first sentence decides, as it does of names
    names: bool | None = None
    try:
        with open_bytes(path) as raw_file:
            for where, given, text in _rows(path, raw_file, file_kind, repairs, text_column, label_column):
                text = clean_line(text, repairs)
                if not text:
                    repairs["blank"] += 1
                    continue
                if labelled is None:
                    labelled = given is not None
                # A tab in an unlabelled sentence would make its first words a label; this line finds it.
                if labelled != (given is not None):
                    columns = file_kind not in (".txt", ".tsv")
                    expected = f"a label in {label_column!r}" if columns else "`label<TAB>`"
                    remedy = "" if columns else " (replace a tab in a sentence by a space)"
                    raise InputError(f"{where}: expected {expected} in every line or in none{remedy}")
                if given is None:
                    yield None, text
                    continue
                label = _label(given, where)
                number = INTEGER.fullmatch(label) is not None
                if names is None:
                    names = not number
                if not (names or number):
                    raise InputError(f"{where}: label {given!r} is not an integer, as the labels before it are")
                yield label if names else int(label), text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _rows(
    path: Path, raw_file: io.BufferedReader, file_kind: str, repairs: Counter[str], text: str, label: str
) -> Iterator[tables.Row]:
    """The place, the label and the sentence of each row of a file, as they stand there."""
    if file_kind == ".parquet":
        return tables.parquet_rows(raw_file, str(path), text, label)
    file: Any = gzip.GzipFile(fileobj=raw_file) if path.suffix == ".gz" else raw_file
    lines = decode_lines(file, str(path), repairs)
    if file_kind == ".csv":
        return tables.csv_rows(lines, str(path), text, label)
    if file_kind == ".jsonl":
        return tables.json_rows(lines, text, label)
    return ((where, *_text_line(line, where)) for where, line in lines)


def read_texts(file: io.BufferedIOBase, name: str, repairs: Counter[str]) -> list[str]:
    """The sentences of a user's file, one a line, each as `clean_line` gives it; a blank line is an empty sentence.

    Where every sentence has a label before a tab, the labels are left out. Raises InputError for what is not text.
    """
    lines = [line for _, line in decode_lines(file, name, repairs)]
    if all(re.match(rf"{INTEGER.pattern}\t", line) for line in lines if line.strip()):
        repairs["label"] += sum("\t" in line for line in lines)
        lines = [line.partition("\t")[2] for line in lines]
    return [clean_line(line, repairs) for line in lines]


def clean_line(text: str, repairs: Counter[str]) -> str:
    """A sentence as training reads it: in Unicode NFC, nothing invisible in it, words separated by one space.

    Counts in `repairs` what was repaired, by the keys of REPAIRS.
    """
    if CONTROL.search(text):
        text = CONTROL.sub(" ", text)
        repairs["control"] += 1
    if not text.isascii():
        if INVISIBLE.search(text):
            text = INVISIBLE.sub("", text)
            repairs["invisible"] += 1
        # One accented letter can be written in two ways, which look alike and would be two words.
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            repairs["composed"] += 1
    if MARK.search(text):
        repairs["mark"] += 1
    return " ".join(text.split())


def repaired(counts: Mapping[str, int]) -> list[str]:
    """What was repaired, a phrase each: `3 blank lines left out`."""
    return [f"{counts[key]:,} {text}" for key, text in REPAIRS.items() if counts.get(key)]


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Lines with their ends: LF, CRLF, or CR alone, as in files of old Macintoshes and of some spreadsheets."""
    rest = b""
    while chunk := file.readline(LONGEST_LINE):
        lines = (rest + chunk).splitlines(keepends=True)
        # What has no LF at its end may go on in the next chunk.
        rest = b"" if chunk.endswith(b"\n") or len(lines[-1]) >= LONGEST_LINE else lines.pop()
        yield from lines
    if rest:
        yield rest


def decode_lines(file: io.BufferedIOBase, name: str, repairs: Counter[str]) -> Iterator[tuple[str, str]]:
    """The place of each line, `NAME: line N`, and its text, without its end and without a byte order mark before it."""
    for number, raw in enumerate(_lines(file), 1):
        where = f"{name}: line {number}"
        if len(raw) >= LONGEST_LINE:
            raise InputError(f"{where}: longer than {LONGEST_LINE >> 20} MiB; expected one sentence a line")
        if number == 1 and raw.startswith(UTF_16):
            raise InputError(f"{where}: the file is UTF-16; convert it (iconv -f UTF-16 -t UTF-8)")
        line = raw.rstrip(b"\r\n")
        # UTF-16 without a byte order mark may be valid UTF-8, with a control character for every other byte.
        if len(line) >= 8 and 3 * len(line.translate(None, PRINTED)) > len(line):
            raise InputError(
                f"{where}: more than a third of it is control characters; if the file is UTF-16 without a byte order "
                "mark, convert it (iconv -f UTF-16LE -t UTF-8, or UTF-16BE)"
            )
        if raw.endswith(b"\r"):
            repairs["cr"] += 1
        if number > 1 and line.startswith(codecs.BOM_UTF8):  # where files were joined
            repairs["invisible"] += 1
        line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield where, line.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where}: byte {error.start + 1} is not UTF-8; convert the file from its encoding, for example "
                "iconv -f LATIN1 -t UTF-8"
            ) from error


def _text_line(line: str, where: str) -> tuple[str | None, str]:
    label, tab, sentence = line.partition("\t")
    if "\t" in sentence.strip():
        columns = sentence.count("\t") + 2
        raise InputError(
            f"{where}: {columns} columns; expected a sentence, or `label<TAB>sentence` (take two of them: cut -f2,3; "
            "replace a tab in a sentence by a space)"
        )
    return (label, sentence) if tab else (None, line)


def _label(label: Any, where: str) -> str:
    """The text of a label."""
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise InputError(f"{where}: label {label!r}: expected an integer or a word")
    text = " ".join(CONTROL.sub(" ", str(label)).split())
    if not text:
        raise InputError(f"{where}: the label is empty; text before a tab is a label")
    return text
