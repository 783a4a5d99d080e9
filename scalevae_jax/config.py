"""The typed configuration of a run: a file returns it, `--config.a.b=value` changes it, config.json keeps it."""

import dataclasses
import functools
import json
import math
import operator
from typing import Any

from scalevae_jax.core.linear import COMPUTE_DTYPES
from scalevae_jax.core.network import INITS, Decoder, Encoder, Model
from scalevae_jax.core.types import Inject, InputError
from scalevae_jax.data.config import FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Data, check
from scalevae_jax.data.config import described as _field
from scalevae_jax.methods import method as methods
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path


@dataclasses.dataclass
class Network:
    """Sizes of the network; encoder and decoder are alike."""

    embedding: int = _field(512, "dimensions of a word", POSITIVE)
    hidden: int = _field(1024, "units of each LSTM", POSITIVE)
    latent: int = _field(32, "dimensions of z", POSITIVE)
    dropout_words: float = _field(0.5, "share of the decoder's word features that are dropped", SHARE)
    dropout_outputs: float = _field(0.5, "share of the decoder's output features that are dropped", SHARE)
    word_dropout: float = _field(
        0.0, "share of the decoder's input words replaced by <unk> in training (Bowman et al. 2016)", SHARE
    )
    compute_dtype: str = _field(
        "float32",
        f"type of the operands of large products: {' or '.join(COMPUTE_DTYPES)} (a GPU multiplies float32 in tf32)",
        COMPUTE_DTYPES,
    )
    encoder_init: str = _field("", f"initial values: {', '.join(INITS)}; by default the method's", ("", *INITS))
    decoder_init: str = _field("", f"initial values: {', '.join(INITS)}; by default the method's", ("", *INITS))


def _method_fields() -> list[tuple[str, Any, Any]]:
    kinds: dict[str, Any] = {}
    for name in methods.METHODS:
        for key, parameter in methods.hyperparameters(name).items():
            if kinds.setdefault(key, parameter.annotation) is not parameter.annotation:
                raise TypeError(f"hyperparameter {key} has two types")
    users = {key: ", ".join(name for name in methods.METHODS if key in methods.hyperparameters(name)) for key in kinds}
    helps = {key: f"{methods.MEANINGS.get(key, '')} (for {users[key]})".lstrip() for key in kinds}
    name_field = ("name", str, _field("scale_vae", "one of " + ", ".join(methods.METHODS)))
    return [name_field] + [(key, kind | None, _field(None, helps[key])) for key, kind in kinds.items()]


# Its fields are those of all methods together, so that a method of one's own needs no change here.
MethodConfig = dataclasses.make_dataclass("MethodConfig", _method_fields())
MethodConfig.__module__ = __name__
MethodConfig.__doc__ = "The method by name and its hyperparameters; None is the method's own default."


@dataclasses.dataclass
class Optim:
    """The optimiser and its learning rate. The defaults are section 4.1's: SGD, and a rule that cuts the rate."""

    name: str = _field("sgd", "sgd (without momentum), adam, or adamw", ("sgd", "adam", "adamw"))
    learning_rate: float = _field(
        1.0, "learning rate, for the batch mean of nats a sentence; for Adam about 0.001", POSITIVE
    )
    weight_decay: float = _field(
        0.01, "for adamw: each step shrinks every matrix by this times the learning rate", SHARE
    )
    schedule: str = _field(
        "plateau",
        "plateau cuts the rate by the rule below; cosine lowers it to 0 over the whole training",
        ("plateau", "cosine"),
    )
    warmup_steps: int = _field(0, "steps at the start in which the rate rises to learning_rate", NOT_NEGATIVE)
    clip: float = _field(5.0, "maximum norm of the gradient of all parameters together", POSITIVE)
    patience: int = _field(5, "epochs without a better validation loss before the rate is cut", POSITIVE)
    decay: float = _field(0.5, "factor of a cut", FRACTION)
    max_decays: int = _field(5, "cuts after which training ends", POSITIVE)
    min_decay_epoch: int = _field(
        0, "no cut before this epoch, counted from 0; 15 in He et al.'s code, not given in the paper", NOT_NEGATIVE
    )
    early_stop: int = _field(
        0, "epochs without a better validation loss after which training ends; 0 means never", NOT_NEGATIVE
    )
    reload_best: bool = _field(True, "at a cut, return to the best parameters, as He et al.'s code does")


