"""Train a text VAE; the same command with the same workdir resumes a run that was stopped.

Examples:
  python -m scalevae_jax.train --config demo
  python -m scalevae_jax.train --config yahoo --workdir runs/yahoo --config.data.path=DIR
  python -m scalevae_jax.train --config demo --workdir runs/vae --config.method.name=vae
  python -m scalevae_jax.train --config yahoo --config.data.path=DIR --dry_run

Any field of the configuration is changed with --config.section.field=value. All that the run writes is in the workdir.
"""

import contextlib
import functools
import math
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import jax

from scalevae_jax import config, config_file
from scalevae_jax.config import Config
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import InputError, Params
from scalevae_jax.evaluate import show
from scalevae_jax.inference import evaluate, load, posteriors, priors
from scalevae_jax.inference.decoding import TEMPERATURE
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods.method import MEANINGS, METHODS, hyperparameters
from scalevae_jax.runtime import command, console, devices, processes, storage
from scalevae_jax.runtime.command import Parser
from scalevae_jax.runtime.signals import Signals
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import loop, prepare, workdir
from scalevae_jax.training.log import EpochLog

STOPPING = "stopping after this step; a second Ctrl-C stops at once"


def train(settings: Config, folder: Path, timeout: int = 300) -> None:
    """Train a run, or resume it. Several processes wait for each other at the start for `timeout` seconds.

    Raises Stopped after a signal, InputError if the folder cannot be written or belongs to another run.
    """
    workdir.check(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with workdir.lock(folder):
            _train(config.with_defaults(settings), folder, timeout)
    except InputError:
        if new and not storage.is_remote(folder):
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing was written yet
        raise
    except (BrokenPipeError, FileExistsError):  # nobody reads the output; a file has the folder's name
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; what was saved before is as it was. Make the "
            "folder writable, with room, then the same command resumes"
        ) from error


def _train(settings: Config, folder: Path, timeout: int) -> None:
    data, model, method = prepare.prepare(settings, folder, timeout)
    inference, key = posteriors.make_inference(model, method), stream_key(settings.train.seed, Stream.VALIDATION)

    def validate(params: Params, method_state: Any) -> dict[str, Any]:
        inferred = posteriors.infer(inference, method, params, method_state, data.valid, key, model.latent)
        return inferred.summary(method)

    def samples(params: Params, method_state: Any) -> list[str]:
        run = load.LoadedModel(folder, settings, data.words, model, method, params, method_state, epoch=0)
        return TrainedModel(run).sample(5)

    with contextlib.closing(workdir.checkpoints(folder, settings, data.words, writing=True)) as checkpoints:
        state = prepare.begin(settings, model, method, len(data.train), checkpoints)
        if loop.finished(settings, state):
            done = f"{int(state.epoch) - 1} epochs, {int(state.step)} steps"
            console.log(f"finished before: {done}; nothing is left to train")
            return
        if int(state.step):
            console.log(f"resumed in epoch {int(state.epoch)} at step {int(state.step)}")
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
        options = " ".join(f"{key}={value}" for key, value in config.hyperparameters(settings).items())
        console.log(f"method: {settings.method.name} {options} | {parameters:,} parameters")
        log = EpochLog(folder, int(state.epoch), int(state.step), processes.is_main_process())
        log.text("configuration", config.to_json(settings).splitlines(), int(state.step))
        with Signals(STOPPING) as signals, contextlib.closing(log):
            run = loop.Training(folder, settings, model, method, data.train, checkpoints, log, signals)
            loop.fit(run, state, validate, samples if log.has_board else None)


SENTENCES = "sentences.txt"  # in a workdir: the text, where `fit` was given a list


