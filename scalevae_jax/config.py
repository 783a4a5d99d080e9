"""The typed configuration of a run: a file returns it, `--config.a.b=value` changes it, config.json keeps it."""

import copy
import dataclasses
import functools
import json
import math
import operator
import pathlib
import runpy
import traceback
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from scalevae_jax.core.linear import COMPUTE_DTYPES
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Inject, InputError
from scalevae_jax.data.config import FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Data, check
from scalevae_jax.data.config import described as _field
from scalevae_jax.methods import method as methods
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.command import Parser, add_fields
from scalevae_jax.runtime.storage import Path, first_line


@dataclasses.dataclass
class Network:
    """Sizes of the network; encoder and decoder are alike."""

    embedding: int = _field(512, "dimensions of a word", POSITIVE)
    hidden: int = _field(1024, "units of each LSTM", POSITIVE)
    latent: int = _field(32, "dimensions of z", POSITIVE)
    dropout_words: float = _field(0.5, "share of the decoder's word features that are dropped", SHARE)
    dropout_outputs: float = _field(0.5, "share of the decoder's output features that are dropped", SHARE)
    compute_dtype: str = _field(
        "float32",
        f"type of the operands of large products: {' or '.join(COMPUTE_DTYPES)} (on a GPU float32 multiplies in tf32)",
        COMPUTE_DTYPES,
    )


def _method_fields() -> list[tuple[str, Any, Any]]:
    kinds: dict[str, Any] = {}
    for name in methods.METHODS:
        for key, parameter in methods.hyperparameters(name).items():
            if kinds.setdefault(key, parameter.annotation) is not parameter.annotation:
                raise TypeError(f"hyperparameter {key} has two types")
    users = {key: ", ".join(name for name in methods.METHODS if key in methods.hyperparameters(name)) for key in kinds}
    helps = {key: f"{methods.MEANINGS.get(key, '')} (of {users[key]})".lstrip() for key in kinds}
    name_field = ("name", str, _field("scale_vae", "one of " + ", ".join(methods.METHODS)))
    return [name_field] + [(key, kind | None, _field(None, helps[key])) for key, kind in kinds.items()]


# Its fields are those of all methods together, so that a method of one's own needs no change here.
MethodConfig = dataclasses.make_dataclass("MethodConfig", _method_fields())
MethodConfig.__module__ = __name__
MethodConfig.__doc__ = "The method by name and its hyperparameters; None is the method's own default."


@dataclasses.dataclass
class Optim:
    """SGD, and the rule that cuts its learning rate (section 4.1 of the paper)."""

    learning_rate: float = _field(1.0, "rate of SGD without momentum, on the batch mean of nats a sentence", POSITIVE)
    clip: float = _field(5.0, "largest norm of the gradient of all parameters together", POSITIVE)
    patience: int = _field(5, "epochs without a better validation loss until the rate is cut", POSITIVE)
    decay: float = _field(0.5, "factor of a cut", FRACTION)
    max_decays: int = _field(5, "cuts after which training ends", POSITIVE)
    min_decay_epoch: int = _field(
        15, "no cut before this epoch, counted from 0, as in the reference code", NOT_NEGATIVE
    )
    reload_best: bool = _field(True, "at a cut return to the best parameters, as the reference code does")


@dataclasses.dataclass
class Train:
    """The length of training."""

    max_epochs: int = _field(120, "most epochs", POSITIVE)
    max_steps: int = _field(0, "most steps; 0 is no limit", NOT_NEGATIVE)
    batch_size: int = _field(32, "sentences of the global batch", POSITIVE)
    steps_per_dispatch: int = _field(1, "steps dispatched at once where their batches have one padded length", POSITIVE)
    skip_nonfinite: bool = _field(
        False, "skip and count steps whose loss or gradient is not finite, instead of stopping"
    )
    seed: int = _field(0, "seed of initial values, data order and all draws", NOT_NEGATIVE)


@dataclasses.dataclass
class Eval:
    """Evaluation, in training and after it."""

    batch_size: int = _field(32, "sentences a batch", POSITIVE)
    iw_samples: int = _field(500, "draws a sentence for the importance-weighted NLL", POSITIVE)
    iw_chunk: int = _field(0, "draws at once; 0 is as many as fit into memory_mib", NOT_NEGATIVE)
    memory_mib: int = _field(128, "MiB for the draws at once", POSITIVE)
    at_end: bool = _field(False, "when training ends, evaluate the best checkpoint on the test split, and sample")


@dataclasses.dataclass
class Checkpoint:
    """When the run is saved, besides the end of every epoch."""

    every_steps: int = _field(0, "every so many steps; 0 is never", NOT_NEGATIVE)
    every_minutes: float = _field(10.0, "every so many minutes; 0 is never", NOT_NEGATIVE)


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

