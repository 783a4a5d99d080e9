"""The folder of a run: everything it writes, and everything that using it later needs."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalevae_jax
from scalevae_jax import config, plateau, report, storage
from scalevae_jax import state as training
from scalevae_jax.checkpoint import BEST, FOLDER, Checkpoints, Damaged
from scalevae_jax.data import vocab
from scalevae_jax.method import Method
from scalevae_jax.model import Decoder, Encoder, Model
from scalevae_jax.storage import Path
from scalevae_jax.types import Inject, InputError, Params

CONFIG, VOCABULARY, RUN = "config.json", "vocab.txt", "run.json"
LARGEST_EPOCH = 2**31  # steps


def build_model(settings: config.Config, method: Method, words: int) -> Model:
    """The network of this size for this method; a method whose decoder never sees z has no latent dimension."""
    network = settings.model
    latent = network.latent if method.inject is not Inject.NONE else 0
    sizes = (words, network.embedding, network.hidden, latent)
    return Model(
        Encoder(*sizes, init_kind=method.encoder_init, compute_dtype=network.compute_dtype),
        Decoder(
            *sizes,
            inject=method.inject,
            dropout_words=network.dropout_words,
            dropout_outputs=network.dropout_outputs,
            init_kind=method.decoder_init,
            compute_dtype=network.compute_dtype,
        ),
        parts=settings.optim.accumulate,
    )


def optimizer(settings: config.Config) -> optax.GradientTransformation:
    """What turns gradients into directions; the learning rate is the plateau's."""
    return optax.clip_by_global_norm(settings.optim.clip)


def rule(settings: config.Config) -> plateau.Rule:
    """When the learning rate is cut, and training ends."""
    optim = settings.optim
    return plateau.Rule(optim.patience, optim.decay, optim.max_decays, optim.min_decay_epoch)


def provenance() -> dict[str, Any]:
    """Versions of what the numbers depend on, the git commit where there is one, and the device."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.devices()[0]
    return {
        "versions": {"scalevae_jax": scalevae_jax.__version__}
        | {name: importlib.metadata.version(name) for name in names},
        "git": _commit(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }


def _commit() -> str | None:
    checkout = pathlib.Path(__file__).parents[1]
    if not (checkout / ".git").exists():  # installed; a repository further up is another's
        return None
    try:
        line = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        git = subprocess.run(line, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git
        return None
    return git.stdout.strip()


def read_record(workdir: Path) -> dict[str, Any]:
    """run.json: versions, git commit, device and command of the run's first start, digests of its corpus."""
    path = workdir / RUN
    try:
        record = storage.read_json(path)
        steps = record["steps_per_epoch"]
        if type(steps) is not int or not 0 < steps < LARGEST_EPOCH or type(record["data"]) is not dict:
            raise ValueError("steps_per_epoch or data is out of range")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a readable record of a run ({error})") from error
    return record


def begun(workdir: Path) -> bool:
    """Whether a run has saved a state there."""
    return (workdir / CONFIG).exists() and any((workdir / FOLDER).glob("*/[0-9]*"))


def write_text(path: Path, text: str) -> None:
    """Whole or not at all; of several processes the first one writes."""
    if jax.process_index() == 0:
        storage.write(path, text)


def write_json(path: Path, tree: Any) -> None:
    """Whole or not at all."""
    write_text(path, json.dumps(tree, indent=2) + "\n")


def refuse_links(workdir: Path) -> None:
    """Raises InputError for a symbolic link that leaves the folder: it could make a command read or write elsewhere."""
    if not isinstance(workdir, pathlib.Path):  # a bucket has none
        return
    home = pathlib.Path(os.path.realpath(workdir))
    for path in workdir.rglob("*"):
        if path.is_symlink() and not pathlib.Path(os.path.realpath(path)).is_relative_to(home):
            raise InputError(f"{path}: a symbolic link that leaves the folder of the run; put the file itself there")


def checkpoints(workdir: Path, settings: config.Config, words: vocab.Vocabulary, writing: bool = False) -> Checkpoints:
    """The keepers of a run's states, which belong to its method and vocabulary."""
    text = hashlib.blake2b("\n".join(words.words).encode(), digest_size=16).hexdigest()
    about = {"method": settings.method.name, "vocabulary": f"{len(words)} words with digest {text}"}
    return Checkpoints(workdir, about, writing)


class Run(NamedTuple):
    """A trained model as its workdir holds it, at the best epoch."""

    workdir: Path
    settings: config.Config
    words: vocab.Vocabulary
    model: Model
    method: Method
    params: Params
    method_state: Any
    epoch: int

    @property
    def factor(self) -> jax.Array:
        """What a draw from the prior is multiplied by: f_bar for Scale-VAE, ones for the others; [latent]."""
        return self.method.posterior.factor(self.method_state) * jnp.ones(self.model.latent)

    @property
    def digest(self) -> str:
        """sha256 of all that the model computes with."""
        sha = hashlib.sha256()
        for leaf in jax.tree.leaves((self.params, self.method_state)):
            sha.update(np.asarray(leaf).tobytes())
        return sha.hexdigest()

    def computing_in(self, dtype: str) -> "Run":
        """The same model with operands of this type in its large products."""
        settings = replace(self.settings, model=replace(self.settings.model, compute_dtype=dtype))
        config.validate(settings)
        return self._replace(settings=settings, model=build_model(settings, self.method, len(self.words)))


def design(folder: Path) -> tuple[config.Config, vocab.Vocabulary, Method, Model]:
    """Configuration, words, method and network of a run, without its numbers. Raises InputError."""
    settings, words = config.from_json(folder / CONFIG), vocab.load(folder / VOCABULARY)
    method = config.build_method(settings)
    return settings, words, method, build_model(settings, method, len(words))


def load(workdir: Path, fallback: bool = False) -> Run:
    """The best model of a run. Nothing in the folder is executed or changed.

    Raises InputError where the folder is no run or holds no checkpoint yet, or a damaged one; `fallback` takes, loudly,
    the newest whole one instead.
    """
    for name in (CONFIG, RUN):
        if not (workdir / name).is_file():
            raise InputError(f"{workdir}: not the folder of a run (no {name}); train with --workdir {workdir} first")
    refuse_links(workdir)
    settings, words, method, model = design(workdir)
    like = abstract_state(settings, model, method, read_record(workdir)["steps_per_epoch"])
    keeper = checkpoints(workdir, settings, words)
    try:
        best = keeper.only(BEST, like)
    except Damaged as damage:
        if not fallback:
            raise InputError(f"{damage}; --fallback takes the newest whole checkpoint instead") from damage
        report.warn(f"{damage}; the newest whole checkpoint is taken instead")
        best = keeper.newest(like)
        assert best is not None  # else `only` had said that there is none
    finally:
        keeper.close()
    return Run(workdir, settings, words, model, method, best.params, best.method_state, int(best.epoch) - 1)


def create_state(settings: config.Config, model: Model, method: Method, steps_per_epoch: int) -> training.TrainState:
    """The training state before the first step."""
    rate, seed = settings.optim.learning_rate, settings.train.seed
    return jax.jit(lambda: training.create(model, method, optimizer(settings), rate, steps_per_epoch, seed))()


def abstract_state(settings: config.Config, model: Model, method: Method, steps_per_epoch: int) -> training.TrainState:
    """Its shapes alone."""
    return jax.eval_shape(lambda: create_state(settings, model, method, steps_per_epoch))
