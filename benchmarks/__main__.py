"""All figures that this library is to reach: every program in turn, one table in docs/running.md.

Examples:
  python -m benchmarks
  python -m benchmarks --only start,loader --data DIR --write

On a machine that does nothing else. With --write the table replaces the one in docs/running.md, and what the
programs said is kept in docs/performance.json; programs left out by --only keep what stands there.
"""

import datetime
import functools
import json
import operator
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser
from scalevae_jax.training import workdir

ROOT = Path(__file__).parents[1]
PAGE, FIGURES = ROOT / "docs/running.md", ROOT / "docs/performance.json"
PROGRAMS = ("train_step", "epoch_small", "epoch_text", "loader", "start", "lstm", "cross_entropy")
ON_TEXT = ("epoch_text", "start")


class Reach(NamedTuple):
    """A figure and where it should be; the case "" is a program's headline."""

    what: str
    program: str
    case: str
    figure: str
    bound: float
    least: bool = True  # else at most

    def met(self, value: float) -> bool:
        """Whether it is reached."""
        return (operator.ge if self.least else operator.le)(value, self.bound)


STEP = "train_step"
REACH = [
    *(Reach(f"full size, {n} words: operations over the matmul rate", STEP, f"full, {n} words", "share_of_matmul", 0.8)
      for n in (40, 80)),
    *(Reach(f"full size, {n} words: PyTorch's time over ours", STEP, f"full, {n} words", "ratio_vs_torch", bound)
      for n, bound in ((10, 1.15), (40, 1.05), (80, 1.05), (160, 1.05))),
    *(Reach(f"bfloat16, full size, {n} words: {whose} time over it", STEP, f"full, {n} words", figure, bound)
      for whose, figure, bound in (("our float32's", "bfloat16_vs_float32", 1.5),
                                   ("PyTorch's", "bfloat16_vs_torch", 1.6)) for n in (40, 80)),
    Reach("small size, 12 words: PyTorch's time over ours", STEP, "small, 12 words", "ratio_vs_torch", 1.5),
    Reach("an epoch of the synthetic set, validated: PyTorch's time over ours", "epoch_small", "", "ratio_vs_torch", 2),
    Reach("real text, full size: true tokens a second over PyTorch's", "epoch_text", "", "ratio_vs_torch", 1),
    Reach("Scale-VAE's step over the VAE's, 40 words", STEP, "full, 40 words", "scale_vae_vs_vae", 1.03, least=False),
    Reach("BN-VAE's step over the VAE's, 40 words", STEP, "full, 40 words", "bn_vae_vs_vae", 1.03, least=False),
    Reach("peak memory, 80 words, over PyTorch's", STEP, "full, 80 words", "peak_vs_torch", 0.85, least=False),
    Reach("a batch of the loader over a small model's step", "loader", "", "share_of_step", 0.02, least=False),
    Reach("second start: seconds from the command to the first step", "start", "", "seconds", 10, least=False),
]  # fmt: skip


def value(said: dict[str, Any], reach: Reach) -> float | None:
    """The figure among what the programs said, if it was measured."""
    found = said.get(reach.program, {})
    return (found.get("cases", {}).get(reach.case, {}) if reach.case else found).get(reach.figure)


def run(program: str, data: str | None) -> dict[str, Any]:
    """A program's last line; the others are shown as they come. Raises InputError where it ended badly."""
    line = [sys.executable, "-m", f"benchmarks.{program}"]
    if data and program in ON_TEXT:
        line += ["--data", data]
    console.log(f"$ {' '.join(line[1:])}")
    last = ""
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith("{"):
                last = text
            else:
                console.log(text.rstrip())
    if process.returncode or not last:
        raise InputError(
            f"benchmarks.{program} ended with {process.returncode}; see above (PyTorch: pip install .[bench])"
        )
    return json.loads(last)


def rows(said: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What is to be reached, the figure, the reach, and whether."""
    found = []
    for reach in REACH:
        measured = value(said, reach)
        sign = "at least" if reach.least else "at most"
        met = "not measured" if measured is None else "yes" if reach.met(measured) else "no"
        found.append((reach.what, console.format_number(measured, 3), f"{sign} {reach.bound:g}", met))
    return found


def page(said: dict[str, Any]) -> str:
    """The table as Markdown, and below it when, of which commit and where each program measured."""
    lines = ["| | measured | target | met |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(said)]
    measured: dict[str, list[str]] = {}
    for program, found in said.items():
        machine = ", ".join(f"{key} {text}" for key, text in found["machine"].items() if key != "load")
        measured.setdefault(f"{found['date']}, commit {found['git']} ({machine})", []).append(f"`{program}`")
    lines += ["", *(f"- {where}: {', '.join(programs)}" for where, programs in measured.items())]
    return "\n".join(lines)


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks", __doc__)
    arguments.add_argument("--only", type=command.names, default=[], help=f"of {', '.join(PROGRAMS)}; by default all")
    arguments.add_argument("--data", help=f"the corpus of {' and '.join(ON_TEXT)}")
    arguments.add_switch("--write", help="write docs/running.md and docs/performance.json")
    return arguments


def _command(options: Namespace) -> None:
    for name in options.only:
        if name not in PROGRAMS:
            raise InputError(f"--only {name}: of {', '.join(PROGRAMS)}")
    said = json.loads(FIGURES.read_text()) if options.only and FIGURES.is_file() else {}
    git = (workdir.provenance()["git"] or "unknown")[:12]
    for program in PROGRAMS:
        if not options.only or program in options.only:
            said[program] = run(program, options.data) | {"date": str(datetime.date.today()), "git": git}
    table = Table("what", "measured", "target", "met")
    for row in rows(said):
        table.add_row(*row)
    console.console.print(table)
    if options.write:
        storage.write_json(FIGURES, said)
        text = PAGE.read_text(encoding="utf-8")
        block = re.compile(r"(<!-- python -m benchmarks --write -->\n).*(\n<!-- end -->)", re.DOTALL)
        storage.write_text(PAGE, block.sub(lambda found: found[1] + page(said) + found[2], text))
        console.log(f"written: {PAGE.relative_to(ROOT)}, {FIGURES.relative_to(ROOT)}")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