@dataclasses.dataclass
class Train:
    """The length of training."""

    max_epochs: int = _field(120, "maximum epochs", POSITIVE)
    max_steps: int = _field(0, "maximum steps; 0 means no limit", NOT_NEGATIVE)
    batch_size: int = _field(32, "sentences in the global batch", POSITIVE)
    steps_per_dispatch: int = _field(
        1, "steps dispatched at once where their batches share one padded length", POSITIVE
    )
    select_by: str = _field(
        "loss",
        "validation measure that patience watches and that picks the best epoch: loss (rec + KL of q, the paper's) or "
        "neg_elbo (rec + kl_model, a bound)",
        ("loss", "neg_elbo"),
    )
    encoder_from: str = _field("", "folder of a run whose encoder this one starts from (Li et al. 2019)")
    skip_nonfinite: bool = _field(
        False, "skip and count steps whose loss or gradient is not finite, instead of stopping"
    )
    seed: int = _field(0, "seed of initial values, data order and all draws", NOT_NEGATIVE)


@dataclasses.dataclass
class Eval:
    """Evaluation, during training and after it."""

    batch_size: int = _field(32, "sentences a batch", POSITIVE)
    iw_samples: int = _field(500, "draws a sentence for the importance-weighted NLL", POSITIVE)
    iw_chunk: int = _field(0, "draws at once; 0 means as many as fit into memory_mib", NOT_NEGATIVE)
    memory_mib: int = _field(128, "memory for the draws at once, in MiB", POSITIVE)
    at_end: bool = _field(False, "when training ends, evaluate the best checkpoint on the test split, and sample")


@dataclasses.dataclass
class Checkpoint:
    """When the run is saved, besides at the end of every epoch."""

    every_steps: int = _field(0, "steps between two saves; 0 means never", NOT_NEGATIVE)
    every_minutes: float = _field(10.0, "minutes between two saves; 0 means never", NOT_NEGATIVE)


@dataclasses.dataclass
class Config:
    """A run. `python -m scalevae_jax.train --help` lists the fields and their meanings."""

    data: Data = dataclasses.field(default_factory=Data)
    model: Network = dataclasses.field(default_factory=Network)
    method: Any = dataclasses.field(default_factory=MethodConfig)
    optim: Optim = dataclasses.field(default_factory=Optim)
    train: Train = dataclasses.field(default_factory=Train)
    eval: Eval = dataclasses.field(default_factory=Eval)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)


SECTIONS: dict[str, Any] = {field.name: field.default_factory for field in dataclasses.fields(Config)}
FIELDS = [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]

LARGEST_ADAM = 0.1  # learning rate
LARGEST_FILE = 2**20  # bytes of a config.json, which has about two thousand


def hyperparameters(config: Config) -> dict[str, Any]:
    """The hyperparameters that the configuration sets, without those it leaves to the method's defaults."""
    set_here = dataclasses.asdict(config.method)
    return {key: value for key, value in set_here.items() if key != "name" and value is not None}


def build_method(config: Config) -> Method:
    """The method that the configuration names. Equal names, hyperparameters and fields that the constructor asks for
    (`methods.FILLED`) give the same object.

    Raises InputError for an unknown name, an unknown hyperparameter or a wrong value.
    """
    name = config.method.name
    if name not in methods.METHODS:
        raise InputError(f"config.method.name: no method {name!r}; there are {', '.join(methods.METHODS)}")
    values = hyperparameters(config)
    known = methods.hyperparameters(name)
    for key in values:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"config.method.{key}: {name} has no such hyperparameter; it takes {takes}")
        if isinstance(values[key], float) and not math.isfinite(values[key]):
            raise InputError(f"config.method.{key}: expected a finite number, got {values[key]}")
    every = {key: parameter.default for key, parameter in known.items()} | values
    every |= {key: operator.attrgetter(field)(config) for key, field in methods.filled(name).items()}
    try:
        return _construct(name, tuple(sorted(every.items())))
    except ValueError as error:
        raise InputError(f"config.method: {error}") from error


