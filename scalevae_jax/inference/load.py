"""Read a trained model: from the folder of a run, or from an exported one."""

import hashlib
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from scalevae_jax import config
from scalevae_jax.config import build_model
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import InputError, Params, leaves_by_path
from scalevae_jax.data import vocab
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import workdir
from scalevae_jax.training.checkpoint import BEST, Damaged
from scalevae_jax.training.workdir import (
    CONFIG,
    RUN,
    VOCABULARY,
    abstract_state,
    checkpoints,
    read_record,
    refuse_links,
)


class LoadedModel(NamedTuple):
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

    def computing_in(self, dtype: str) -> "LoadedModel":
        """The same model with operands of this type in its large products."""
        settings = replace(self.settings, model=replace(self.settings.model, compute_dtype=dtype))
        config.validate(settings)
        return self._replace(settings=settings, model=build_model(settings, self.method, len(self.words)))


def read_definition(folder: Path) -> tuple[config.Config, vocab.Vocabulary, Method, Model]:
    """Configuration, words, method and network of a run, without its numbers. Raises InputError."""
    settings, words = config.from_json(folder / CONFIG), vocab.load(folder / VOCABULARY)
    method = config.build_method(settings)
    return settings, words, method, build_model(settings, method, len(words))


def load(workdir: Path, fallback: bool = False) -> LoadedModel:
    """The best model of a run. Nothing in the folder is executed or changed.

    Raises InputError where the folder is no run or holds no checkpoint yet, or a damaged one; `fallback` takes, loudly,
    the newest whole one instead.
    """
    for name in (CONFIG, RUN):
        if not (workdir / name).is_file():
            raise InputError(f"{workdir}: not the folder of a run (no {name}); train with --workdir {workdir} first")
    refuse_links(workdir)
    settings, words, method, model = read_definition(workdir)
    like = abstract_state(settings, model, method, read_record(workdir)["steps_per_epoch"])
    keeper = checkpoints(workdir, settings, words)
    try:
        best = keeper.only(BEST, like)
    except Damaged as damage:
        if not fallback:
            raise InputError(f"{damage}; --fallback takes the newest whole checkpoint instead") from damage
        console.warn(f"{damage}; the newest whole checkpoint is taken instead")
        best = keeper.newest(like)
        assert best is not None  # else `only` had said that there is none
    finally:
        keeper.close()
    return LoadedModel(workdir, settings, words, model, method, best.params, best.method_state, int(best.epoch) - 1)


WEIGHTS, CARD, DATA_LICENSE, SUMS = "model.safetensors", "README.md", "DATA_LICENSE", "SHA256SUMS"
FORMAT = "scalevae_jax 1"


def leaves_by_name(params: Any, method_state: Any) -> dict[str, Any]:
    """Leaves by dotted path: `decoder.embedding`, `method_state.f_bar`."""
    return leaves_by_path({**params, "method_state": method_state}, ".")


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_exported(folder: Path) -> LoadedModel:
    """Read what `save` wrote. Raises InputError where a file is missing, changed, or not of this format."""
    try:
        sums = dict(line.split("  ")[::-1] for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
        changed = [name for name in (WEIGHTS, CONFIG, VOCABULARY) if file_digest(folder / name) != sums.get(name)]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a whole exported model ({error}); export it again") from error
    if changed:
        raise InputError(f"{folder}: {', '.join(changed)}: not the file that was exported (see {SUMS}); export again")
    settings, words, method, model = read_definition(folder)
    try:
        with safetensors.safe_open(folder / WEIGHTS, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"format {about.get('format')!r}; {FORMAT!r} is wanted")
            epoch, steps = int(about["epoch"]), int(about["steps_per_epoch"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{folder / WEIGHTS}: not weights of this version of the package ({error})") from error
    like = workdir.abstract_state(settings, model, method, steps)
    wanted = leaves_by_name(like.params, like.method_state)
    for name, want in wanted.items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (want.shape, want.dtype):
            raise InputError(
                f"{folder / WEIGHTS}: {name}: {want.dtype}{list(want.shape)} is wanted, as {CONFIG} has it"
            )
    shape = jax.tree.structure({**like.params, "method_state": like.method_state})
    tree = jax.tree.unflatten(shape, [jax.numpy.asarray(tensors[name]) for name in wanted])
    method_state = tree.pop("method_state")
    return LoadedModel(folder, settings, words, model, method, tree, method_state, epoch)
