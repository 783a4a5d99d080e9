"""What training starts from: the text as batches, the workdir's record of the run, and the state to resume from."""

import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.table import Table

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import InputError, leaves_by_path
from scalevae_jax.data import corpus, loader, tokenizer, vocab
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import optimizer, workdir
from scalevae_jax.training.state import abstract_state, create_state
from scalevae_jax.training.steps import make_steps

MIB = 2**20
TIMED = 8  # steps that the estimate of --dry_run takes, after the first
FEW_STEPS = 1000  # fewer hardly train z: smoke has 378, the demo 5,020


class TrainingData(NamedTuple):
    """The words, and the batches of the two splits that training reads."""

    words: vocab.Vocabulary
    train: loader.Loader
    valid: loader.Loader
    digests: dict[str, str]  # of every split's text, sha256


def read(settings: Config, words: vocab.Vocabulary | None = None) -> TrainingData:
    """Read the text of a configuration, and print what it is; without `words`, the training split gives them."""
    data = settings.data
    text = corpus.open(data)
    metadata = {split: text.metadata(split) for split in corpus.SPLITS}
    words = text.vocabulary() if words is None else words
    rows, seed = text.split("train", words), settings.train.seed
    train = loader.over_devices(rows, data.buckets, settings.train.batch_size, seed, data.partition)
    valid = loader.over_devices(text.split("valid", words), data.buckets, settings.eval.batch_size)
    splits = {"train": train.split, "valid": valid.split}
    counts = " ".join(
        f"{split} {len(splits[split]) if split in splits else known['sentences']:,}"
        for split, known in metadata.items()
    )
    unknown = f"{train.split.unknown:.1%} unknown (valid {valid.split.unknown:.1%})"
    unit = tokenizer.UNITS[data.tokenizer]
    console.log(f"data: {text.source.place}: {counts} sentences, {len(words):,} {unit}, {unknown}")
    for remark in corpus.remarks(text, splits):
        console.warn(f"data: {remark}")
    padding = loader.padding_share(train.split.lengths, train.edges)
    console.log(
        f"buckets: {' '.join(map(str, train.edges))} tokens, {padding:.1%} padding, {len(train):,} batches an epoch, "
        "one compilation a bucket"
    )
    steps = len(train) * settings.train.max_epochs
    steps = min(steps, settings.train.max_steps or steps)
    if steps < FEW_STEPS:
        console.warn(
            f"only {steps:,} steps in all, {len(train):,} an epoch: z is hardly learned in so few. A larger "
            "--config.train.max_epochs gives more, as does a smaller --config.train.batch_size"
        )
    return TrainingData(words, train, valid, {split: known["sha256"] for split, known in metadata.items()})


def introduce(settings: Config, folder: Path) -> dict[str, Any]:
    """Print the run's first line; returns versions, git commit and devices."""
    devices.start()
    about = workdir.provenance()
    versions = " ".join(f"{name} {version}" for name, version in about["versions"].items())
    size = settings.train.batch_size
    batch = f"batch {size}, {devices.rows_for(size) // jax.device_count()} a device"
    console.log(f"{versions} | {about['device']} | {batch} | seed {settings.train.seed} | workdir {folder}")
    return about


