"""The folder of a run: everything it writes, and everything that using it later needs."""

import hashlib
import importlib.metadata
import os
import pathlib
import subprocess
from typing import Any

import jax
import optax

import scalevae_jax
from scalevae_jax import config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import InputError
from scalevae_jax.data import vocab
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import plateau
from scalevae_jax.training import state as training
from scalevae_jax.training.checkpoint import FOLDER, Checkpoints

CONFIG, VOCABULARY, RUN = "config.json", "vocab.txt", "run.json"
LARGEST_EPOCH = 2**31  # steps


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


def create_state(settings: config.Config, model: Model, method: Method, steps_per_epoch: int) -> training.TrainState:
    """The training state before the first step."""
    rate, seed = settings.optim.learning_rate, settings.train.seed
    return jax.jit(lambda: training.create(model, method, optimizer(settings), rate, steps_per_epoch, seed))()


def abstract_state(settings: config.Config, model: Model, method: Method, steps_per_epoch: int) -> training.TrainState:
    """Its shapes alone."""
    return jax.eval_shape(lambda: create_state(settings, model, method, steps_per_epoch))
