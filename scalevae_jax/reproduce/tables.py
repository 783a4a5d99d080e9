"""The paper's tables with our numbers beside the paper's, written as Markdown, CSV, JSON and one HTML page.

A cell is the mean over seeds, with the standard deviation over seeds where there are several.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scalevae_jax.comparison import report
from scalevae_jax.comparison.comparison import Column
from scalevae_jax.comparison.trial import Record
from scalevae_jax.inference import metrics
from scalevae_jax.reproduce import paper
from scalevae_jax.reproduce.trials import SCALES, Scale, matches, shown
from scalevae_jax.runtime import storage


class TableRow(NamedTuple):
    """The values of each measure, one a seed, and the paper's number."""

    corpus: str
    system: str
    values: dict[str, list[float]]
    reported: dict[str, float]
    note: str = ""


class Table(NamedTuple):
    """A table of the paper, or the numbers beside a figure, as far as runs exist."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[TableRow]

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["corpus", "system", *(column.name for column in self.columns), "note"]

    def cells(self, row: TableRow) -> list[str]:
        """A row as text, under `header`."""
        cells = (report.cell(row.values[c.name], c.digits, row.reported.get(c.name)) for c in self.columns)
        return [row.corpus, row.system, *cells, row.note]


def _in(section: str, digits: int, *names: str) -> tuple[Column, ...]:
    def column(name: str) -> Column:
        return Column(name, digits, lambda record: record.get(section, {}).get(name))

    return tuple(column(name) for name in names)


def _quality(name: str, factor: int = 1) -> Column:
    def read(record: Record) -> float | None:
        value = record.get("text_quality", {}).get(name)
        return None if value is None else factor * value["mean"]

    return Column(name, 2, read)


def _accuracy(size: int) -> Column:
    def read(record: Record) -> float | None:
        draws = record.get("probe", {}).get("accuracy_percent", {}).get("sgd", {}).get(str(size))
        return None if draws is None else statistics.fmean(draws)

    return Column(f"accuracy_{size}", 1, read)


_DENSITY = (
    *_in("evaluation", 2, *metrics.ESTIMATES, "rec", "kl", "mi", "mi_ceiling"),
    *_in("evaluation", 1, "au", "au_hat"),
)
_TIME = (
    *_in("training", 3, "hours"),
    Column("ratio_to_vae", 2, lambda record: None),  # takes two rows; see `_compare_hours`
    *_in("training", 0, "epochs", "best_epoch"),
    *_in("training", 3, "hours_to_best"),
    *_in("training", 1, "seconds_epoch", "seconds_compiling"),
)
_QUALITY = (
    _quality("ppl"),
    *(_quality(f"gram_{n}", 100) for n in (2, 3, 4)),
    _quality("entropy_bits"),
    *(_quality(f"distinct_{n}", 100) for n in (1, 2)),
)
_SPACE = _in("space", 3, "purity", "mi", "kl_aggregate", "mi_q", "kl_aggregate_q")

COLUMNS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "table1": ("Table 1: density estimation (nats a sentence)", _DENSITY + _in("evaluation", 1, "mpd")),
    "table2": ("Table 2: time to convergence", _TIME),
    "table3": (
        "Table 3: Scale-VAE by des_std and f_epo (nats a sentence)",
        _DENSITY + _in("evaluation", 2, "factor_median", "factor_max"),
    ),
    "table4": ("Table 4: accuracy of a linear classifier, percent, by labels", tuple(map(_accuracy, paper.SIZES))),
    "table5": ("Table 5: generated sentences (gram_n in percent, distinct_n times 100)", _QUALITY),
    "figure1": ("Figure 1: beside the picture (purity; nats)", _SPACE),
    "figure2": ("Figure 2: beside the picture (nats)", _SPACE),
}  # Table 6 is sentences


def fill(table: str, scale: Scale, records: Sequence[Record], methods: Sequence[str] = ()) -> Table:
    """The table as far as the records go, only the rows of `methods` if there are any."""
    title, columns = COLUMNS[table]
    rows: list[TableRow] = []
    for row in shown(table, scale, methods):
        runs = [record for record in records if matches(record, row, scale)]
        values = {c.name: [float(x) for run in runs if (x := c.read(run)) is not None] for c in columns}
        notes = ["quoted by the paper"] if row.method in paper.QUOTED and row.reported else []
        fewer = "data.limit_train" in scale.special.get(row.method, {})
        if runs and fewer:  # such a row may be compared only with others of its kind
            notes.append(f"{runs[0]['config']['data']['limit_train']:,} training lines")
        rows.append(TableRow(scale.corpora[row.corpus].name, row.label, values, row.reported, "; ".join(notes)))
    if table == "table2":
        _compare_hours(rows)
    return Table(table, title, columns, rows)


def _compare_hours(rows: Sequence[TableRow]) -> None:
    """Sets the ratio of mean hours to those of the VAE on the same corpus."""
    base = {row.corpus: row.values["hours"] for row in rows if row.system == "vae"}
    for row in rows:
        if row.values["hours"] and base.get(row.corpus):
            ratio = statistics.fmean(row.values["hours"]) / statistics.fmean(base[row.corpus])
            row.values["ratio_to_vae"].append(ratio)


class Number(NamedTuple):
    """A line of report.csv, and an object of report.json."""

    table: str
    corpus: str
    system: str
    measure: str
    mean: float | None
    std: float | None  # None for a single seed
    seeds: int
    paper: float | None
    note: str


def numbers(tables: Sequence[Table]) -> list[Number]:
    """Every number of the tables, ours or the paper's."""
    found: list[Number] = []
    for table in tables:
        for row in table.rows:
            for measure, values in row.values.items():
                reported = row.reported.get(measure)
                if values or reported is not None:
                    mean = statistics.fmean(values) if values else None
                    std = statistics.stdev(values) if len(values) > 1 else None
                    where = (table.name, row.corpus, row.system, measure)
                    found.append(Number(*where, mean, std, len(values), reported, row.note))
    return found


def write(
    tables: Sequence[str],
    scale: str,
    methods: Sequence[str],
    records: Sequence[Record],
    pictures: Sequence[Path],
    out: Path,
) -> None:
    """Write the report on these runs into `out`, as report.md, .csv, .json and .html."""
    filled = [fill(table, SCALES[scale], records, methods) for table in tables if table in COLUMNS]
    note = "means over seeds, ± the standard deviation over seeds; in brackets the paper's number, on its own corpora"
    about = [f"scale {scale}: {SCALES[scale].about}", *report.about(records), note]
    title = f"scalevae_jax: {', '.join(tables)} at scale {scale}"
    sections = [report.table(table.title, table.header(), list(map(table.cells, table.rows))) for table in filled]
    if sentences := "\n\n".join("\n".join(block) for run in records for block in run.get("interpolations", [])):
        sections.append(report.text("Table 6: sentences between two draws from the prior", [sentences]))
    sections += [report.picture(path, out) for path in pictures]
    report.write(out / "report", title, about, sections, records)
    found = numbers(filled)
    storage.write_text(out / "report.csv", report.as_csv([Number._fields, *found]))
    rows = [number._asdict() for number in found]
    storage.write_json(out / "report.json", {"title": title, "about": about, "rows": rows})
