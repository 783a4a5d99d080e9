"""A report as Markdown and as one HTML page that asks for no other file: tables, pictures, and the runs behind them."""

import base64
import csv
import html
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from scalevae_jax.comparison.trial import Record
from scalevae_jax.runtime import storage

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
th, td {{ border-bottom: 1px solid #bbb; padding: .2rem .6rem; text-align: right; white-space: nowrap; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
img {{ max-width: 100%; }}
pre {{ background: #f3f3f3; padding: .6rem; overflow-x: auto; }}
</style></head><body>
{body}
</body></html>
"""


class Section(NamedTuple):
    """A part of a report in both formats, under its heading."""

    heading: str
    markdown: str
    html: str


def cell(values: Sequence[float], digits: int, reported: float | None = None) -> str:
    """The mean over seeds, the standard deviation where there are several, and in brackets the paper's number."""
    text = f"{statistics.fmean(values):.{digits}f}" if values else "-"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text + (f" ({reported:g})" if reported is not None else "")


def table(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Section:
    """A table of text, with a sentence above it if there is something to say."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in cells) + "</tr>"

    markdown = "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])
    page = "\n".join([line("th", header), *(line("td", cells) for cells in rows)])
    above = (f"{note}\n\n", f"<p>{html.escape(note)}</p>\n") if note else ("", "")
    return Section(heading, above[0] + markdown, f"{above[1]}<table>\n{page}\n</table>")


def text(heading: str, lines: Iterable[str]) -> Section:
    """Lines as they are."""
    joined = "\n".join(lines)
    return Section(heading, f"```text\n{joined}\n```", f"<pre>{html.escape(joined)}</pre>")


def picture(path: Path, out: Path) -> Section:
    """A PNG file, which the page contains, so that it can be sent as one file."""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{path.stem}" src="data:image/png;base64,{data}">'
    return Section(path.stem, f"![{path.stem}]({path.relative_to(out)})", image)


def _html_run(record: Record) -> str:
    """A run's data, seed, commit and commands, folded away."""
    digests = ", ".join(f"{split} {digest[:12]}" for split, digest in record["sha256"].items())
    facts = f"{record['corpus']} ({digests}), seed {record['seed']}, git {record['git'] or 'unknown'}"
    commands = [step["command"] for step in record["steps"].values()] or [record["command"]]
    name, facts, lines = (html.escape(part) for part in (record["run"], facts, "\n".join(commands)))
    return f"<details><summary>{name}</summary><p>{facts}</p><pre>{lines}</pre></details>"


def about(records: Sequence[Record]) -> list[str]:
    """Where the numbers of these runs come from."""
    devices = sorted({record["device"] or "unknown" for record in records})
    commits = sorted({record["git"] or "unknown" for record in records})
    digests = sorted({f"{r['corpus']} {split} {sha[:12]}" for r in records for split, sha in r["sha256"].items()})
    hours = sum(record["training"]["hours"] for record in records)
    return [
        f"{len(records)} runs, {hours:.2f} hours of training, on {', '.join(devices)}",
        f"commit {', '.join(commits)}",
        f"sha256 of the text: {', '.join(digests)}",
    ]


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows as text, the names of the columns first."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def write(stem: Path, title: str, facts: Sequence[str], sections: Sequence[Section], records: Sequence[Record]) -> None:
    """Write the report to `stem`.md and `stem`.html."""
    markdown = [f"# {title}", *(f"- {line}" for line in facts)]
    page = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in facts)]
    for section in sections:
        markdown += [f"\n## {section.heading}\n", section.markdown]
        page += [f"<h2>{html.escape(section.heading)}</h2>", section.html]
    page += ["<h2>Runs: data, commit, commands</h2>", *map(_html_run, records)]
    storage.write_text(stem.with_suffix(".md"), "\n".join(markdown) + "\n")
    storage.write_text(stem.with_suffix(".html"), PAGE.format(title=html.escape(title), body="\n".join(page)))
