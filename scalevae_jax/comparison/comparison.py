"""Evaluated runs side by side: a table, paired differences to a baseline, the rate-distortion plane, curves."""

import json
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from scalevae_jax.comparison import paired, pictures, records, report
from scalevae_jax.comparison.paired import Difference
from scalevae_jax.comparison.pictures import STYLE, Point
from scalevae_jax.comparison.trial import Record
from scalevae_jax.config import FIELDS, Config
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import metrics
from scalevae_jax.inference.evaluate import rate_of
from scalevae_jax.methods import method
from scalevae_jax.runtime import console, storage
from scalevae_jax.training import workdir

# Fields that do not make another system: places, seeds, and how a run is watched, saved and evaluated.
SAME = ("data.name", "data.path", "data.cache", "train.seed", "eval.", "checkpoint.", "method.")
# Fields of `data` that decide which words are unknown.
OWN_WORDS = ("tokenizer", "vocab", "vocab_size", "min_count", "max_words", "raw")


class Column(NamedTuple):
    """A measure of a table: its name, the digits to print, how a record gives it (None without it), and what it is."""

    name: str
    digits: int
    read: Callable[[Record], float | None]
    meaning: str = ""


def _evaluated(key: str) -> Callable[[Record], float | None]:
    return lambda record: record["evaluation"].get(key)


def _accuracy(record: Record) -> float | None:
    sizes = record.get("probe", {}).get("accuracy_percent", {}).get("sgd", {})
    return float(np.mean(sizes[max(sizes, key=int)])) if sizes else None


def bound(record: Record) -> str:
    """The estimate of the tightest valid bound."""
    return metrics.tightest(record["evaluation"])


def prior(record: Record) -> str:
    """The prior of the tightest bound: model is the one that is sampled, exact that there is no z."""
    if record["evaluation"]["kl"] is None:
        return "exact"
    return bound(record).removeprefix("nll").strip("_").removesuffix("_prior") or "model"


COLUMNS = (
    Column("bound", 2, lambda r: r["evaluation"][bound(r)], "the tightest valid bound on -log p(x); exact without z"),
    Column("rec", 2, _evaluated("rec"), "-log p(x|z)"),
    Column("rate", 2, lambda r: r["evaluation"].get(rate_of(bound(r))), "KL(q_hat || the prior of the bound)"),
    Column("nll_paper", 2, _evaluated("nll_paper"), "NO BOUND where the factor is not 1"),
    Column("mi", 2, _evaluated("mi"), "mutual information of sentence and z"),
    Column("exact", 3, _evaluated("exact"), "share of sentences given back"),
    Column("content_recall", 3, _evaluated("content_recall"), "share of content words given back"),
    Column("shuffled", 3, _evaluated("content_recall_shuffled"), "the same by chance"),
    Column("au", 1, _evaluated("au"), "active units"),
    Column("bleu", 1, _evaluated("bleu"), "of the reconstructions, 0 to 100"),
    Column("z_content", 3, _evaluated("z_content"), "average precision of content words, read off z"),
    Column("accuracy", 1, _accuracy, "of the label, percent, by `probe` with the most labels"),
    Column("epochs", 0, lambda record: record["training"]["best_epoch"], "to the best"),
    Column("seconds", 1, lambda record: record["training"]["seconds_epoch"], "an epoch"),
)


class System(NamedTuple):
    """One configuration, and its runs, one a seed."""

    name: str
    records: list[Record]

    @property
    def prior(self) -> str:
        """Of the bounds; seeds may differ in it."""
        return ", ".join(sorted({prior(record) for record in self.records}))

    def values(self, column: Column) -> list[float]:
        """One a seed, without those that are missing."""
        return [float(value) for record in self.records if (value := column.read(record)) is not None]

    def sentences(self) -> Float[np.ndarray, "seeds sentences"]:
        """The cost of each sentence by the bound, in nats."""
        return np.array([record["sentences"]["bound"] for record in self.records])


