"""The typed configuration of a run: returned by a config file, changed by `--config.a.b=value`, kept in config.json."""

import dataclasses
import json
import math
import operator
import pathlib
import types
import typing
from typing import Any

from scalevae_jax.core.linear import COMPUTE_DTYPES
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Inject, InputError
from scalevae_jax.data.config import FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Data, check
from scalevae_jax.data.config import described as _field
from scalevae_jax.methods import method as methods
from scalevae_jax.methods.method import Method
from scalevae_jax.reproduce import paper
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path


@dataclasses.dataclass
class Network:
    """Sizes of the network; encoder and decoder are alike."""

    embedding: int = _field(512, "dimensions of a word", POSITIVE)
    hidden: int = _field(1024, "units of each LSTM", POSITIVE)
    latent: int = _field(32, "dimensions of z", POSITIVE)
    dropout_words: float = _field(0.5, "share of the decoder's word features dropped", SHARE)
    dropout_outputs: float = _field(0.5, "share of the decoder's output features dropped", SHARE)
    compute_dtype: str = _field(
        "float32",
        f"of the operands of large products: {' or '.join(COMPUTE_DTYPES)} (on a GPU float32 multiplies in tf32)",
        COMPUTE_DTYPES,
    )


def _method_fields() -> list[tuple[str, Any, Any]]:
    kinds: dict[str, Any] = {}
    for name in methods.METHODS:
        for key, parameter in methods.hyperparameters(name).items():
            if kinds.setdefault(key, parameter.annotation) is not parameter.annotation:
                raise TypeError(f"hyperparameter {key} has two types")
    of = {key: ", ".join(name for name in methods.METHODS if key in methods.hyperparameters(name)) for key in kinds}
    helps = {key: f"{methods.MEANINGS.get(key, '')} (of {of[key]})".lstrip() for key in kinds}
    name_field = ("name", str, _field("scale_vae", "one of " + ", ".join(methods.METHODS)))
    return [name_field] + [(key, kind | None, _field(None, helps[key])) for key, kind in kinds.items()]


MethodConfig = dataclasses.make_dataclass("MethodConfig", _method_fields())
MethodConfig.__module__ = __name__
MethodConfig.__doc__ = "The method by name and its hyperparameters; None is the method's own default."


@dataclasses.dataclass
class Optim:
    """SGD, and the rule that cuts its learning rate."""

    learning_rate: float = _field(1.0, "of SGD without momentum, on the batch mean of nats a sentence", POSITIVE)
    clip: float = _field(5.0, "largest norm of the gradient of all parameters together", POSITIVE)
    patience: int = _field(5, "epochs without a better validation loss before the rate is cut", POSITIVE)
    decay: float = _field(0.5, "factor of a cut", FRACTION)
    max_decays: int = _field(5, "cuts after which training ends", POSITIVE)
    min_decay_epoch: int = _field(
        15, "no cut before this epoch, counted from 0 (the reference code's guard)", NOT_NEGATIVE
    )
    reload_best: bool = _field(True, "go back to the best parameters at a cut, as the reference code does")
    accumulate: int = _field(
        1, "parts of a device's share that go one after the other: less memory, the same numbers", POSITIVE
    )


@dataclasses.dataclass
class Train:
    """The length of training."""

    max_epochs: int = _field(120, "epochs at most", POSITIVE)
    max_steps: int = _field(0, "steps at most; 0 is no limit", NOT_NEGATIVE)
    batch_size: int = _field(32, "sentences of the global batch", POSITIVE)
    steps_per_dispatch: int = _field(
        1, "steps given to the device at once where their batches have one length", POSITIVE
    )
    skip_nonfinite: bool = _field(False, "skip and count steps whose loss or gradient is not finite, instead of ending")
    seed: int = _field(0, "of initial values, data order and all draws", NOT_NEGATIVE)


@dataclasses.dataclass
class Eval:
    """Evaluation, in training and after it."""

    batch_size: int = _field(32, "sentences a batch", POSITIVE)
    iw_samples: int = _field(500, "importance-weighted draws a sentence", POSITIVE)
    iw_chunk: int = _field(0, "draws at once; 0 is as many as memory_mib holds", NOT_NEGATIVE)
    memory_mib: int = _field(128, "MiB that the draws at once may take", POSITIVE)
    paper: str = _field(
        "", "corpus of Table 1 whose row `evaluate` prints beside its own: yahoo or yelp", ("", *paper.CORPORA)
    )
    at_end: bool = _field(False, "evaluate the best checkpoint on the test split when training ends, and sample")


@dataclasses.dataclass
class Checkpoint:
    """When the run is saved beside every end of an epoch."""

    every_steps: int = _field(0, "steps; 0 is never", NOT_NEGATIVE)
    every_minutes: float = _field(10.0, "minutes; 0 is never", NOT_NEGATIVE)


