"""The tables and figures of the paper, each by one command.

Examples:
  python -m scalevae_jax.reproduce all --scale smoke --out results/smoke
  python -m scalevae_jax.reproduce table1 table4 --scale cpu --data DIR --out results/cpu --methods vae,scale_vae
  python -m scalevae_jax.reproduce table1 --scale paper --data DIR --out results/paper --list

WHAT is table1 to table6, figure1, figure2, or all. Every row is a run of its own, with its own workdir in OUT/runs;
tables share what they share. Given again, the command passes over what is done and goes on with what was stopped. Each
finished run has its record in OUT/rows; the report is OUT/report.html, .md, .csv and .json, pictures in OUT/figures.
--list prints the commands, one run a line, and runs nothing. Scales:
"""

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import figures, page
from scalevae_jax.reproduce.figures import Space
from scalevae_jax.reproduce.paper import ROWS, Row
from scalevae_jax.reproduce.runner import Scheduler, done
from scalevae_jax.reproduce.tables import COLUMNS, Record, fill, matches, trained_on
from scalevae_jax.reproduce.trials import ARRAYS, SCALES, Scale, Trial, plan, shown
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.flags import Flags

WHAT = (*ROWS, "all")
MOST_CURVES = 28  # runs in one picture, each with a look of its own


