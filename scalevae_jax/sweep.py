"""Train and evaluate many runs, then compare them; the same command resumes after any stop.

Examples:
  python -m scalevae_jax.sweep --config text --config.data.path=my.txt --methods lstm_lm,vae,bn_vae,scale_vae --seeds 3
  python -m scalevae_jax.sweep --config demo --methods scale_vae --grid method.des_std=0.3,0.7 --jobs 2 --out runs/mine
  python -m scalevae_jax.sweep --config demo --methods vae,beta_vae --grid method.beta=0.1,0.4 --dry_run

Every method is trained with every combination of the values of --grid, and with every seed. A hyperparameter that a
method does not have is left out for that method. Each run is a separate process, with a workdir in OUT/runs and a log
in OUT/logs. It is evaluated on the test split, and OUT/rows keeps its record. The comparison is OUT/comparison.html,
.md and .csv, with the rate-distortion plane beside it. --list prints the commands for a scheduler on many hosts; when
they have run, this command without --list compares the runs.
"""

import contextlib
import functools
import itertools
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from scalevae_jax import config, config_file
from scalevae_jax.compare import show
from scalevae_jax.comparison import comparison, records, runner
from scalevae_jax.comparison.trial import STEPS, Command, Trial
from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import evaluate, flags
from scalevae_jax.inference.evaluate import EvaluationRequest
from scalevae_jax.methods.method import METHODS, hyperparameters
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import prepare
from scalevae_jax.training import workdir as workdirs
from scalevae_jax.training.prepare import TrainingData


def _values(text: str) -> tuple[str, list[Any]]:
    """A field of the configuration and the values that it takes, from `SECTION.FIELD=VALUE,VALUE`."""
    field, _, values = text.partition("=")
    if field not in config.FIELDS or not values:
        raise InputError(f"--grid {text}: expected SECTION.FIELD=VALUE,VALUE, as method.des_std=0.3,0.7")
    fields = Parser("", None)
    config_file.add_arguments(fields)
    parsed = [fields.parse([f"--config.{field}={value}"]) for value in values.split(",")]
    return field, [config_file.read_arguments(one)[field] for one in parsed]


def has(method: str, field: str) -> bool:
    """Whether a field of the configuration means something to a method."""
    section, _, key = field.partition(".")
    return section != "method" or key in hyperparameters(method)


def plan(options: Namespace) -> list[tuple[Trial, Config]]:
    """Every run once, with its configuration. Raises InputError for a field or a value that no method takes."""
    base, given = config_file.read(config_file.find(options.config)), config_file.read_arguments(options)
    first, grid = given.pop("train.seed", base.train.seed), dict(map(_values, options.grid))
    if len(grid) < len(options.grid):
        raise InputError("--grid: a field is given twice; give all its values at once")
    for name in options.methods:
        if name not in METHODS:
            raise InputError(f"--methods {name}: no such method; there are {', '.join(METHODS)}")
    methods = options.methods or [given.get("method.name", base.method.name)]
    for field in grid:
        if field == "method.name" or (field.startswith(comparison.SAME) and not field.startswith("method.")):
            raise InputError(f"--grid {field}: it makes no different system; use --methods, --seeds, or another sweep")
    for flag, field in [*(("--grid ", field) for field in grid), *(("--config.", field) for field in given)]:
        if field != "method.name" and not any(has(name, field) for name in methods):
            raise InputError(f"{flag}{field}: no hyperparameter of {', '.join(methods)}")
    found: list[tuple[Trial, Config]] = []
    for name, chosen in ((each, chosen) for each in methods for chosen in _combinations(grid, each)):
        kept = {field: value for field, value in given.items() if has(name, field) and field != "method.name"}
        values = [re.sub(r"[^\w.+-]", "_", f"{field.rpartition('.')[2]}_{value}") for field, value in chosen.items()]
        for seed in range(first, first + options.seeds):
            changes = {"method.name": name} | kept | chosen | {"train.seed": seed}
            settings, _ = config_file.override(base, changes)
            config.validate(settings)
            workdir = options.out / "runs" / "-".join([name, *values, f"seed_{seed}"])
            if any(trial.workdir == workdir for trial, _ in found):
                raise InputError(f"{workdir.name}: --methods or --grid gives this run twice")
            found.append((_trial(options, workdir, changes), settings))
    if options.baseline:
        described = [records.described(config.with_defaults(settings)) for _, settings in found]
        systems = dict(zip(comparison.names(described), (one["method"] for one in described), strict=True))
        comparison.find_baseline(options.baseline, systems)  # now, not after hours of training
    return found


def _combinations(grid: dict[str, list[Any]], method: str) -> Iterator[dict[str, Any]]:
    own = {field: values for field, values in grid.items() if has(method, field)}
    for values in itertools.product(*own.values()):
        yield dict(zip(own, values, strict=True))


