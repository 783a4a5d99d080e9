"""Corpora prepared once, as TensorFlow Datasets in array_record files, without TensorFlow.

A record holds a block of sentences, since reading a record takes a third of a millisecond whatever it holds. Blocks
and sentences keep the order of the file. The metadata of the data set says what was found in each split.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import pathlib
from array import array
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from scalevae_jax.core.types import InputError
from scalevae_jax.data import files, synthetic
from scalevae_jax.data.files import SPLITS, Source
from scalevae_jax.data.lines import Line, repaired
from scalevae_jax.runtime import storage

# The digest of a split runs over its blocks, so other sizes would make other digests of the same text.
SENTENCES, CHARACTERS = 1024, 2**20  # of a block at most; a longer sentence is a block of its own
MANY = 1000  # labels that are no numbers; more are no classes
UNWRITTEN = "Failed to finalize writing"  # what TFDS says where array_record could not write


@dataclasses.dataclass
class SourceConfig(tfds.core.BuilderConfig):
    """Named by the digest of the source, so that other text is never taken for this one."""

    source: Source = dataclasses.field(kw_only=True)


class Text(tfds.core.GeneratorBasedBuilder):
    """The splits of a source as blocks of sentences."""

    # Raised when the same files would be read otherwise than before, or the synthetic sentences drawn otherwise, so
    # that a corpus prepared by older code is never used.
    VERSION = tfds.core.Version("2.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        # `text` is sentences separated by newlines; of `labels` there are none, or as many as sentences.
        features = {"text": tfds.features.Text(), "labels": tfds.features.Tensor(shape=(None,), dtype=np.int64)}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Blocks of sentences.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        self._train_hashes: np.ndarray | None = None
        self._labels: type | None = None  # of the first split's labels: int, str, or NoneType
        self._names: dict[str, int] = {}  # of labels that are no numbers; the number of each, as they come
        source: Source = self.builder_config.source  # type: ignore[union-attr]  # a SourceConfig
        splits = list(source.files or SPLITS)
        return {split: self._generate_examples(source, split, split == splits[-1]) for split in splits}

    def _generate_examples(self, source: Source, split: str, last: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        repairs: Counter[str] = Counter()
        digest, hashes, kind = hashlib.sha256(), array("q"), type(None)
        lines = source.lines(split, repairs) if source.files else synthetic.lines(split)
        for key, block in enumerate(blocks(lines)):
            sentences = [sentence for _, sentence in block]
            labels = np.array([self._number(label) for label, _ in block if label is not None], np.int64)
            text, kind = "\n".join(sentences), type(block[0][0])
            if len(self._names) > MANY:
                raise InputError(
                    f"{source.files[split]}: more than {MANY:,} different labels; expected classes, as integers or "
                    "words (text before a tab is a label)"
                )
            digest.update(text.encode() + b"\n" + labels.tobytes())
            hashes.extend(map(hash, sentences))
            yield key, {"text": text, "labels": labels}
        if not hashes:
            raise InputError(_no_sentence(source, split))
        if self._labels not in (None, kind):
            of_a_kind = "" if type(None) in (self._labels, kind) else ", all integers or all words"
            raise InputError(f"{source.files[split]}: expected labels in every split or in none{of_a_kind}")
        self._labels = kind
        distinct = len(np.unique(np.frombuffer(hashes, np.int64)))
        labelled = kind is not type(None)
        found = {"sentences": len(hashes), "distinct": distinct, "labelled": labelled, "sha256": digest.hexdigest()}
        # Sentences of train that come again in another split are counted, since a user should know of them.
        if split == "train":
            self._train_hashes = np.frombuffer(hashes, np.int64)
        elif self._train_hashes is not None:
            found["in_train"] = int(np.isin(np.frombuffer(hashes, np.int64), self._train_hashes).sum())
        self.info.metadata[split] = {**repairs, **found}  # type: ignore[index]  # a MetadataDict, by `_info`
        self.info.metadata["names"] = list(self._names)  # type: ignore[index]
        if last and _name(source) != self.builder_config_name:
            raise InputError(f"{source.place}: changed while it was read; run the command again")

    def _number(self, label: int | str) -> int:
        return label if isinstance(label, int) else self._names.setdefault(label, len(self._names))


def blocks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Runs of sentences, of bounded size."""
    block, characters = [], 0
    for line in lines:
        if len(block) == SENTENCES or (block and characters + len(line[1]) > CHARACTERS):
            yield block
            block, characters = [], 0
        block.append(line)
        characters += len(line[1])
    if block:
        yield block


def _no_sentence(source: Source, split: str) -> str:
    path, repairs = source.files[split], Counter()
    sentences = Counter(text for _, text in files.read_lines(path, repairs, *source.columns))
    if not sentences:
        held = "".join(f"; {line}" for line in repaired(repairs))
        return f"{path}: the file has no sentence{held}; expected one sentence a line"
    problem = f"too few to split {source.split} ({split} has none): {len(sentences):,} different sentences"
    if sentences.total() == 1:
        problem = "one line only, which is one sentence"
    elif len(sentences) == 1:
        problem = f"all {sentences.total():,} lines are equal, and equal sentences share a split"
    names = ", ".join(f"{name}.txt" for name in SPLITS)
    return f"{path}: {problem}; expected about a hundred sentences, one a line, or a folder with {names}"


def cache_folder(given: str) -> pathlib.Path:
    """The folder of prepared corpora. Raises InputError where a user without a home gives none."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not given and home.startswith("~"):
        raise InputError(
            "no home folder for prepared corpora (HOME is not set); give a folder with --config.data.cache=DIR"
        )
    if "://" in given:
        raise InputError(f"config.data.cache={given}: expected a folder of this machine")
    return pathlib.Path(storage.path(given or f"{home}/scalevae_jax"))


def _name(source: Source) -> str:
    return source.digest()[:16]


def prepare(source: Source, cache: pathlib.Path) -> tfds.core.DatasetBuilder:
    """The prepared data set of the source, made where the cache has none: whole, or not at all.

    Two processes may prepare the same source at once: the first one done is kept. Raises InputError.
    """
    config = SourceConfig(name=_name(source), source=source)

    def open_builder() -> Text:
        return Text(config=config, data_dir=cache, file_format="array_record")

    with _quiet():
        try:
            builder = open_builder()
            if builder.data_path.exists():
                return builder
            builder.download_and_prepare()
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and UNWRITTEN not in str(error):
                raise
            # Another process that was done first also makes this fail: its data set is taken.
            if not open_builder().data_path.exists():
                raise InputError(
                    f"{cache}: the corpus cannot be prepared there: {error}; nothing incomplete is left behind; free "
                    "space or give another folder with --config.data.cache=DIR"
                ) from error
        return open_builder()


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep TFDS from printing, logging and drawing progress bars."""
    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
