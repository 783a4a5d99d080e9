"""The paper's tables filled with what was measured: means and spreads over seeds, the paper's figure beside ours."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scalevae_jax.inference import metrics
from scalevae_jax.methods import method
from scalevae_jax.reproduce import paper
from scalevae_jax.reproduce.paper import Row
from scalevae_jax.reproduce.trials import Scale, shown

Record = dict[str, Any]  # see record.py


class TableColumn(NamedTuple):
    """A measure: its name, digits to print, and how it is read from a record (None where it is not there)."""

    name: str
    digits: int
    read: Callable[[Record], float | None]


class TableRow(NamedTuple):
    """A row of a table: the values of each measure, one a seed, and the paper's."""

    corpus: str
    label: str
    values: dict[str, list[float]]
    reported: dict[str, float]
    note: str = ""


class Table(NamedTuple):
    """A table, filled as far as it has been measured."""

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    lines: list[TableRow]


def _in(section: str, digits: int, *names: str) -> tuple[TableColumn, ...]:
    def reader(name: str) -> Callable[[Record], float | None]:
        return lambda record: record.get(section, {}).get(name)

    return tuple(TableColumn(name, digits, reader(name)) for name in names)


def _quality(name: str, digits: int, times: int) -> TableColumn:
    def read(record: Record) -> float | None:
        value = record.get("text_quality", {}).get(name)
        return None if value is None else times * value["mean"]

    return TableColumn(name, digits, read)


def _accuracy(size: int) -> TableColumn:
    def read(record: Record) -> float | None:
        drawn = record.get("probe", {}).get("accuracy_percent", {}).get("sgd", {}).get(str(size))
        return None if drawn is None else statistics.fmean(drawn)

    return TableColumn(f"accuracy_{size}", 1, read)


_NATS = (*metrics.READINGS, "rec", "kl", "mi", "mi_ceiling")
_DENSITY = _in("evaluation", 2, *_NATS) + _in("evaluation", 1, "au", "au_hat")
_SPACE = _in("space", 3, "purity", "mi", "kl_aggregate", "mi_q", "kl_aggregate_q")

COLUMNS: dict[str, tuple[str, tuple[TableColumn, ...]]] = {
    "table1": (
        "Table 1: density estimation (nats a sentence)",
        _DENSITY + _in("evaluation", 1, "mpd"),
    ),
    "table2": (
        "Table 2: time to convergence",
        (
            *_in("training", 3, "hours"),
            TableColumn("ratio_to_vae", 2, lambda record: None),  # of two lines; see `fill`
            *_in("training", 0, "epochs", "best_epoch"),
            *_in("training", 3, "hours_to_best"),
            *_in("training", 1, "seconds_epoch", "seconds_compiling"),
        ),
    ),
    "table3": (
        "Table 3: Scale-VAE by des_std and f_epo (nats a sentence)",
        _DENSITY + _in("evaluation", 2, "factor_median", "factor_max"),
    ),
    "table4": ("Table 4: accuracy of a linear classifier, percent, by labels", tuple(map(_accuracy, paper.SIZES))),
    "table5": (
        "Table 5: generated sentences (gram_n in percent, distinct_n times 100)",
        (
            _quality("ppl", 2, 1),
            *(_quality(f"gram_{n}", 2, 100) for n in (2, 3, 4)),
            _quality("entropy_bits", 2, 1),
            _quality("distinct_1", 2, 100),
            _quality("distinct_2", 2, 100),
        ),
    ),
    "figure1": ("Figure 1: beside the picture (purity; nats)", _SPACE),
    "figure2": ("Figure 2: beside the picture (nats)", _SPACE),
}  # fmt: skip


def matches(record: Record, row: Row, corpus: str) -> bool:
    """Whether the run is one of the row's: every hyperparameter is the row's, or where it has none the default."""
    defaults = {key: parameter.default for key, parameter in method.hyperparameters(row.method).items()}
    return (
        (record["corpus"], record["method"], record["partition"]) == (corpus, row.method, row.partition)
        and record["hyperparameters"] == defaults | row.hyperparameters
    )  # fmt: skip


def trained_on(scale: Scale, row: Row) -> str:
    """The name of the corpus that stands for the row's."""
    return scale.settings[row.corpus].name.removeprefix("package:")


def _values(columns: tuple[TableColumn, ...], found: Sequence[Record]) -> dict[str, list[float]]:
    return {c.name: [float(value) for r in found if (value := c.read(r)) is not None] for c in columns}


def _beyond(table: str, scale: Scale, records: Sequence[Record]) -> list[TableRow]:
    """Runs on the table's corpora that the paper does not have; a line a run."""
    columns, lines = COLUMNS[table][1], []
    known = paper.ROWS["table1"] + paper.ROWS["table3"]
    corpora = dict.fromkeys(trained_on(scale, row) for row in shown(table, scale))
    for record in records:
        if record["corpus"] not in corpora or "evaluation" not in record:
            continue
        if any(matches(record, row, record["corpus"]) for row in known):
            continue
        defaults = method.hyperparameters(record["method"])
        given = {
            key: value
            for key, value in record["hyperparameters"].items()
            if key in ("des_std", "f_epo") or value != defaults[key].default
        }
        row = Row(record["corpus"], record["method"], given, {})
        lines.append(TableRow(record["corpus"], row.label, _values(columns, [record]), {}, "not in the paper"))
    return lines


def fill(table: str, scale: Scale, records: Sequence[Record], methods: Sequence[str] = ()) -> Table:
    """The table as far as the records go, of the methods named (none is all); a row without a run has no values."""
    title, columns = COLUMNS[table]
    lines = []
    for row in shown(table, scale, methods):
        corpus = trained_on(scale, row)
        found = [record for record in records if matches(record, row, corpus)]
        of = sorted({record["config"]["data"]["limit_train"] for record in found} - {0})
        note = "quoted by the paper" if row.quoted else ""
        if row.method in scale.special and of:
            note = "; ".join(filter(None, [note, f"{of[0]:,} training lines"]))
        lines.append(TableRow(corpus, row.label, _values(columns, found), row.reported, note))
    if table == "table1" and not methods:
        lines += _beyond(table, scale, records)
    if table == "table2":
        _ratios(lines)
    return Table(table, title, columns, lines)


def _ratios(lines: list[TableRow]) -> None:
    base: dict[str, TableRow] = {}
    for line in lines:
        vae = base.setdefault(line.corpus, line) if line.label == "vae" else base.get(line.corpus)
        if vae and vae.values["hours"] and line.values["hours"]:
            line.values["ratio_to_vae"] = [
                statistics.fmean(line.values["hours"]) / statistics.fmean(vae.values["hours"])
            ]


def cell(values: Sequence[float], digits: int) -> str:
    """Mean, and the standard deviation where there is more than one; a dash for none."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def header(result: Table) -> list[str]:
    """The names of the columns; the paper's figure stands behind ours."""
    names = ["corpus", "system"]
    for column in result.columns:
        names += [column.name, *(["paper"] if _has_paper(result, column) else [])]
    return [*names, "note"]


def _has_paper(result: Table, column: TableColumn) -> bool:
    return any(column.name in line.reported for line in result.lines)


def cells(result: Table, line: TableRow) -> list[str]:
    """A line as text, under `header`."""
    texts = [line.corpus, line.label]
    for column in result.columns:
        texts.append(cell(line.values.get(column.name, []), column.digits))
        if _has_paper(result, column):
            reported = line.reported.get(column.name)
            texts.append("-" if reported is None else f"{reported:.{max(1, min(column.digits, 2))}f}")
    return [*texts, line.note]