def _trial(options: Namespace, workdir: Path, changes: dict[str, Any]) -> Trial:
    run = ("--workdir", str(workdir))
    fields = (f"--config.{field}={value}" for field, value in changes.items())
    commands = [Command("train", ("--config", options.config, *run, *fields), "", "")]
    more = [f"--{name}={value}" for name in ("limit", "iw_samples") if (value := getattr(options, name))]
    output = evaluate.output(EvaluationRequest(limit=options.limit))
    commands.append(Command("evaluate", (*run, "--split", "test", *more), "evaluation", output))
    if options.probe:
        commands.append(Command("probe", run, "probe", "probe.json"))
    return Trial(workdir, tuple(commands))


def _check(trial: Trial) -> None:
    """Raises InputError where a run cannot be kept, or where other arguments made it. A record is made again where
    measurements are left."""
    workdirs.check(trial.workdir)
    steps = trial.workdir / STEPS
    ran = storage.read_json(steps) if steps.is_file() else {}
    for each in trial.commands:
        line = ran.get(each.output or each.module, {}).get("command", str(each))
        if _without_workdir(line) != _without_workdir(str(each)):
            raise InputError(f"{trial.workdir}: made by `{line}`; choose another --out, or delete this folder")
    if trial.workdir.is_dir() and runner.left(trial):
        trial.record.unlink(missing_ok=True)


def _without_workdir(line: str) -> list[str]:
    words = shlex.split(line)
    where = words.index("--workdir")
    return words[:where] + words[where + 2 :]


def estimate(planned: list[tuple[Trial, Config]], jobs: int) -> None:
    """Print the runs, and the hours that their training takes at most; a system of one size is timed once."""
    read: dict[str, TrainingData] = {}
    seconds: dict[str, float] = {}
    title, total = f"{len(planned)} runs", 0.0
    table = Table("run", "s an epoch", "epochs at most", "hours at most", title=title, title_justify="left")
    for trial, settings in planned:
        text = str((settings.data, settings.train.batch_size))
        name = f"{settings.method.name} {config.hyperparameters(settings)} {settings.model} {text}"
        if text not in read:
            read[text] = prepare.read(settings)
        if name not in seconds:
            seconds[name] = prepare.seconds_an_epoch(settings, read[text])
        hours = seconds[name] * settings.train.max_epochs / 3600
        total += hours
        table.add_row(trial.name, f"{seconds[name]:.1f}", str(settings.train.max_epochs), f"{hours:.2f}")
    console.console.print(table)
    console.log(
        f"{total / jobs:.2f} hours of training at most, {jobs} at once; compilation and evaluation are not counted, "
        f"and {prepare.TIMED} steps of each method were timed alone"
    )


def parser() -> Parser:
    arguments = Parser("scalevae_jax.sweep", __doc__)
    config_file.add_arguments(arguments)
    add = arguments.add_argument
    add("--methods", type=command.names, default=[], help="names separated by commas; by default the configuration's")
    grid = "values to try for a field of the configuration; may be given several times"
    add("--grid", action="append", default=[], metavar="FIELD=A,B,..", help=grid)
    add("--seeds", type=integer(1), default=1, help="number of seeds for each system, from train.seed on")
    add("--out", type=command.local, default=Path("runs/sweep"), metavar="DIR", help="the folder for everything")
    baseline = "baseline of the paired differences: a method, or a row of the table"
    add("--baseline", default="", metavar="SYSTEM", help=baseline)
    add("--limit", type=integer(0), default=0, help="evaluate only the first LIMIT test sentences; 0 means all")
    add("--iw_samples", type=flags.draws, metavar="N|auto", help="as in `evaluate`")
    arguments.add_switch("--probe", help="also run `probe` on the labels")
    arguments.add_switch("--dry_run", help="list the runs, estimate the hours from a few timed steps, and exit")
    runner.add_arguments(arguments)
    return arguments


def _command(options: Namespace) -> None:
    planned = plan(options)
    trials = [trial for trial, _ in planned]
    if options.list:
        runner.list_left(trials)
    elif options.dry_run:
        estimate(planned, options.jobs)
    else:
        for trial in trials:
            _check(trial)
        try:
            runner.run_all(options.out, trials, options.jobs, options.devices)
        except InputError:
            with contextlib.suppress(InputError):  # the runs that did not fail, among which the baseline may not be
                _compare(trials, "", options.out)
            raise
        _compare(trials, options.baseline, options.out)


def _compare(trials: list[Trial], baseline: str, out: Path) -> None:
    found = comparison.find([trial.record for trial in trials if runner.done(trial)])
    show(comparison.compare(found, baseline), out)


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