class Comparison(NamedTuple):
    """Systems, the one with the lowest bound first, and their differences to the baseline, by name."""

    systems: list[System]
    baseline: System | None
    differences: dict[str, Difference]

    @property
    def records(self) -> list[Record]:
        """Of all runs."""
        return [record for system in self.systems for record in system.records]

    @property
    def table(self) -> dict[str, list[Any]]:
        """A list a column: the system, its seeds, the prior of the bound, then mean and standard deviation of every
        measure (None for one seed), None where it is missing. `pandas.DataFrame(table)` reads it."""
        columns: dict[str, list[Any]] = {
            "system": [system.name for system in self.systems],
            "seeds": [len(system.records) for system in self.systems],
            "prior": [system.prior for system in self.systems],
        }
        for column in COLUMNS:
            values = [system.values(column) for system in self.systems]
            columns[column.name] = [float(np.mean(each)) if each else None for each in values]
            columns[f"{column.name}_std"] = [float(np.std(each, ddof=1)) if len(each) > 1 else None for each in values]
        return columns

    @property
    def points(self) -> list[Point]:
        """Every run in the rate-distortion plane; a model without z has rate 0."""
        found: list[Point] = []
        for system in sorted(self.systems, key=lambda s: (s.records[0]["method"], _order(s.records[0]))):
            for record in system.records:
                measured = record["evaluation"]
                rate = measured.get(rate_of(bound(record))) or 0.0
                paid = measured["kl"] if measured.get("factor_median") is not None else None
                where = record["method"], system.name, record["seed"], prior(record)
                found.append(Point(*where, rate, measured["rec"], measured[bound(record)], paid))
        return found

    def cells(self, most: int = len(COLUMNS)) -> tuple[list[str], list[list[str]]]:
        """The table as text: its header and its rows, of `most` measures. One that no run has is left out."""
        shown = [column for column in COLUMNS[:most] if any(system.values(column) for system in self.systems)]
        header = ["system", "prior", "seeds", *(column.name for column in shown)]
        rows = [
            [s.name, s.prior, str(len(s.records)), *(report.cell(s.values(c), c.digits) for c in shown)]
            for s in self.systems
        ]
        return header, rows

    def plot(self) -> Figure:
        """The rate-distortion plane."""
        with matplotlib.rc_context(STYLE):
            return pictures.plane(self.points)

    def write(self, out: Path) -> list[str]:
        """Write the report and its pictures into a folder; returns the names of the files."""
        with matplotlib.rc_context(STYLE):
            first = {system.name: system.records[0]["training"]["curves"] for system in self.systems}
            drawn = {"plane": pictures.plane(self.points), "curves": pictures.curves(first)}
            for name, figure in drawn.items():
                pictures.save(figure, out / name)
        meanings = [f"{column.name}: {column.meaning}" for column in COLUMNS]
        facts = [*report.about(self.records), "nats a sentence; mean over seeds ± standard deviation", *meanings]
        sections = [report.table("Systems", *self.cells())]
        if self.baseline:
            note = "Of the bound, on the same sentences, nats a sentence; negative is better than the baseline."
            sections.append(report.table(f"Difference from {self.baseline.name}", *self.difference_cells(), note))
        sections += [report.picture(out / f"{name}.png", out) for name in drawn]
        report.write(out / "comparison", "Comparison", facts, sections, self.records)
        table = self.table
        storage.write_text(out / "comparison.csv", report.as_csv([table, *zip(*table.values(), strict=True)]))
        storage.write_text(out / "plane.csv", report.as_csv([Point._fields, *self.points]))
        return ["comparison.md", "comparison.html", "comparison.csv", "plane.csv", *(f"{name}.png" for name in drawn)]

    def difference_cells(self) -> tuple[list[str], list[list[str]]]:
        """The differences as text: header and rows."""
        header = ["system", "bound", "difference", f"{paired.LEVEL:.0%} interval", "over"]
        return header, [
            [name, d.word, f"{d.mean:+.2f}", f"{d.low:+.2f} to {d.high:+.2f}", "sentences" + " and seeds" * d.seeds]
            for name, d in self.differences.items()
        ]


def _order(record: Record) -> list[tuple[str, float]]:
    """Hyperparameters in an order of their values."""
    numbers = {key: value for key, value in record["hyperparameters"].items() if isinstance(value, int | float)}
    return sorted((key, float(value)) for key, value in numbers.items())


def find(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Record]:
    """The records of runs: of a workdir, of every workdir in a folder or in its `runs`, or of record files.

    Runs that are not evaluated are left out with a warning. Raises InputError where none is left.
    """
    found: list[Record] = []
    for path in map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths):
        if (path / workdir.WEIGHTS).is_file():
            raise InputError(f"{path}: an exported model; give the folder of its run, which has the evaluation")
        parent = path / "runs" if (path / "runs").is_dir() else path
        folders = (
            [path] if (path / workdir.RUN).is_file() else sorted(f.parent for f in parent.glob(f"*/{workdir.RUN}"))
        )
        if not folders:
            found += [records.read_file(path)] if path.is_file() else records.read_all(path)
        for folder in folders:
            try:
                found.append(records.read(folder))
            except InputError as error:  # as of a run that has just begun
                console.warn(f"left out: {error}")
    for record in found:
        if "sentences" not in record:
            todo = "run `python -m scalevae_jax.evaluate --split test` on it"
            console.warn(f"{record['run']}: left out, since its test sentences are not evaluated; {todo}")
        elif record["evaluation"].get("epoch", best := record["training"]["best_epoch"]) != best:
            console.warn(f"{record['run']}: evaluated before its best epoch, {best}; evaluate it again")
    found = [record for record in found if "sentences" in record]
    if not found:
        raise InputError("no evaluated run; give folders of runs, and evaluate each with `scalevae_jax.evaluate` first")
    return found


