"""Mutation testing of the arithmetic: each file that is named, against the one test file that mirrors it.

Example:
  python tests/mutants.py plateau.py methods/penalty.py

cosmic-ray changes one operator, comparison, number, truth value or loop at a time and runs the tests on each change,
in a copy of the tree. Without arguments it takes the files of FILES: hours on two cores. Prints a line a file, and the
changes that no test noticed.
"""

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkResult

ROOT = Path(__file__).parents[1]
METHODS = [f"methods/{name}.py" for name in ("penalty", "plan", "posterior", "refine", "schedule")]
FILES = ["objective.py", *METHODS, "metrics.py", "plateau.py", "gaussian.py", "cross_entropy.py"]
TESTS = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider"]
KEPT = (  # one opposite of each operator: + for %, say, tells no more than - for +
    "NumberReplacer|ReplaceTrue|ReplaceFalse|ReplaceAnd|ReplaceOr|ReplaceBreak|ZeroIteration|AddNot"
    "|ReplaceUnaryOperator_Delete|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|(Floor)?Div_Mul|Mod_Mul|Pow_Mul)"
    "|ReplaceComparisonOperator_(Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Eq_NotEq|NotEq_Eq)"
)
CONFIG = """\
[cosmic-ray]
module-path = "scalevae_jax/{file}"
timeout = 600.0
excluded-modules = []
test-command = {command}
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/(?!{kept}).*"]
"""


def _copy(folder: Path) -> None:
    for part in ("scalevae_jax", "configs", "studies", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def mutate(file: str, every: int) -> tuple[int, list[str]]:
    """How many changes were tried, each `every`-th, and the diffs of those that no test noticed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        tests = Path("tests", file).with_name(f"test_{Path(file).name}")
        command = " ".join([*TESTS, str(tests)])
        (folder / "mutants.toml").write_text(CONFIG.format(file=file, command=json.dumps(command), kept=KEPT))

        def run(program: str, *arguments: str) -> None:
            subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=folder, check=True)

        run("cosmic-ray", "baseline", "mutants.toml")
        run("cosmic-ray", "init", "mutants.toml", "mutants.sqlite")
        run("cr-filter-operators", "mutants.sqlite", "mutants.toml")
        with use_db(folder / "mutants.sqlite", WorkDB.Mode.open) as session:
            in_order = sorted(session.pending_work_items, key=lambda item: str(item.mutations))
            left = [item.job_id for i, item in enumerate(in_order) if i % every]
            session.set_multiple_results(left, WorkResult(WorkerOutcome.SKIPPED))
            print(f"{file}: {len(in_order) - len(left)} of {len(in_order)} changes to try", flush=True)
        run("cosmic-ray", "exec", "mutants.toml", "mutants.sqlite")
        with use_db(folder / "mutants.sqlite", WorkDB.Mode.open) as session:
            results = [result for _, result in session.results if result.worker_outcome is not WorkerOutcome.SKIPPED]
    return len(results), [result.diff for result in results if not result.is_killed]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES, help="of scalevae_jax/")
    parser.add_argument("--jobs", type=int, default=2, help="files at once")
    parser.add_argument("--every", type=int, default=1, help="try each such change alone")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        done = pool.map(functools.partial(mutate, every=arguments.every), arguments.files)
        for file, (tried, survivors) in zip(arguments.files, done, strict=True):
            print(f"{file}: {tried} changes, {tried - len(survivors)} noticed", *survivors, sep="\n", flush=True)
