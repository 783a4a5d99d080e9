"""A file of sentences, read line by line: what is repaired is counted, what can not be is refused with its line.

Kinds: .txt (a sentence, or `label<TAB>sentence` in every line), .tsv (`label<TAB>sentence`), .jsonl (an object a line,
its label in the field `label`), each also with .gz. Memory is that of the longest line.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

KINDS = (".txt", ".tsv", ".jsonl")
LONGEST = 64 * 2**20  # bytes of a line
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LABEL = re.compile(r" *[+-]?[0-9]{1,18} *")
REPAIRS = {
    "blank": "blank lines left out",
    "crlf": "lines ended by CRLF, which is left out",
    "control": "lines with control characters, now spaces",
}
Line = tuple[int | None, str]


def kind(path: Path) -> str:
    """.txt, .tsv or .jsonl; other names raise InputError."""
    suffix = PurePath(path.name.removesuffix(".gz")).suffix
    if suffix not in KINDS:
        raise InputError(f"{path}: a file whose name ends in {', '.join(KINDS)} is wanted, .gz after it or not")
    return suffix


def read_lines(path: Path, found: Counter[str], field: str = "text") -> Iterator[Line]:
    """Label and sentence of each line, words separated by one space; adds to `found` what was repaired, by line.

    Raises InputError for what is unreadable, not UTF-8, labelled in some lines only, or not of its kind.
    """
    of = kind(path)
    labelled = True if of == ".tsv" else None
    try:
        with storage.open_bytes(path) as raw_file:
            file = gzip.GzipFile(fileobj=raw_file) if path.suffix == ".gz" else raw_file
            for number, raw in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
                where = f"{path}: line {number}"
                text = _text(raw, where, found, first=number == 1)
                label, text = _object(text, where, field) if of == ".jsonl" else _columns(text)
                if CONTROL.search(text):
                    text = CONTROL.sub(" ", text)
                    found["control"] += 1
                text = " ".join(text.split())
                if not text:
                    found["blank"] += 1
                    continue
                if labelled is None:
                    labelled = label is not None
                if labelled != (label is not None):
                    raise InputError(
                        f"{where}: `label<TAB>` must stand in every line or in none (or a tab in a sentence be a space)"
                    )
                yield None if label is None else _integer(label, where), text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can not be read: {error}") from error


def _text(raw: bytes, where: str, found: Counter[str], first: bool) -> str:
    """The line without its end."""
    if len(raw) == LONGEST:
        raise InputError(f"{where}: longer than {LONGEST >> 20} MiB; one sentence a line is wanted")
    raw = raw.removesuffix(b"\n")
    if raw.endswith(b"\r"):
        raw = raw[:-1]
        found["crlf"] += 1
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} is not UTF-8; convert the file (iconv -f LATIN1 -t UTF-8)"
        ) from error


def _columns(text: str) -> tuple[str | None, str]:
    label, tab, rest = text.partition("\t")
    return (label, rest) if tab else (None, text)


def _object(text: str, where: str, field: str) -> tuple[Any, str]:
    if not text.strip():
        return None, ""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    sentence = line.get(field) if isinstance(line, dict) else None
    if not isinstance(sentence, str):
        raise InputError(f"{where}: an object with a text in the field {field!r} is wanted (--config.data.field)")
    try:
        sentence.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a surrogate pair in {field!r}; it has no UTF-8") from error
    return line.get("label"), sentence


def _integer(label: Any, where: str) -> int:
    text = label if isinstance(label, str) else json.dumps(label)
    if not LABEL.fullmatch(CONTROL.sub(" ", text)):
        raise InputError(
            f"{where}: label {label!r} is not an integer of at most 18 digits; what stands before a tab is a label"
        )
    return int(CONTROL.sub(" ", text))