def _setting(record: Record) -> dict[str, Any]:
    """What makes a run's system: the fields of its configuration but those of SAME, its text, and its
    hyperparameters."""
    recorded = {f"{section}.{key}": value for section, keys in record["config"].items() for key, value in keys.items()}
    defaults = Config()
    # a record that is older than a field was made with what is now the field's default
    fields = {field: operator.attrgetter(field)(defaults) for field in FIELDS} | recorded
    kept = {field: value for field, value in fields.items() if not field.startswith(SAME)}
    text = {"data.text": record.get("sha256", {}).get("train", "")[:8]}
    return {"method": record["method"]} | kept | text | record["hyperparameters"]


def names(runs: Sequence[Record]) -> list[str]:
    """The system of each run: its method, hyperparameters that are not defaults, and fields that are not alike."""
    settings = [_setting(record) for record in runs]
    fields = {key for setting in settings for key in setting if "." in key}
    differing = {key for key in fields if len({str(setting.get(key)) for setting in settings}) > 1}
    found: list[str] = []
    for setting in settings:
        name = setting["method"]
        defaults = method.hyperparameters(name) if name in method.METHODS else {}
        given = [key for key in setting if key != "method" and "." not in key]
        shown = [key for key in given if key not in defaults or setting[key] != defaults[key].default]
        values = [f"{key.rpartition('.')[2]}={setting.get(key)}" for key in [*shown, *sorted(differing)]]
        found.append(" ".join([name, *values]))
    return found


def find_baseline(wanted: str, methods: Mapping[str, str]) -> str:
    """The system of this name, or the only one of this method, among systems given as their methods by name."""
    found = [name for name in methods if name == wanted] or [name for name in methods if methods[name] == wanted]
    if len(found) != 1:
        raise InputError(f"--baseline {wanted}: expected one of {', '.join(methods)}")
    return found[0]


def compare(found: Sequence[Record], baseline: str = "") -> Comparison:
    """Compare evaluated runs. `baseline` is a system by its name, or a method of which there is one.

    Raises InputError where runs were evaluated on different sentences, where two are of one system and one seed, or
    where there is no such baseline.
    """
    texts = {(r["evaluation"]["split"], r["evaluation"]["data"]["sha256"], len(r["sentences"]["rec"])) for r in found}
    if len(texts) > 1:
        which = "; ".join(f"{r['run']}: {r['evaluation']['split']}, {len(r['sentences']['rec'])}" for r in found)
        raise InputError(f"runs were evaluated on different sentences ({which}); evaluate them alike")
    if len({json.dumps([record["config"]["data"].get(key) for key in OWN_WORDS]) for record in found}) > 1:
        console.warn("the runs read text in different ways, so the costs of unknown words differ")
    draws = {r["evaluation"]["iw_samples"] for r in found if r["evaluation"]["kl"] is not None}
    if len(draws) > 1:
        console.warn(f"bounds with {', '.join(map(str, sorted(draws)))} draws: the more draws, the tighter the bound")
    by_name: dict[str, list[Record]] = {}
    for name, record in zip(names(found), found, strict=True):
        for other in by_name.setdefault(name, []):
            if other["seed"] == record["seed"]:
                both = f"{other['run']} and {record['run']}"
                raise InputError(f"{both}: both are {name} with seed {record['seed']}; give one of them")
        by_name[name].append(record)
    systems = [System(name, runs) for name, runs in by_name.items()]
    systems.sort(key=lambda system: float(np.mean(system.values(COLUMNS[0]))))
    if not baseline:
        return Comparison(systems, None, {})
    chosen = find_baseline(baseline, {system.name: system.records[0]["method"] for system in systems})
    (base,) = (system for system in systems if system.name == chosen)
    others = [system for system in systems if system is not base]
    return Comparison(
        systems, base, {system.name: paired.difference(system.sentences(), base.sentences()) for system in others}
    )