def fit(
    text: Sequence[str] | str | os.PathLike[str] | Config,
    workdir: str | os.PathLike[str],
    method: str | None = None,
    config_name: str = "text",
    **fields: Any,
) -> TrainedModel:
    """Train as the command does, and give the model; calling it again resumes a training that was stopped.

    `text` is a list of sentences, a path as `data.path` takes it, or a whole Config. `fields` are hyperparameters of
    the method and fields of the configuration by their last names: `gamma=0.6, max_epochs=20`. Raises InputError as
    the command does, for names that are unknown or stand in two sections too, and Stopped after Ctrl-C.
    """
    devices.start()
    folder = storage.path(workdir)
    base = text if isinstance(text, Config) else config_file.read(config_file.find(config_name))
    changes: dict[str, Any] = {} if method is None else {"method.name": method}
    if isinstance(text, str | os.PathLike):
        changes["data.path"] = os.fspath(text)
    elif not isinstance(text, Config):  # a list
        changes["data.path"] = str(folder / SENTENCES)
    for name, value in fields.items():
        own = name in hyperparameters(changes.get("method.name", base.method.name))
        full = [f"method.{name}"] if own else [field for field in config.FIELDS if field.partition(".")[2] == name]
        if len(full) != 1:
            raise InputError(f"{name}: expected a field of the configuration; " + (", ".join(full) or "no such field"))
        changes[full[0]] = value
    settings, _ = config_file.override(base, changes)
    config.validate(settings)
    if not isinstance(text, str | os.PathLike | Config):
        _keep(text, folder)
    train(settings, folder)
    run = load.load(folder)
    priors.fitted(run)
    return TrainedModel(run)


def _keep(sentences: Sequence[str], folder: Path) -> None:
    """Write the sentences into the workdir. Raises InputError where it holds others."""
    path, lines = folder / SENTENCES, [" ".join(sentence.splitlines()) for sentence in sentences]
    written = "\n".join(lines) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != written:
        raise InputError(f"{folder}: trained on other sentences; choose another workdir")
    with storage.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, written)


def finish(settings: Config, folder: Path) -> None:
    """Print where the files of a finished run are and, with `eval.at_end`, its evaluation and sentences."""
    run = load.load(folder)
    priors.fitted(run)
    if settings.eval.at_end:
        show(evaluate.evaluate(run, evaluate.EvaluationRequest()).result)
        console.log(f"\nten sentences from the prior, temperature {TEMPERATURE}:")
        for sentence in TrainedModel(run).sample(10):
            console.log(f"  {sentence}")
        console.log("\nfive sentences on the line between two draws:")
        for sentence in TrainedModel(run).interpolate(steps=5):
            console.log(f"  {sentence}")
        console.log("")
    board = "" if storage.is_remote(folder) else "tensorboard/, "
    console.log(f"done: {folder} holds config.json, vocab.txt, metrics.jsonl, {board}checkpoints/")
    verb = "sample --num 10" if settings.eval.at_end else "evaluate --split test"
    console.log(f"next: python -m scalevae_jax.{verb} --workdir {shlex.quote(str(folder))}")


def parser() -> Parser:
    """The arguments of this command, every field of the configuration among them."""
    arguments = Parser("scalevae_jax.train", __doc__)
    add = arguments.add_argument
    add("--config", metavar="NAME|FILE", help="the configuration: a name, or a file that defines get_config()")
    add("--workdir", metavar="DIR", help="the folder of the run, or gs://BUCKET/FOLDER; by default runs/<config name>")
    arguments.add_switch("--dry_run", help="print what the run would take (parameters, buckets, memory) and end")
    arguments.add_switch("--list_methods", help="list the methods and end")
    processes.add_arguments(arguments)
    config_file.add_arguments(arguments)
    return arguments


def _read_config(options: Namespace) -> tuple[Config, Path]:
    """The configuration, with the changes of the command line in it, and the workdir."""
    if options.config is None:
        raise InputError("--config is missing: a name, such as demo, or a file (see --help)")
    path = config_file.find(options.config)
    from_file = config_file.read(path)
    settings, dropped = config_file.override(from_file, config_file.read_arguments(options))
    config.validate(settings)
    if dropped:
        of = f"(of {from_file.method.name})"
        console.log(f"method {settings.method.name}: the file's {', '.join(dropped)} {of} dropped")
    return settings, storage.path(options.workdir or f"runs/{path.stem}")


def _list_methods() -> None:
    for name, constructor in METHODS.items():
        console.log(f"{name}: {' '.join((constructor.__doc__ or '').split())}")
        for key, parameter in hyperparameters(name).items():
            meaning = MEANINGS.get(key, "")
            console.log(f"    --config.method.{key}={parameter.default}: {meaning}".rstrip(": "))


def _command(options: Namespace) -> None:
    if options.list_methods:
        _list_methods()
        return
    settings, folder = _read_config(options)
    processes.start(options)
    if options.dry_run:
        prepare.introduce(settings, folder)
        prepare.describe(config.with_defaults(settings), prepare.read(settings))
        return
    train(settings, folder, timeout=options.initialization_timeout)
    finish(settings, folder)


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