@dataclasses.dataclass
class Config:
    """A run. Fields and meanings are listed by `python -m scalevae_jax.train --help`."""

    data: Data = dataclasses.field(default_factory=Data)
    model: Network = dataclasses.field(default_factory=Network)
    method: Any = dataclasses.field(default_factory=MethodConfig)
    optim: Optim = dataclasses.field(default_factory=Optim)
    train: Train = dataclasses.field(default_factory=Train)
    eval: Eval = dataclasses.field(default_factory=Eval)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)


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


def hyperparameters(config: Config) -> dict[str, Any]:
    """What the configuration sets for its method, without what it leaves to the method's default."""
    set_here = dataclasses.asdict(config.method)
    return {key: value for key, value in set_here.items() if key != "name" and value is not None}


def build_method(config: Config) -> methods.Method:
    """The method the configuration names. Raises InputError for a name, a hyperparameter or a value that can not be."""
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
            raise InputError(f"config.method.{key}: a finite number is wanted, got {values[key]}")
    try:
        return methods.METHODS[name](**values)
    except ValueError as error:
        raise InputError(f"config.method: {error}") from error


def with_defaults(config: Config) -> Config:
    """The same configuration with the method's defaults written out."""
    known = methods.hyperparameters(config.method.name)
    values = {key: parameter.default for key, parameter in known.items()} | hyperparameters(config)
    return dataclasses.replace(config, method=MethodConfig(name=config.method.name, **values))


def override_method(config: Config, from_file: Config, overrides: set[str]) -> tuple[Config, list[str]]:
    """Another method on the command line drops the hyperparameters that the file set for its own; names the dropped."""
    if config.method.name == from_file.method.name or config.method.name not in methods.METHODS:
        return config, []
    dropped = [key for key in hyperparameters(from_file) if f"method.{key}" not in overrides]
    return dataclasses.replace(config, method=dataclasses.replace(config.method, **dict.fromkeys(dropped))), dropped


def validate(config: Config, where: str = "config.") -> None:
    """Raises InputError naming the first field whose value can not be; `where` stands before its name."""
    for section, kind in SECTIONS.items():
        values = getattr(config, section)
        if not isinstance(values, kind):
            raise InputError(f"{where}{section}: a {kind.__name__} is wanted, got {values!r}")
        for field in dataclasses.fields(values):
            name, value = f"{where}{section}.{field.name}", getattr(values, field.name)
            _check_type(field.type, value, name)
            check(value, field.metadata["must_be"], name)
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


def _check_type(kind: Any, value: Any, where: str) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    kinds += (int,) if float in kinds else ()
    if not (bool in kinds if isinstance(value, bool) else isinstance(value, kinds)):
        raise InputError(f"{where}: {value!r} is not of type {getattr(kind, '__name__', kind)}")


def _section(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where}: a JSON object is wanted")
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in fields:
            raise InputError(f"{where}.{key}: no such field; there are {', '.join(fields)}")
        _check_type(fields[key], value, f"{where}.{key}")
    return kind(**values)


LARGEST_FILE = 2**20  # bytes; a configuration has two thousand


def from_json(path: Path) -> Config:
    """Read what `to_json` wrote; nothing in the file is executed. Raises InputError naming file and field."""
    tree = storage.read_json(path, LARGEST_FILE)
    for key in tree:
        if key not in SECTIONS:
            raise InputError(f"{path}: {key}: no such section; there are {', '.join(SECTIONS)}")
    config = Config(**{key: _section(SECTIONS[key], value, f"{path}: {key}") for key, value in tree.items()})
    validate(config, f"{path}: ")
    return config


SECTIONS: dict[str, Any] = {field.name: field.default_factory for field in dataclasses.fields(Config)}

FIELDS = [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]


MAY_CHANGE = ("optim.accumulate", "train.max_epochs", "train.skip_nonfinite", "eval.", "checkpoint.")  # beginnings


def differences(before: Config, now: Config) -> list[str]:
    """Fields that may not change between two lives of a run and did."""
    fixed = [field for field in FIELDS if not field.startswith(MAY_CHANGE)]
    lives = [(field, *map(operator.attrgetter(field), (before, now))) for field in fixed]
    return [f"{field} was {was!r} and is {new!r}" for field, was, new in lives if was != new]


def describe() -> str:
    """Every field with its default and meaning, for --help."""
    lines = []
    for section, kind in SECTIONS.items():
        lines.append(f"\n  {kind.__doc__}")
        for field in dataclasses.fields(kind):
            default = "" if field.default is None else f" [{field.default}]"
            lines.append(f"    --config.{section}.{field.name}{default}: {field.metadata['help']}")
    return "\n".join(lines)


def describe_methods() -> str:
    """Every method with its hyperparameters, defaults and reference, for --list_methods."""
    lines = []
    for name, constructor in methods.METHODS.items():
        lines.append(f"{name}: {' '.join((constructor.__doc__ or '').split())}")
        for key, parameter in methods.hyperparameters(name).items():
            lines.append(f"    --config.method.{key}={parameter.default}: {methods.MEANINGS.get(key, '')}".rstrip(": "))
    return "\n".join(lines)


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
        parts=settings.optim.accumulate,
    )