def prepare(settings: Config, folder: Path, timeout_seconds: int = 300) -> tuple[TrainingData, Model, Method]:
    """Read the data, build model and method, and record them in the workdir; an older record must agree with them.

    All processes must agree on them within `timeout_seconds`. Raises InputError.
    """
    about = introduce(settings, folder)
    method = config.build_method(settings)
    resuming, name = workdir.has_checkpoint(folder), settings.data.tokenizer
    if resuming:
        changed = config.differences(config.from_json(folder / workdir.CONFIG), settings)
        if changed:
            raise InputError(
                f"{folder}: trained with another configuration: {'; '.join(changed)}; choose another --workdir"
            )
        data = read(settings, tokenizer.load(name, folder / tokenizer.FILES[name]))
        for split, digest in workdir.read_record(folder)["data"].items():
            if data.digests.get(split) != digest:
                raise InputError(
                    f"{folder}: trained on another {split} file than {settings.data.path} holds now; choose another "
                    "--workdir, or put the file back"
                )
    else:
        data = read(settings)
    facts = {"configuration": config.to_json(settings), "workdir": "with checkpoints" if resuming else "new"}
    facts |= {f"{split} data": digest for split, digest in data.digests.items()}
    processes.assert_same(facts, timeout_seconds)
    if not resuming:
        record = {**about, "command": sys.argv, "data": data.digests, "steps_per_epoch": len(data.train)}
        storage.write_json(folder / workdir.RUN, record)  # first, since it marks the folder as a run's
        if processes.is_main_process():
            data.words.save(folder / tokenizer.FILES[name])
    storage.write_text(folder / workdir.CONFIG, config.to_json(settings))  # some fields may change when a run resumes
    processes.barrier("the workdir is written")
    if not (folder / workdir.CONFIG).exists():
        raise InputError(f"{folder}: not on storage that all hosts see; give a --workdir that is")
    return data, config.build_model(settings, method, len(data.words)), method


def describe(settings: Config, data: TrainingData) -> None:
    """Print what a run would take: parameters, buckets, memory of the longest step, time. Writes nothing."""
    console.log(config.to_json(settings))
    method, train = config.build_method(settings), data.train
    model = config.build_model(settings, method, len(data.words))
    state = abstract_state(settings, model, method, len(train))
    console.console.print(_parameters(state.params))
    batches = train.partition(1)
    table = Table("tokens", "batches", "padding", title="buckets")
    for edge in train.edges:
        bucket = [rows for rows, length in zip(batches.rows, batches.lengths, strict=True) if length == edge]
        tokens = sum(int(train.split.lengths[rows].sum()) for rows in bucket)
        table.add_row(str(edge), f"{len(bucket):,}", f"{1 - tokens / (len(bucket) * train.batch_size * edge):.1%}")
    console.console.print(table)
    longest = train.batch(batches, int(np.argmax(batches.lengths)))
    step: Any = make_steps(model, method, optimizer.build(settings, len(train)), len(train)).joint
    memory = step.lower(state, devices.shard(longest)).compile().memory_analysis()
    held = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes) / MIB
    working = memory.temp_size_in_bytes / MIB
    console.log(
        f"memory of a device in a step of {train.edges[-1]} tokens: {held:,.0f} MiB state and batch, "
        f"{working:,.0f} MiB while it runs, {held + working:,.0f} MiB in all"
    )
    took = console.duration(seconds_an_epoch(settings, data))
    console.log(f"time: about {took} an epoch of {len(train):,} steps here, without validation and compilation")


def seconds_an_epoch(settings: Config, data: TrainingData) -> float:
    """An estimate from a few timed steps of the commonest padded length, in proportion to the tokens of the others."""
    method = config.build_method(settings)
    batches, model = data.train.partition(1), config.build_model(settings, method, len(data.words))
    state: Any = devices.replicate(create_state(settings, model, method, len(data.train)))
    steps = make_steps(model, method, optimizer.build(settings, len(data.train)), len(data.train))
    lengths = np.asarray(batches.lengths)
    commonest = int(np.bincount(lengths).argmax())
    batch = devices.shard(data.train.batch(batches, int(np.flatnonzero(lengths == commonest)[0])))
    started = 0.0
    for i in range(TIMED + 1):
        if i == 1:
            jax.block_until_ready(state.params)
            started = time.monotonic()  # the first one compiled
        state, _ = method.plan.step(steps, state, batch, lambda _: batch)
    jax.block_until_ready(state.params)
    return (time.monotonic() - started) / TIMED * float(lengths.sum()) / commonest


def _parameters(params: Any) -> Table:
    table = Table("parameter", "shape", "numbers", "MiB", title="parameters, float32")
    leaves = leaves_by_path(params)
    for name, x in leaves.items():
        table.add_row(name, " x ".join(map(str, x.shape)), f"{x.size:,}", f"{4 * x.size / MIB:.2f}")
    total = sum(x.size for x in leaves.values())
    table.add_row("all", "", f"{total:,}", f"{4 * total / MIB:.2f}")
    return table
