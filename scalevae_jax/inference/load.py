"""Read a trained model: from the folder of a run, or from an exported folder."""

import contextlib
import hashlib
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from scalevae_jax import config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import InputError, Params, leaves_by_path
from scalevae_jax.data import tokenizer
from scalevae_jax.data.vocab import Vocabulary
from scalevae_jax.methods.method import METHODS, Method
from scalevae_jax.runtime import console, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import workdir
from scalevae_jax.training.checkpoint import Damaged
from scalevae_jax.training.workdir import CONFIG, RUN, WEIGHTS

SUMS = "SHA256SUMS"  # of an exported folder
FORMAT = "scalevae_jax 1"
STATE = "method_state"  # the prefix of its arrays in an exported file


class LoadedModel(NamedTuple):
    """A trained model and everything needed to use it."""

    workdir: Path
    settings: config.Config
    words: Vocabulary
    model: Model
    method: Method
    params: Params
    method_state: Any
    epoch: int  # at whose end these parameters were saved

    @property
    def factor(self) -> jax.Array:
        """What a draw from the prior is multiplied by: f_bar for Scale-VAE, ones for the others; [latent]."""
        return self.method.posterior.factor(self.method_state) * jnp.ones(self.model.latent)

    @property
    def digest(self) -> str:
        """sha256 of all arrays of the model."""
        sha = hashlib.sha256()
        for leaf in jax.tree.leaves((self.params, self.method_state)):
            sha.update(np.asarray(leaf).tobytes())
        return sha.hexdigest()

    def computing_in(self, dtype: str) -> "LoadedModel":
        """The same model with operands of this type in its large products."""
        settings = replace(self.settings, model=replace(self.settings.model, compute_dtype=dtype))
        config.validate(settings)
        return self._replace(settings=settings, model=config.build_model(settings, self.method, len(self.words)))


def read_definition(folder: Path) -> tuple[config.Config, Vocabulary, Method, Model]:
    """Configuration, vocabulary, method and network of a run, without its parameters. Raises InputError."""
    method_field: Any = storage.read_json(folder / CONFIG, config.LARGEST_FILE).get("method")
    name = method_field.get("name") if isinstance(method_field, dict) else None
    if isinstance(name, str) and name not in METHODS:
        raise InputError(
            f"{folder}: trained by {name!r}, a method that is not in the package; in a new Python process, import the "
            "script that defines it, then load the model from there (docs/methods.md)"
        )
    settings = config.from_json(folder / CONFIG)
    words = tokenizer.load(settings.data.tokenizer, folder / tokenizer.FILES[settings.data.tokenizer])
    method = config.build_method(settings)
    return settings, words, method, config.build_model(settings, method, len(words))


def load(folder: Path, fallback: bool = False) -> LoadedModel:
    """The model in the folder of a run, at its best epoch, or in an exported folder. Nothing in the folder changes.

    Raises InputError if the folder is neither, or if what it holds is missing or damaged. With `fallback`, the newest
    intact checkpoint replaces a damaged best one, with a warning.
    """
    exported = (folder / WEIGHTS).is_file()
    if exported:
        _check_digests(folder)
    elif missing := [name for name in (CONFIG, RUN) if not (folder / name).is_file()]:
        raise InputError(f"{folder}: not the folder of a run (no {missing[0]}); train with --workdir {folder} first")
    settings, words, method, model = read_definition(folder)
    # Scale-VAE's median keeps the factor of every step of an epoch, so a checkpoint's shapes depend on their number.
    steps_per_epoch = 1 if exported else workdir.read_record(folder)["steps_per_epoch"]

    def initial() -> tuple[Params, Any]:
        params = model.init(jax.random.key(0)) | {"posterior": method.posterior.init_params(model.latent)}
        return params, method.posterior.init(model.latent, steps_per_epoch)

    like = jax.eval_shape(initial)  # computes and compiles nothing
    if exported:
        params, method_state, epoch = _read_weights(folder / WEIGHTS, *like)
    else:
        with contextlib.closing(workdir.checkpoints(folder, settings, words)) as checkpoints:
            try:
                params, method_state, epoch = checkpoints.best_model(like)
            except Damaged as damage:
                if not fallback:
                    raise InputError(f"{damage}; --fallback takes the newest intact checkpoint instead") from damage
                console.warn(f"{damage}; taking the newest intact checkpoint instead")
                params, method_state, epoch = checkpoints.newest_model(like)
    return LoadedModel(folder, settings, words, model, method, params, method_state, epoch)


def leaves_by_name(params: Params, method_state: Any) -> dict[str, Any]:
    """The arrays of a model by dotted path, as in an exported file: `decoder.embedding`, `method_state.f_bar`."""
    return leaves_by_path({**params, STATE: method_state}, ".")


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_digests(folder: Path) -> None:
    """Raises InputError if a file of an exported folder is missing or is not the one that was exported."""
    try:
        sums = dict(line.split("  ")[::-1] for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
        vocabulary = [name for name in set(tokenizer.FILES.values()) if name in sums or (folder / name).is_file()]
        changed = [name for name in (WEIGHTS, CONFIG, *vocabulary) if file_digest(folder / name) != sums.get(name)]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a complete exported model ({error}); export it again") from error
    if changed:
        raise InputError(f"{folder}: {', '.join(changed)}: changed since the export (see {SUMS}); export it again")


def _read_weights(path: Path, params: Params, method_state: Any) -> tuple[Params, Any, int]:
    """Parameters, method state and epoch from an exported file; the arguments give the structure."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT!r}")
            leaves = [jnp.asarray(file.get_tensor(name)) for name in leaves_by_name(params, method_state)]
            epoch = int(metadata["epoch"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not weights of this version of the package ({error})") from error
    tree = jax.tree.unflatten(jax.tree.structure({**params, STATE: method_state}), leaves)
    method_state = tree.pop(STATE)
    return tree, method_state, epoch
