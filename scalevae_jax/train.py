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
import jax.numpy as jnp
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from scalevae_jax import (
    command,
    config,
    dry_run,
    feed,
    measure,
    parallel,
    processes,
    profiler,
    report,
    storage,
    workdir,
)
from scalevae_jax.checkpoint import LATEST, Checkpoints
from scalevae_jax.compiling import Compiling
from scalevae_jax.config import Config
from scalevae_jax.data import vocab
from scalevae_jax.evaluate import show
from scalevae_jax.feed import Feed
from scalevae_jax.fit import Fit, finished, fit
from scalevae_jax.flags import Flags
from scalevae_jax.lock import Lock
from scalevae_jax.method import Method
from scalevae_jax.model import Model
from scalevae_jax.state import TrainState
from scalevae_jax.storage import Path
from scalevae_jax.trained import Trained
from scalevae_jax.types import InputError


def introduce(settings: Config, folder: Path) -> dict[str, Any]:
    """The run's first line; what it is made of, for the record."""
    parallel.start()
    about = workdir.provenance()
    versions = " ".join(f"{name} {version}" for name, version in about["versions"].items())
    size = settings.train.batch_size
    share = parallel.rows_for(size, settings.optim.accumulate) // jax.device_count()
    batch = f"batch {size}, {share} a device"
    report.say(f"{versions} | {about['device']} | {batch} | seed {settings.train.seed} | workdir {folder}")
    return about


def prepare(settings: Config, folder: Path) -> tuple[Feed, Model, Method]:
    """Feed, model and method, and the workdir's own record of them; an older record is kept and must agree."""
    about = introduce(settings, folder)
    method = config.build_method(settings)
    begun = workdir.begun(folder)
    if begun:
        before = config.from_json(folder / workdir.CONFIG)
        changed = config.differences(before, settings)
        if changed:
            raise InputError(
                f"{folder}: trained with another configuration: {'; '.join(changed)}; choose another --workdir"
            )
        data = feed.read(settings, vocab.load(folder / workdir.VOCABULARY))
        for split, digest in workdir.read_record(folder)["data"].items():
            if data.digests.get(split) != digest:
                raise InputError(f"{folder}: trained on another {split} file than {settings.data.path} holds now")
    else:
        data = feed.read(settings)
    facts = {"configuration": config.to_json(settings), "workdir": "begun" if begun else "new"}
    facts |= {f"{split} data": digest for split, digest in data.digests.items()}
    processes.agree(facts, FLAGS)
    if not begun:
        if processes.first():
            data.words.save(folder / workdir.VOCABULARY)
        record = {**about, "command": sys.argv, "data": data.digests, "steps_per_epoch": len(data.train)}
        workdir.write_json(folder / workdir.RUN, record)
    workdir.write_text(folder / workdir.CONFIG, config.to_json(settings))
    processes.meet("the workdir is written")
    if not (folder / workdir.CONFIG).exists():
        raise InputError(f"{folder}: not on storage that all hosts see; give a --workdir that is")
    return data, workdir.build_model(settings, method, len(data.words)), method


def train(settings: Config, folder: Path, profile: bool = False) -> None:
    """Train, or go on; with `profile`, leave a trace.

    Raises command.Stopped after a signal, InputError where the folder can not be written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workdir.refuse_links(folder)
        with _lock(folder):
            _train(config.with_defaults(settings), folder, profile)
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


def _lock(folder: Path) -> contextlib.AbstractContextManager[Any]:
    if not processes.first():
        return contextlib.nullcontext()
    if isinstance(folder, pathlib.Path):
        return Lock(folder)
    report.warn(f"{folder}: nothing can be locked in a bucket; see to it that no other run has this --workdir")
    return contextlib.nullcontext()


def _train(settings: Config, folder: Path, profile: bool) -> None:
    data, model, method = prepare(settings, folder)
    with contextlib.closing(workdir.checkpoints(folder, settings, data.words, writing=True)) as keeper:
        state = _begin(settings, model, method, data, keeper)
        if finished(settings, state):
            done = f"{int(state.epoch) - 1} epochs, {int(state.step)} steps"
            report.say(f"finished before: {done}; nothing is left to train")
            return
        if int(state.step):
            report.say(f"resumed in epoch {int(state.epoch)} at step {int(state.step)}")
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
        options = " ".join(f"{key}={value}" for key, value in config.hyperparameters(settings).items())
        report.say(f"method: {settings.method.name} {options} | {parameters:,} parameters")
        log = report.EpochLog(folder, int(state.epoch), int(state.step), processes.first())
        trace = _profiler(folder, profile)
        with command.Signals() as signals, Compiling() as compiling, contextlib.closing(log), contextlib.closing(trace):
            run = Fit(folder, settings, model, method, data.train, data.valid, keeper, log, signals, trace, compiling)
            fit(run, state)


def _profiler(folder: Path, wanted: bool) -> profiler.Profiler:
    if not (wanted and processes.first()):
        return profiler.Profiler(None)
    if not isinstance(folder, pathlib.Path):
        raise InputError("--profile wants a --workdir on this machine, not in a bucket")
    return profiler.Profiler(folder / profiler.FOLDER)


def _begin(settings: Config, model: Model, method: Method, data: Feed, keeper: Checkpoints) -> TrainState:
    """The newest whole state of the run, or that before its first step."""
    like = workdir.abstract_state(settings, model, method, len(data.train))
    state = keeper.newest(like)
    if state is None:
        return workdir.create_state(settings, model, method, len(data.train))
    keeper.save(LATEST, state)  # where it was the best that was newest
    if not finished(settings, state) and not keeper.check_best(like):  # the next epoch becomes the best
        state = state._replace(plateau=state.plateau._replace(best=jnp.full_like(state.plateau.best, jnp.inf)))
    return state


def finish(settings: Config, folder: Path) -> None:
    """What a finished run says: where things are, and, where the configuration asks for it, what the model is worth."""
    run = workdir.load(folder)
    measure.fitted_prior(run)
    if settings.eval.at_end:
        show(run, measure.evaluate(run, measure.Request()).result)
        report.say("\nten sentences from the prior:")
        for sentence in Trained(run).sample(10, temperature=0.5):
            report.say(f"  {sentence}")
        report.say("\nfive sentences on the line between two draws:")
        for sentence in Trained(run).interpolate(steps=5):
            report.say(f"  {sentence}")
        report.say("")
    board = "" if storage.remote(folder) else "tensorboard/, "
    report.say(f"done: {folder} holds config.json, vocab.txt, metrics.jsonl, {board}checkpoints/")
    verb = "sample --num 10" if settings.eval.at_end else "evaluate --split test"
    report.say(f"next: python -m scalevae_jax.{verb} --workdir {folder}")


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
        report.say(
            f"method {settings.method.name}: the file's {', '.join(dropped)} (of {from_file.method.name}) dropped"
        )
    config.validate(settings)
    return settings, storage.path(WORKDIR.value or f"runs/{path.stem}")


def _command() -> None:
    if LIST_METHODS.value:
        report.say(config.describe_methods())
        return
    settings, folder = _read_config()
    processes.start(FLAGS)
    if DRY_RUN.value:
        introduce(settings, folder)
        data = feed.read(settings)
        dry_run.show(config.with_defaults(settings), len(data.words), data.train)
        return
    train(settings, folder, PROFILE.value)
    finish(settings, folder)


_FIELDS = "\n\nConfiguration:" + config.describe()
main = functools.partial(command.run, "scalevae_jax.train", _command, FLAGS, __doc__, _FIELDS)

if __name__ == "__main__":
    sys.exit(main())