LARGEST_FILE = 2**20  # bytes of a config.json, which has about two thousand
_HERE = pathlib.Path(__file__).parent
FOLDER = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"  # of a wheel, of a checkout


def find(name: str) -> pathlib.Path:
    """The file of a configuration: one of `configs/` by its name (`demo`), or any file by its path.

    Raises InputError where there is neither.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    path = known.get(name, pathlib.Path(name))
    if not path.is_file():
        raise InputError(f"--config {name}: no such file; by name there are {', '.join(known)}")
    return path


def read(path: pathlib.Path) -> Config:
    """The Config that get_config() of a configuration file returns.

    Raises InputError that names the file, and the line where the file is at fault.
    """
    try:
        names = runpy.run_path(str(path))
        if "get_config" not in names:
            raise InputError(f"{path}: defines no get_config()")
        config = names["get_config"]()
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line, reason = (lines or [None])[-1], first_line(error)
        if isinstance(error, SyntaxError):
            line, reason = error.lineno, error.msg
        where = str(path) if line is None else f"{path}, line {line}"
        raise InputError(f"{where}: {type(error).__name__}: {reason}") from error
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returns {type(config).__name__}; expected scalevae_jax.config.Config")
    for section, kind in SECTIONS.items():
        if not isinstance(getattr(config, section), kind):
            raise InputError(f"{path}: config.{section}: expected {kind.__name__}, got {getattr(config, section)!r}")
    return config


def add_arguments(arguments: Parser) -> None:
    """--config.SECTION.FIELD for every field of the configuration."""
    for section, kind in SECTIONS.items():
        add_fields(arguments.add_argument_group(f"config.{section}", kind.__doc__), kind, f"--config.{section}.")


def read_arguments(options: Namespace) -> dict[str, Any]:
    """The fields that were given on the command line: {"train.seed": 1}."""
    return {field: value for field in FIELDS if (value := getattr(options, f"config.{field}", ...)) is not ...}


def override(config: Config, changes: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The configuration with the fields of `changes` ({"train.seed": 1}), and the names of hyperparameters dropped.

    A change of method drops the hyperparameters that were set for the other one.
    """
    dropped: list[str] = []
    if changes.get("method.name", config.method.name) != config.method.name:
        dropped = [key for key in hyperparameters(config) if f"method.{key}" not in changes]
    config = copy.deepcopy(config)
    for name, value in [*((f"method.{key}", None) for key in dropped), *changes.items()]:
        section, _, field = name.partition(".")
        setattr(getattr(config, section), field, value)
    return config, dropped


def hyperparameters(config: Config) -> dict[str, Any]:
    """The hyperparameters that the configuration sets, without those it leaves to the method's defaults."""
    set_here = dataclasses.asdict(config.method)
    return {key: value for key, value in set_here.items() if key != "name" and value is not None}


def build_method(config: Config) -> Method:
    """The method that the configuration names. Equal names and hyperparameters give the same object.

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
        Encoder(*sizes, init_kind=method.encoder_init, compute_dtype=network.compute_dtype),
        Decoder(
            *sizes,
            inject=method.inject,
            dropout_words=network.dropout_words,
            dropout_outputs=network.dropout_outputs,
            init_kind=method.decoder_init,
            compute_dtype=network.compute_dtype,
        ),
    )


def with_defaults(config: Config) -> Config:
    """The same configuration with the method's defaults written out."""
    known = methods.hyperparameters(config.method.name)
    values = {key: parameter.default for key, parameter in known.items()} | hyperparameters(config)
    return dataclasses.replace(config, method=MethodConfig(name=config.method.name, **values))


def validate(config: Config, where: str = "config.") -> None:
    """Raises InputError naming the first field whose value is wrong; `where` stands before its name."""
    for section in SECTIONS:
        check(getattr(config, section), f"{where}{section}.")
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


def from_json(path: Path) -> Config:
    """Read what `to_json` wrote; nothing in the file is executed. Raises InputError naming file and field."""
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


MAY_CHANGE = ("train.max_epochs", "train.skip_nonfinite", "eval.", "checkpoint.")  # beginnings of fields


def differences(previous: Config, now: Config) -> list[str]:
    """The changes that a run does not survive: of all fields but those of MAY_CHANGE."""
    changes: list[str] = []
    for field in FIELDS:
        was, new = operator.attrgetter(field)(previous), operator.attrgetter(field)(now)
        if was != new and not field.startswith(MAY_CHANGE):
            changes.append(f"{field} was {was!r} and is {new!r}")
    return changes
