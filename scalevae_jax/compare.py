"""Put evaluated runs side by side: a table, paired differences, the rate-distortion plane, curves.

Examples:
  python -m scalevae_jax.compare runs/mine --baseline vae
  python -m scalevae_jax.compare runs/a runs/b runs/c --out comparison

WHAT is the folder of a sweep, workdirs, or records of runs. All runs must have been evaluated on the same sentences.
Runs that differ only in their seed share a row of the table. Rows are sorted by the tightest valid bound on
-log p(x), or a language model's exact value. `nll_paper` is not a bound and decides nothing.
"""

import functools
import sys
from argparse import Namespace
from pathlib import Path

from rich.table import Table

from scalevae_jax.comparison import comparison
from scalevae_jax.comparison.comparison import Comparison
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser

MEASURES = 8  # of the table that is printed; the files have all


def show(found: Comparison, out: Path) -> None:
    """Print the table and the differences, and write the report."""
    _print(f"{len(found.records)} runs (nats a sentence)", *found.cells(MEASURES))
    if found.differences and found.baseline:
        _print(f"paired differences from {found.baseline.name} (nats a sentence)", *found.difference_cells())
    with storage.writing(f"--out {out}"):
        files = found.write(out)
    console.log(f"written to {out}: {', '.join(files)}")
    console.log(f"next: open {out / 'comparison.html'}")


def _print(title: str, header: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < 2 else "right", overflow="fold", no_wrap=i == 0)
    for cells in rows:
        table.add_row(*cells)
    console.console.print(table)


def parser() -> Parser:
    arguments = Parser("scalevae_jax.compare", __doc__, "WHAT ... ")
    add = arguments.add_argument
    add("what", nargs="+", type=command.local, metavar="WHAT", help="see above")
    add("--baseline", default="", metavar="SYSTEM", help="a method, or the name of a row of the table")
    add(
        "--out",
        type=command.local,
        metavar="DIR",
        help="the folder for the report; by default WHAT, or comparison for several",
    )
    return arguments


def _command(options: Namespace) -> None:
    if missing := [path for path in options.what if not path.exists()]:
        raise InputError(f"{missing[0]}: no such file or folder")
    found = comparison.compare(comparison.find(options.what), options.baseline)
    first = options.what[0]
    out = options.out or (first if len(options.what) == 1 and first.is_dir() else Path("comparison"))
    if (out / "comparison.html").exists():
        console.log(f"replacing the comparison in {out}")
    show(found, out)


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
