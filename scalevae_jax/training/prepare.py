"""What training reads: the text of a configuration as batches."""

import contextlib
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus, loader, vocab
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import workdir
from scalevae_jax.training.checkpoint import LATEST, Checkpoints
from scalevae_jax.training.lock import Lock
from scalevae_jax.training.loop import finished
from scalevae_jax.training.state import TrainState


class TrainingData(NamedTuple):
    """What training reads: the words and batches of the two splits."""

    words: vocab.Vocabulary
    train: loader.Loader
    valid: loader.Loader
    digests: dict[str, str]


def read(settings: Config, words: vocab.Vocabulary | None = None) -> TrainingData:
    """The feed of a configuration, said on the screen; the vocabulary is built from the training split unless given."""
    data = settings.data
    text = corpus.open(data)
    about = {split: text.about(split) for split in corpus.SPLITS}
    words = text.vocabulary() if words is None else words
    loaders = {}
    for split, size, parts, seed in (
        ("train", settings.train.batch_size, settings.optim.accumulate, settings.train.seed),
        ("valid", settings.eval.batch_size, 1, None),
    ):
        rows = text.split(split, words)
        edges = loader.bucket_lengths(rows.lengths, data.buckets)
        whole = devices.rows_for(size, parts)
        here = devices.rows_here(whole)
        loaders[split] = loader.Loader(rows, edges, size, whole, seed, data.partition, here)
    train, valid = loaders["train"], loaders["valid"]
    counts = " ".join(
        f"{split} {len(loaders[split].split) if split in loaders else found['sentences']:,}"
        for split, found in about.items()
    )
    unknown = f"{train.split.unknown:.1%} unknown (valid {valid.split.unknown:.1%})"
    console.log(f"data: {text.source.place}: {counts} sentences, {len(words):,} words, {unknown}")
    for remark in corpus.remarks(text, {split: of.split for split, of in loaders.items()}):
        console.warn(f"data: {remark}")
    padding = loader.padding_share(train.split.lengths, train.edges)
    console.log(
        f"buckets: {' '.join(map(str, train.edges))} tokens, {padding:.1%} padding, {len(train):,} batches an epoch, "
        "one compilation a bucket"
    )
    return TrainingData(words, train, valid, {split: found["sha256"] for split, found in about.items()})


def introduce(settings: Config, folder: Path) -> dict[str, Any]:
    """The run's first line; what it is made of, for the record."""
    devices.start()
    about = workdir.provenance()
    versions = " ".join(f"{name} {version}" for name, version in about["versions"].items())
    size = settings.train.batch_size
    share = devices.rows_for(size, settings.optim.accumulate) // jax.device_count()
    batch = f"batch {size}, {share} a device"
    console.log(f"{versions} | {about['device']} | {batch} | seed {settings.train.seed} | workdir {folder}")
    return about


def prepare(settings: Config, folder: Path, timeout: int = 300) -> tuple[TrainingData, Model, Method]:
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
        data = read(settings, vocab.load(folder / workdir.VOCABULARY))
        for split, digest in workdir.read_record(folder)["data"].items():
            if data.digests.get(split) != digest:
                raise InputError(f"{folder}: trained on another {split} file than {settings.data.path} holds now")
    else:
        data = read(settings)
    facts = {"configuration": config.to_json(settings), "workdir": "begun" if begun else "new"}
    facts |= {f"{split} data": digest for split, digest in data.digests.items()}
    processes.assert_same(facts, timeout)
    if not begun:
        if processes.is_main_process():
            data.words.save(folder / workdir.VOCABULARY)
        record = {**about, "command": sys.argv, "data": data.digests, "steps_per_epoch": len(data.train)}
        storage.write_json(folder / workdir.RUN, record)
    storage.write_text(folder / workdir.CONFIG, config.to_json(settings))
    processes.barrier("the workdir is written")
    if not (folder / workdir.CONFIG).exists():
        raise InputError(f"{folder}: not on storage that all hosts see; give a --workdir that is")
    return data, config.build_model(settings, method, len(data.words)), method


def _lock(folder: Path) -> contextlib.AbstractContextManager[Any]:
    if not processes.is_main_process():
        return contextlib.nullcontext()
    if isinstance(folder, pathlib.Path):
        return Lock(folder)
    console.warn(f"{folder}: nothing can be locked in a bucket; see to it that no other run has this --workdir")
    return contextlib.nullcontext()


def _begin(settings: Config, model: Model, method: Method, data: TrainingData, keeper: Checkpoints) -> TrainState:
    """The newest whole state of the run, or that before its first step."""
    like = workdir.abstract_state(settings, model, method, len(data.train))
    state = keeper.newest(like)
    if state is None:
        return workdir.create_state(settings, model, method, len(data.train))
    keeper.save(LATEST, state)  # where it was the best that was newest
    if not finished(settings, state) and not keeper.check_best(like):  # the next epoch becomes the best
        state = state._replace(plateau=state.plateau._replace(best=jnp.full_like(state.plateau.best, jnp.inf)))
    return state