def read_records(folder: Path) -> list[Record]:
    """The records of a folder, in the order of their names. Raises InputError for a file that is none."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
            _ = found[-1]["training"]["curves"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not the record of a run ({error!r}); delete it, and it is made again") from error
    return found


def _of_q_hat(row: Row, numbers: dict[str, Any]) -> tuple[str, str]:
    """Title and caption of a picture of Figure 1."""
    purity = "" if numbers["purity"] is None else f"purity {numbers['purity']:.2f}, "
    caption = f"{purity}KL from prior {numbers['kl_aggregate']:.2f} nats\nMI {numbers['mi']:.2f} nats"
    return f"{row.method}, {row.partition}", caption


def _of_q(row: Row, numbers: dict[str, Any]) -> tuple[str, str]:
    """Title and caption of a picture of Figure 2."""
    return row.method, f"KL from prior {numbers['kl_aggregate_q']:.2f} nats"


SPACES = {"figure1": (figures.latent_spaces, _of_q_hat), "figure2": (figures.aggregates, _of_q)}


def _spaces(table: str, scale: Scale, records: Sequence[Record], runs: Path) -> list[Space]:
    """The first seed of each row, where its arrays are at hand."""
    spaces = []
    for row in shown(table, scale):
        for found in records:
            arrays = runs / found["run"] / ARRAYS
            if matches(found, row, trained_on(scale, row)) and arrays.is_file():
                title, caption = SPACES[table][1](row, found["space"])
                spaces.append(Space.read(title, arrays, caption))
                break
    return spaces


def draw(tables: Sequence[str], scale: Scale, records: Sequence[Record], runs: Path, folder: Path) -> list[Path]:
    """All pictures that the records allow; their PNG files."""
    made: dict[str, figures.Figure] = {}
    with figures.style():
        for table, (drawn, _) in SPACES.items():
            if table in tables and (spaces := _spaces(table, scale, records, runs)):
                made[table] = drawn(spaces)
        if "table3" in tables:
            swept, reported = [], {}
            for row in shown("table3", scale):
                found = [r for r in records if matches(r, row, trained_on(scale, row)) and "evaluation" in r]
                if found and row.hyperparameters["des_std"] not in reported:  # the smallest f_epo of each
                    swept.append(row.hyperparameters | found[0]["evaluation"])
                    reported[row.hyperparameters["des_std"]] = row.reported["nll_paper"]
            if swept:
                made["readings"] = figures.readings(swept, reported)
        for corpus in dict.fromkeys(r["corpus"] for r in records):
            of_corpus: dict[str, Any] = {}
            for r in (r for r in records if r["corpus"] == corpus):  # the first seed of each system
                of_corpus.setdefault(r["run"].removeprefix(f"{corpus}-").split("-seed_")[0], r["training"]["curves"])
            if len(of_corpus) > MOST_CURVES:
                console.warn(f"{corpus}: the first {MOST_CURVES} of {len(of_corpus)} curves are drawn")
            made[f"curves_{corpus}"] = figures.curves(dict(list(of_corpus.items())[:MOST_CURVES]))
        for name, figure in made.items():
            figures.save(figure, folder / name)
    return [folder / f"{name}.png" for name in made]


def _sentences(records: Sequence[Record]) -> str:
    blocks = ["\n".join(block) for r in records for block in r.get("interpolations", [])]
    return "\n\n".join(blocks)


def write(
    tables: Sequence[str], name: str, methods: Sequence[str], records: Sequence[Record], out: Path, runs: Path
) -> None:
    """The report of what is done; `runs` has the workdirs."""
    scale = SCALES[name]
    filled = [fill(table, scale, records, methods) for table in tables if table in COLUMNS]
    pictures = draw(tables, scale, records, runs, out / "figures")
    commits = sorted({r["git"] or "unknown" for r in records})
    digests = sorted({f"{r['corpus']} {part} {d[:12]}" for r in records for part, d in r["sha256"].items()})
    about = [
        f"scale {name}: {scale.about}",
        f"{len(records)} runs, {sum(r['training']['hours'] for r in records):.2f} hours of training, "
        f"on {', '.join(sorted({r['device'] or 'unknown' for r in records}))}",
        f"commit {', '.join(commits)}",
        f"sha256 of the text: {', '.join(digests)}",
        "means over seeds, ± the standard deviation over seeds; 'paper' is the paper's figure, on its own corpora",
    ]
    title, sentences = f"scalevae_jax: {', '.join(tables)} at scale {name}", _sentences(records)
    storage.write_text(out / "report.md", page.markdown(title, about, filled, sentences, pictures))
    storage.write_text(out / "report.csv", page.table_csv(filled))
    storage.write_json(out / "report.json", {"title": title, "about": about, "rows": page.rows(filled)})
    storage.write_text(out / "report.html", page.page(title, about, filled, sentences, pictures, records))


FLAGS = Flags()
SCALE = FLAGS.choice("scale", "smoke", list(SCALES), "see above")
OUT = FLAGS.string("out", None, "the folder of everything; results/SCALE without it")
METHODS = FLAGS.words("methods", [], "of the rows, these methods alone; all without it")
SEEDS = FLAGS.integer("seeds", None, "runs of each row; paper: 5, else 1", 1)
DATA = FLAGS.string(
    "data",
    None,
    "a folder that has the corpora as folders: yahoo, yelp, yelp_sentiment; cpu: yahoo_sentences, yelp_sentiment",
)
JOBS = FLAGS.integer("jobs", 1, "runs at once", 1)
DEVICES = FLAGS.words("devices", [], "GPUs that jobs take turns at, such as 0,1,2,3")
LIST = FLAGS.yes("list", False, "print the commands, one run a line, and end")


def _tables(words: Sequence[str]) -> list[str]:
    if not words:
        raise InputError(f"what is to be reproduced? of {', '.join(WHAT)} (see --help)")
    for word in words:
        if word not in WHAT:
            raise InputError(f"{word}: of {', '.join(WHAT)}")
    return list(ROWS) if "all" in words else list(dict.fromkeys(words))


def _list(trials: Sequence[Trial]) -> None:
    console.console.stderr = True
    left = [trial for trial in trials if not done(trial)]
    console.log(
        f"{len(trials)} runs, {len(trials) - len(left)} of them done; a line of commands for each that is left:"
    )
    for trial in left:
        commands = [
            f"{step.command} > {trial.workdir / step.output}" if step.captured else step.command for step in trial.steps
        ]
        print(" && ".join(commands))


def _command(words: list[str]) -> None:
    tables, scale = _tables(words), SCALES[SCALE.value]
    out = Path(OUT.value or f"results/{SCALE.value}")
    data = Path(DATA.value).expanduser() if DATA.value else None
    known = {row.method for table in tables for row in shown(table, scale)}
    for name in METHODS.value:
        if name not in known:
            raise InputError(f"--methods {name}: the tables asked for have {', '.join(sorted(known))}")
    if SCALE.value == "cpu" and data is None and not all(ROWS[t][0].corpus == "synthetic" for t in tables):
        raise InputError("--scale cpu wants --data=DIR with the folders yahoo_sentences and yelp_sentiment")
    trials = plan(tables, scale, SEEDS.value or scale.seeds, METHODS.value, data, out)
    if LIST.value:
        _list(trials)
        return
    console.log(f"{', '.join(tables)} at scale {SCALE.value} ({scale.about}): {len(trials)} runs in {out}")
    scheduler = Scheduler(out, trials, JOBS.value, DEVICES.value)
    try:
        scheduler.run()
    finally:
        records = read_records(out / "rows")
        if records:
            write(tables, SCALE.value, METHODS.value, records, out, out / "runs")
            console.log(f"{len(records)} runs are in {out}/report.html, .md, .csv and .json; pictures in {out}/figures")
    if scheduler.failed:
        names = ", ".join(scheduler.failed)
        raise InputError(f"{len(scheduler.failed)} runs failed ({names}); logs in {out}/logs; the same command goes on")
    console.log(f"next: open {out}/report.html")


_DOC = f"{__doc__}" + "".join(f"  {name}: {scale.about}\n" for name, scale in SCALES.items())
main = functools.partial(command.run, "scalevae_jax.reproduce", _command, FLAGS, _DOC, positional=True)

if __name__ == "__main__":
    sys.exit(main())