@functools.cache  # what is compiled for a method is kept by the object: a second one would be compiled again
def _construct(name: str, values: tuple[tuple[str, Any], ...]) -> Method:
    return methods.METHODS[name](**dict(values))


def build_model(settings: Config, method: Method, words: int) -> Model:
    """The network of this size for this method; a method whose decoder never sees z has no latent dimension."""
    network = settings.model
    latent = network.latent if method.inject is not Inject.NONE else 0
    sizes = (words, network.embedding, network.hidden, latent)
    return Model(
        Encoder(*sizes, init_kind=network.encoder_init or method.encoder_init, compute_dtype=network.compute_dtype),
        Decoder(
            *sizes,
            inject=method.inject,
            dropout_words=network.dropout_words,
            dropout_outputs=network.dropout_outputs,
            init_kind=network.decoder_init or method.decoder_init,
            compute_dtype=network.compute_dtype,
            word_dropout=network.word_dropout,
        ),
    )


def with_defaults(config: Config) -> Config:
    """The same configuration with the method's defaults written out, those of the network's initial values too."""
    known = methods.hyperparameters(config.method.name)
    values = {key: parameter.default for key, parameter in known.items()} | hyperparameters(config)
    inits = {side: getattr(config.model, side) or getattr(build_method(config), side) for side in INIT_FIELDS}
    network = dataclasses.replace(config.model, **inits)
    return dataclasses.replace(config, model=network, method=MethodConfig(name=config.method.name, **values))


def validate(config: Config, where: str = "config.") -> None:
    """Raises InputError naming the first field whose value is wrong; `where` stands before its name."""
    for section in SECTIONS:
        check(getattr(config, section), f"{where}{section}.")
    if config.optim.name != "sgd" and config.optim.learning_rate > LARGEST_ADAM:
        raise InputError(
            f"{where}optim.learning_rate: {config.optim.learning_rate}; a step of {config.optim.name} moves every "
            f"parameter by about the rate, and initial values are about {LARGEST_ADAM}: give 0.001 or so"
        )
    least = build_method(config).posterior.min_batch
    if config.train.batch_size < least:
        raise InputError(
            f"{where}train.batch_size: {config.train.batch_size}; {config.method.name} takes the moments of batches of "
            f"{least} sentences or more"
        )


def to_json(config: Config) -> str:
    """The nested configuration; hyperparameters of other methods are left out."""
    tree = dataclasses.asdict(config)
    tree["method"] = {"name": config.method.name} | hyperparameters(config)
    return json.dumps(tree, indent=2) + "\n"


INIT_FIELDS = ("encoder_init", "decoder_init")


def from_json(path: Path) -> Config:
    """Read what `to_json` wrote; nothing in the file is executed.

    Raises InputError naming file and field.
    """
    tree = storage.read_json(path, LARGEST_FILE)
    config = Config()
    for name, values in tree.items():
        if not isinstance(values, dict):
            raise InputError(f"{path}: {name}: expected a JSON object")
        for key, value in values.items():
            if f"{name}.{key}" not in FIELDS:
                raise InputError(f"{path}: {name}.{key}: no such field")
            setattr(getattr(config, name), key, value)
    validate(config, f"{path}: ")
    return config


# Beginnings of fields. Another data.path must hold the same text: prepare compares digests.
MAY_CHANGE = ("data.path", "data.cache", "train.max_epochs", "train.skip_nonfinite", "eval.", "checkpoint.")


def differences(previous: Config, now: Config) -> list[str]:
    """The changes that a run does not survive: of all fields but those of MAY_CHANGE.

    A cosine is as long as the whole training, whose length may then not change.
    """
    changes: list[str] = []
    cosine = now.optim.schedule == "cosine"
    may_change = tuple(field for field in MAY_CHANGE if not (cosine and field == "train.max_epochs"))
    for field in FIELDS:
        was, new = operator.attrgetter(field)(previous), operator.attrgetter(field)(now)
        if was != new and not field.startswith(may_change):
            why = " (the cosine schedule depends on it)" if field == "train.max_epochs" else ""
            changes.append(f"{field} was {was!r} and is {new!r}{why}")
    return changes
