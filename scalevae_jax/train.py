"""Train a text VAE; the same command with the same workdir resumes a stopped run.

Examples:
  python -m scalevae_jax.train --config demo
  python -m scalevae_jax.train --config yahoo --workdir runs/yahoo --config.data.path=DIR
  python -m scalevae_jax.train --config demo --workdir runs/vae --config.method.name=vae
  python -m scalevae_jax.train --config yahoo --config.data.path=DIR --dry_run

--config.section.field=value changes any field of the configuration. Everything that the run writes is in the workdir.
"""

import contextlib
import functools
import math
import sys
from argparse import Namespace
from typing import Any

import jax
import numpy as np

from scalevae_jax import config, config_file
from scalevae_jax.config import Config
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import InputError, Params
from scalevae_jax.data import tokenizer
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.evaluate import prior_to_sample, show
from scalevae_jax.inference import decoding, evaluate, flags, load, posteriors, priors
from scalevae_jax.inference.decoding import TEMPERATURE
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods.method import MEANINGS, METHODS, hyperparameters
from scalevae_jax.runtime import command, console, processes, storage
from scalevae_jax.runtime.command import Parser
from scalevae_jax.runtime.signals import Signals
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import prepare, problems, workdir
from scalevae_jax.training.log import EpochLog, read_metrics
from scalevae_jax.training.loop import Training, finished, fit
from scalevae_jax.training.state import abstract_state, create_state

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
    except BrokenPipeError:  # nobody reads the output
        raise
    except FileExistsError as error:
        raise InputError(f"{folder}: {error.strerror}, and is no folder; choose another one") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; what was saved before is intact. Make the "
            "folder writable, with room, then the same command resumes"
        ) from error


def _pretrained(settings: Config, words: Vocabulary, like: Params) -> Params:
    """The encoder of another run; raises InputError if its vocabulary is different, or its shapes are not `like`'s."""
    other = load.load(storage.path(settings.train.encoder_from))
    if other.words.words != words.words:
        raise InputError(
            f"config.train.encoder_from: {other.workdir}: its vocabulary is different; train both on the same "
            "text with the same data.tokenizer and data.vocab_size"
        )
    if jax.tree.map(np.shape, other.params["encoder"]) != jax.tree.map(np.shape, like):
        raise InputError(
            f"config.train.encoder_from: {settings.train.encoder_from}: its network has other sizes; give both runs "
            "the same model.embedding, model.hidden and model.latent"
        )
    return other.params["encoder"]


def _train(settings: Config, folder: Path, timeout: int) -> None:
    data, model, method = prepare.prepare(settings, folder, timeout)
    key = stream_key(settings.train.seed, Stream.VALIDATION)
    first_and_last = np.zeros((2, model.latent), np.float32)  # validation sentences: their posterior means

    def current(params: Params, method_state: Any) -> load.LoadedModel:
        return load.LoadedModel(folder, settings, data.words, model, method, params, method_state, epoch=0)

    def validate(params: Params, method_state: Any) -> dict[str, Any]:
        inferred = posteriors.infer(current(params, method_state), data.valid, key)
        first_and_last[:] = np.asarray(inferred.posteriors.q_hat.mean)[[0, -1]]
        return inferred.summary(method)

    def texts(params: Params, method_state: Any) -> dict[str, list[str]]:
        trained = TrainedModel(current(params, method_state))
        if not model.latent:
            return {"samples": trained.written(trained.sample(5))}
        ends = [data.words.decode(data.valid.split[i]) for i in (0, len(data.valid.split) - 1)]
        between = trained.decode(np.asarray(decoding.interpolate(*first_and_last, steps=5)))
        a, *between, b = trained.written([ends[0], *between, ends[1]])
        return {"samples": trained.written(trained.sample(5)), "interpolation": [f"from: {a}", *between, f"to: {b}"]}

    with contextlib.closing(workdir.checkpoints(folder, settings, data.words, writing=True)) as checkpoints:
        state = checkpoints.newest(abstract_state(settings, model, method, len(data.train)))
        if state is None:
            state = create_state(settings, model, method, len(data.train))
            if settings.train.encoder_from:
                encoder = _pretrained(settings, data.words, state.params["encoder"])
                state = state._replace(params=state.params | {"encoder": encoder})
        if finished(settings, state, checkpoints):
            done = f"{int(state.epoch) - 1} epochs, {int(state.step)} steps"
            console.log(f"already finished: {done}; nothing is left to train")
            return
        if int(state.step):
            console.log(f"resumed in epoch {int(state.epoch)} at step {int(state.step)}")
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
        options = " ".join(f"{key}={value}" for key, value in config.hyperparameters(settings).items())
        console.log(f"method: {settings.method.name} {options} | {parameters:,} parameters")
        log = EpochLog(folder, int(state.epoch), int(state.step), processes.is_main_process())
        log.text("configuration", config.to_json(settings).splitlines(), int(state.step))
        with Signals(STOPPING) as signals, contextlib.closing(log):
            run = Training(folder, settings, model, method, data.train, checkpoints, log, signals)
            fit(run, state, validate, texts if log.has_board else None)


def finish(settings: Config, folder: Path) -> None:
    """Print where the files of a finished run are and, with `eval.at_end`, its evaluation and sentences."""
    run = load.load(folder)
    priors.fitted(run)
    console.log(f"best checkpoint: epoch {run.epoch}, by the validation {settings.train.select_by}")
    if warning := problems.larger_factor(read_metrics(folder), run.epoch, settings):
        console.warn(warning)
    prior = "model"
    if settings.eval.at_end:
        result = evaluate.evaluate(run, evaluate.EvaluationRequest()).result
        show(result)
        prior, trained = prior_to_sample(result), TrainedModel(run)
        console.log(f"\nten sentences, prior {prior}, temperature {TEMPERATURE}:")
        for sentence in trained.written(trained.sample(10, prior=prior)):
            console.log(f"  {sentence}")
        console.log("\nfive sentences on the line between two draws:")
        for sentence in trained.written(trained.interpolate(steps=5)):
            console.log(f"  {sentence}")
        console.log("")
    words = tokenizer.FILES[settings.data.tokenizer]
    board = "" if storage.is_remote(folder) else "tensorboard/, "
    made = (priors.FILE, evaluate.output(evaluate.EvaluationRequest()))
    more = "".join(f", {name}" for name in made if (folder / name).is_file())
    console.log(f"done: {folder} holds config.json, {words}, metrics.jsonl, {board}checkpoints/{more}")
    verb, arguments = ("sample", f"--num 10 --prior {prior}") if settings.eval.at_end else ("evaluate", "--split test")
    console.log(flags.next_step(verb, arguments, settings.method.name, folder))


def parser() -> Parser:
    arguments = Parser("scalevae_jax.train", __doc__)
    config_file.add_arguments(arguments)
    add = arguments.add_argument
    add("--workdir", metavar="DIR", help="the folder of the run, or gs://BUCKET/FOLDER; by default runs/<config name>")
    arguments.add_switch(
        "--dry_run", help="print what the run would need (parameters, padded lengths, memory, time) and exit"
    )
    arguments.add_switch("--list_methods", help="list the methods and exit")
    processes.add_arguments(arguments)
    return arguments


def _read_config(options: Namespace) -> tuple[Config, Path]:
    """The configuration, with the changes of the command line in it, and the workdir."""
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
