"""Rows with named columns: .csv with a header, .jsonl with an object a line, .parquet."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from scalevae_jax.core.types import InputError
from scalevae_jax.data.config import LABEL

Row = tuple[str, Any, str]  # place, label (None without one) and sentence
Lines = Iterator[tuple[str, str]]  # the place of each line, and its text without its end
MOST_NAMES = 20  # shown of a row
LONGEST_CELL = 64 * 2**20  # characters
NAMED = "(the fields data.text_column and data.label_column name others)"


def _row(where: str, row: Mapping[str, Any], text: str, label: str) -> Row:
    sentence = row.get(text)
    if not isinstance(sentence, str):
        names = ", ".join(map(repr, itertools.islice(row, MOST_NAMES)))
        raise InputError(f"{where}: expected a string in {text!r} among {names} {NAMED}")
    try:
        sentence.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a surrogate pair in {text!r}, which UTF-8 cannot hold") from error
    return where, row.get(label), sentence


def _check_columns(where: str, names: list[str], text: str, label: str) -> None:
    """Raises InputError where a column is missing; the label's may be, unless the user has named it."""
    for column in (text,) if label == LABEL else (text, label):
        if names.count(column) != 1:
            problem = "no column" if column not in names else "more than one column"
            raise InputError(f"{where}: {problem} {column!r} among {', '.join(map(repr, names))} {NAMED}")


def csv_rows(lines: Lines, name: str, text: str, label: str) -> Iterator[Row]:
    """Rows of comma-separated values; the first line is the header, and a blank line has no sentence."""
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader((f"{line}\n" for _, line in lines), strict=True)  # a quoted cell may have several lines
    header: list[str] = []
    try:
        for row in rows:
            where = f"{name}: line {rows.line_num}"
            if not row:
                yield where, None, ""
            elif not header:
                header = row
                _check_columns(where, header, text, label)
            elif len(row) != len(header):
                raise InputError(f"{where}: {len(row)} columns; the header has {len(header)}; expected commas between")
            else:
                yield _row(where, dict(zip(header, row, strict=True)), text, label)
    except csv.Error as error:
        raise InputError(f"{name}: line {rows.line_num}: not CSV: {error}") from error


def json_rows(lines: Lines, text: str, label: str) -> Iterator[Row]:
    """Rows of JSON objects, one a line; a blank line has no sentence."""
    for where, line in lines:
        if not line.strip():
            yield where, None, ""
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object with a string in {text!r}")
        if label != LABEL and label not in row:
            raise InputError(f"{where}: expected a label in {label!r} {NAMED}")
        yield _row(where, row, text, label)


def parquet_rows(file: io.BufferedReader, name: str, text: str, label: str) -> Iterator[Row]:
    """Rows of a Parquet file; only the two columns are read, a group of rows at a time."""
    import pyarrow as pa  # here, since importing it takes half a second, which other files do not need
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        _check_columns(name, table.schema_arrow.names, text, label)
        columns = [column for column in (text, label) if column in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _row(f"{name}: row {number}", row, text, label)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{name}: not a readable Parquet file: {error}") from error
