"""Results as files: Markdown, CSV, JSON, and one HTML page that holds its pictures and asks for nothing else."""

import base64
import csv
import html
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalevae_jax.reproduce.tables import Record, Table, cells, header

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #bbb; padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
img { max-width: 100%; }
pre { background: #f3f3f3; padding: .6rem; overflow-x: auto; }
"""


def markdown_table(result: Table) -> str:
    """A table of Markdown; a table that nothing was measured for says so."""
    names, lines = header(result), [cells(result, line) for line in result.lines]
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def markdown(
    title: str, about: Sequence[str], results: Sequence[Table], sentences: str, pictures: Sequence[Path]
) -> str:
    """The whole report; pictures are linked, relative to it."""
    parts = [f"# {title}", "\n".join(f"- {line}" for line in about)]
    parts += [f"## {result.title}\n\n{markdown_table(result)}" for result in results]
    if sentences:
        parts.append(f"## Table 6: sentences between two draws from the prior\n\n```text\n{sentences}\n```")
    parts += [f"![{path.stem}]({path.parent.name}/{path.name})" for path in pictures]
    return "\n\n".join(parts) + "\n"


FIELDS = ("table", "corpus", "system", "measure", "mean", "std", "seeds", "paper", "note")  # of a number


def rows(results: Sequence[Table]) -> list[dict[Any, Any]]:
    """Every number on a line of its own; `mean` and `std` are over the seeds, `std` None for one."""
    out = []
    for result in results:
        for line in result.lines:
            for column in result.columns:
                values, reported = line.values.get(column.name, []), line.reported.get(column.name)
                if values or reported is not None:
                    mean = statistics.fmean(values) if values else None
                    std = statistics.stdev(values) if len(values) > 1 else None
                    where = (result.name, line.corpus, line.label, column.name)
                    out.append(dict(zip(FIELDS, (*where, mean, std, len(values), reported, line.note), strict=True)))
    return out


def table_csv(results: Sequence[Table]) -> str:
    """The same as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    return text.getvalue()


def _html_table(result: Table) -> str:
    def row(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

    body = "\n".join(row("td", cells(result, line)) for line in result.lines)
    return f"<table>\n{row('th', header(result))}\n{body}\n</table>"


def _details(records: Sequence[Record]) -> str:
    lines = []
    for record in records:
        digests = ", ".join(f"{split} {digest[:12]}" for split, digest in record["sha256"].items())
        commands = [step["command"] for step in record["steps"].values()] or [record["command"]]
        facts = f"{record['corpus']} ({digests}), seed {record['seed']}, git {record['git'] or 'unknown'}"
        text = f"{html.escape(facts)}</p><pre>{html.escape(chr(10).join(commands))}</pre>"
        lines.append(f"<details><summary>{html.escape(record['run'])}</summary><p>{text}</details>")
    return "\n".join(lines)


def page(
    title: str,
    about: Sequence[str],
    results: Sequence[Table],
    sentences: str,
    pictures: Sequence[Path],
    records: Sequence[Record],
) -> str:
    """The report as one HTML file, the PNG pictures inside."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in about)]
    for result in results:
        parts += [f"<h2>{html.escape(result.title)}</h2>", _html_table(result)]
    if sentences:
        parts += [
            "<h2>Table 6: sentences between two draws from the prior</h2>",
            f"<pre>{html.escape(sentences)}</pre>",
        ]
    for path in pictures:
        data = base64.b64encode(path.read_bytes()).decode()
        parts += [f"<h2>{html.escape(path.stem)}</h2>", f'<img alt="{path.stem}" src="data:image/png;base64,{data}">']
    parts += ["<h2>Runs: data, commit, commands</h2>", _details(records)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
