"""Train a text VAE, or go on with a run that was stopped: the same command with the same workdir resumes.

Examples:
  python -m scalevae_jax.train --config demo
  python -m scalevae_jax.train --config yahoo --workdir runs/yahoo --config.data.path=DIR
  python -m scalevae_jax.train --config demo --workdir runs/vae --config.method.name=vae
  python -m scalevae_jax.train --config yahoo --config.data.path=DIR --dry_run

Any field of the configuration is changed with --config.section.field=value. All that the run writes is in the workdir.
"""

import contextlib
import difflib
import functools
import math
import pathlib
import re
import runpy
import sys
from typing import Any

import jax
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError
from scalevae_jax.evaluate import show
from scalevae_jax.inference import evaluate, load, posteriors
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command, console, processes, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.runtime.signals import Signals
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import dry_run, profiler, workdir
from scalevae_jax.training.compiling import Compiling
from scalevae_jax.training.log import EpochLog
from scalevae_jax.training.loop import Training, finished, fit
from scalevae_jax.training.prepare import _begin, _lock, introduce, prepare, read


def train(settings: Config, folder: Path, profile: bool = False, timeout: int = 300) -> None:
    """Train, or go on; with `profile`, leave a trace.

    Raises command.Stopped after a signal, InputError where the folder can not be written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workdir.refuse_links(folder)
        with _lock(folder):
            _train(config.with_defaults(settings), folder, profile, timeout)
    except InputError:
        if new and not storage.remote(folder):
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was written yet
        raise
    except (BrokenPipeError, FileExistsError):  # of the output, not of the folder; a file in its place
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; what was saved before is as it was. Make the "
            "folder writable, with room, then the same command goes on"
        ) from error


def _train(settings: Config, folder: Path, profile: bool, timeout: int) -> None:
    data, model, method = prepare(settings, folder, timeout)
    with contextlib.closing(workdir.checkpoints(folder, settings, data.words, writing=True)) as keeper:
        state = _begin(settings, model, method, data, keeper)
        if finished(settings, state):
            done = f"{int(state.epoch) - 1} epochs, {int(state.step)} steps"
            console.log(f"finished before: {done}; nothing is left to train")
            return
        if int(state.step):
            console.log(f"resumed in epoch {int(state.epoch)} at step {int(state.step)}")
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
        options = " ".join(f"{key}={value}" for key, value in config.hyperparameters(settings).items())
        console.log(f"method: {settings.method.name} {options} | {parameters:,} parameters")
        log = EpochLog(folder, int(state.epoch), int(state.step), processes.is_main_process())
        trace = _profiler(folder, profile)
        with Signals() as signals, Compiling() as compiling, contextlib.closing(log), contextlib.closing(trace):
            run = Training(
                folder, settings, model, method, data.train, data.valid, keeper, log, signals, trace, compiling
            )
            fit(run, state)


def _profiler(folder: Path, wanted: bool) -> profiler.Profiler:
    if not (wanted and processes.is_main_process()):
        return profiler.Profiler(None)
    if not isinstance(folder, pathlib.Path):
        raise InputError("--profile wants a --workdir on this machine, not in a bucket")
    return profiler.Profiler(folder / profiler.FOLDER)


def finish(settings: Config, folder: Path) -> None:
    """What a finished run says: where things are, and, where the configuration asks for it, what the model is worth."""
    run = load.load(folder)
    posteriors.fitted_prior(run)
    if settings.eval.at_end:
        show(run, evaluate.evaluate(run, evaluate.EvaluationRequest()).result)
        console.log("\nten sentences from the prior:")
        for sentence in TrainedModel(run).sample(10, temperature=0.5):
            console.log(f"  {sentence}")
        console.log("\nfive sentences on the line between two draws:")
        for sentence in TrainedModel(run).interpolate(steps=5):
            console.log(f"  {sentence}")
        console.log("")
    board = "" if storage.remote(folder) else "tensorboard/, "
    console.log(f"done: {folder} holds config.json, vocab.txt, metrics.jsonl, {board}checkpoints/")
    verb = "sample --num 10" if settings.eval.at_end else "evaluate --split test"
    console.log(f"next: python -m scalevae_jax.{verb} --workdir {folder}")


class _Parser(ConfigFileFlagParser):
    """Of --config: names as well as paths. Raises InputError for a --config.FIELD that is none, with the nearest."""

    def parse(self, path: str) -> Any:
        for name in re.findall(r"^--?config\.([^=\n]+)", "\n".join(sys.argv), re.MULTILINE):
            if name not in config.FIELDS:
                near = "".join(f", the nearest is {near}" for near in difflib.get_close_matches(name, config.FIELDS, 1))
                raise InputError(f"--config.{name}: no such field{near} (see --help)")
        return super().parse(str(config.find(path)))


FLAGS = Flags()
processes.define_flags(FLAGS)
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the configuration: a name, or a file that defines get_config()", flag_values=FLAGS
)
FLAGS["config"].parser = _Parser("config")
WORKDIR = FLAGS.string("workdir", None, "the folder of the run, or gs://BUCKET/FOLDER; runs/<config name> without it")
DRY_RUN = FLAGS.yes("dry_run", False, "print what the run would take (parameters, buckets, memory, operations) and end")
PROFILE = FLAGS.yes("profile", False, f"write a trace of {profiler.TRACED} steps into the workdir")
LIST_METHODS = FLAGS.yes("list_methods", False, "list the methods and end")


def _read_config() -> tuple[Config, Path]:
    settings = CONFIG.value
    if settings is None:
        raise InputError("--config is wanted, such as demo (see --help)")
    if not isinstance(settings, Config):
        raise InputError(
            f"--config: get_config() gives {type(settings).__name__}; a scalevae_jax.config.Config is wanted"
        )
    path = config.find(config_flags.get_config_filename(FLAGS["config"]))
    overrides = set(config_flags.get_override_values(FLAGS["config"]))
    from_file = runpy.run_path(str(path))["get_config"]()
    settings, dropped = config.override_method(settings, from_file, overrides)
    if dropped:
        console.log(
            f"method {settings.method.name}: the file's {', '.join(dropped)} (of {from_file.method.name}) dropped"
        )
    config.validate(settings)
    return settings, storage.path(WORKDIR.value or f"runs/{path.stem}")


def _command() -> None:
    if LIST_METHODS.value:
        console.log(config.describe_methods())
        return
    settings, folder = _read_config()
    processes.start(FLAGS)
    if DRY_RUN.value:
        introduce(settings, folder)
        data = read(settings)
        dry_run.show(config.with_defaults(settings), len(data.words), data.train)
        return
    train(settings, folder, PROFILE.value, FLAGS.initialization_timeout)
    finish(settings, folder)


_FIELDS = "\n\nConfiguration:" + config.describe()
main = functools.partial(command.run, "scalevae_jax.train", _command, FLAGS, __doc__, _FIELDS)

if __name__ == "__main__":
    sys.exit(main())
