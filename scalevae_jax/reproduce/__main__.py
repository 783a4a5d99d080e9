"""Reproduce the tables and figures of the paper, each with one command.

Examples:
  python -m scalevae_jax.reproduce all --scale smoke --out results/smoke
  python -m scalevae_jax.reproduce table1 table4 --scale small --data DIR --out results/small --methods vae,scale_vae
  python -m scalevae_jax.reproduce table1 --scale paper --data DIR --out results/paper --list

WHAT is table1 to table6, figure1, figure2, or all. Every row is a separate run, with its own workdir in OUT/runs; a run
that several tables need is made once. The same command skips what is finished and resumes what was stopped. Each
finished run has a record in OUT/rows. The report is OUT/report.html, .md, .csv and .json, its pictures in OUT/figures.
--list prints the commands, one run a line, and runs nothing. Scales:
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from scalevae_jax.comparison import records
from scalevae_jax.comparison.runner import add_arguments, list_left, run_all
from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import figures, tables
from scalevae_jax.reproduce.paper import ROWS
from scalevae_jax.reproduce.trials import SCALES, plan, shown
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer

WHAT = (*ROWS, "all")


def report(chosen: Sequence[str], scale: str, methods: Sequence[str], out: Path) -> None:
    """Write the report on the runs that are done, and draw its figures. Does nothing before the first is done."""
    found = records.read_all(out / "rows")
    if not found:
        return
    pictures = figures.draw(chosen, SCALES[scale], found, out / "runs", out / "figures")
    tables.write(chosen, scale, methods, found, pictures, out)
    console.log(f"{len(found)} runs are in {out}/report.html, .md, .csv and .json; pictures in {out}/figures")


def parser() -> Parser:
    scales = "".join(f"  {name}: {scale.about}\n" for name, scale in SCALES.items())
    arguments = Parser("scalevae_jax.reproduce", f"{__doc__}{scales}", "WHAT ... ")
    add = arguments.add_argument
    add("what", nargs="+", choices=WHAT, metavar="WHAT", help=f"some of {', '.join(WHAT)}")
    add("--scale", choices=list(SCALES), default="smoke", help="see above")
    add("--out", type=command.local, metavar="DIR", help="the folder for everything; by default results/SCALE")
    add("--methods", type=command.names, default=[], help="run only the rows of these methods; by default all")
    add("--seeds", type=integer(1), help="runs of each row; by default 5 at scale paper, else 1")
    data = "a folder that holds the corpora as folders: yahoo, yelp, yelp_sentiment; at scale small: yahoo_sentences, "
    add("--data", type=command.local, metavar="DIR", help=f"{data}yelp_sentiment")
    add_arguments(arguments)
    return arguments


def _command(options: Namespace) -> None:
    chosen, scale = list(ROWS) if "all" in options.what else list(dict.fromkeys(options.what)), SCALES[options.scale]
    out = options.out or Path(f"results/{options.scale}")
    known = {row.method for table in chosen for row in shown(table, scale)}
    for name in options.methods:
        if name not in known:
            raise InputError(f"--methods {name}: the tables asked for have {', '.join(sorted(known))}")
    data = options.data.expanduser() if options.data else None
    if options.scale == "small" and data is None and not all(ROWS[t][0].corpus == "synthetic" for t in chosen):
        raise InputError("--data is missing: --scale small needs a folder with yahoo_sentences and yelp_sentiment")
    trials = plan(chosen, scale, options.seeds or scale.seeds, options.methods, data, out)
    if options.list:
        list_left(trials)
        return
    console.log(f"{', '.join(chosen)} at scale {options.scale} ({scale.about}): {len(trials)} runs in {out}")
    try:
        run_all(out, trials, options.jobs, options.devices)
    finally:
        report(chosen, options.scale, options.methods, out)
    console.log(f"next: open {out}/report.html")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
