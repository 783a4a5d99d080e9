"""Corpora as TensorFlow Datasets in array_record files, without TensorFlow.

A record holds a block of sentences, not one: reading a record takes a third of a millisecond, whatever is in it. Blocks
and sentences stand in the order of the file. What was found in a split is in the data set's metadata.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import urllib.request
from array import array
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from scalevae_jax.core.types import InputError
from scalevae_jax.data import synthetic, tokens
from scalevae_jax.data.files import Line, read_lines
from scalevae_jax.data.source import SPLITS, Source, in_folder
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path

SENTENCES, CHARACTERS = 1024, 2**20  # of a block at most (a longer sentence is a block of its own)
SHARES = (0.9, 0.95)  # of a single file: up to here train, up to here valid
UNWRITTEN = "Failed to finalize writing"  # what TFDS says where array_record could not write
PATIENCE = 10.0  # seconds that the download's host has to answer


@dataclasses.dataclass
class SourceConfig(tfds.core.BuilderConfig):
    """Named by the source's digest, so that other text is never taken for this one."""

    source: Source | None = None


class About(NamedTuple):
    """What a builder says of its corpus."""

    description: str
    citation: str = ""
    homepage: str = ""
    license: str = ""
    archive: str = ""  # its id on Google Drive


class Text(tfds.core.GeneratorBasedBuilder):
    """Local text."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT: ClassVar = About("Sentences of local files, one a line.")

    def _info(self) -> tfds.core.DatasetInfo:
        about = self.ABOUT
        return tfds.core.DatasetInfo(
            builder=self,
            description=about.description,
            citation=about.citation,
            homepage=about.homepage,
            license=about.license,
            features=tfds.features.FeaturesDict(self.features()),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def features(self) -> dict[str, Any]:
        """Sentences separated by newlines, and their labels: none, or as many as sentences."""
        return {"text": tfds.features.Text(), "labels": tfds.features.Tensor(shape=(None,), dtype=np.int64)}

    @property
    def source(self) -> Source:
        """What is read; without one, the download."""
        config = self.builder_config
        given = config.source if isinstance(config, SourceConfig) else None
        return given or Source(self.name, pathlib.Path("data") / self.name, {})

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        source = self.source
        if not source.files:
            source = source._replace(files=self.download(dl_manager, source.place))
        self._train: array[int] = array("q")
        self._labelled: bool | None = None
        return {split: self._generate_examples(split, source) for split in source.files}

    def download(self, dl_manager: tfds.download.DownloadManager, place: Path) -> dict[str, Path]:
        """The splits of the original archive (TFDS keeps its checksum beside it). UNTESTED: it could not be tried.

        Raises InputError with the place to put the files by hand.
        """
        url = f"https://drive.google.com/uc?export=download&id={self.ABOUT.archive}"
        by_hand = (
            f"get {url} in a browser and put its {', '.join(f'{self.name}.{split}.txt' for split in SPLITS)} "
            f"into {place.absolute()}, or give their folder with --config.data.path=DIR"
        )
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                pass  # TFDS itself would try for minutes
            resource = tfds.download.Resource(url=url, extract_method=tfds.download.ExtractMethod.TAR)
            folder = pathlib.Path(dl_manager.download_and_extract(resource))
        except Exception as error:  # of the network, the archive, TFDS
            raise InputError(f"{self.name}: the download failed ({' '.join(str(error).split())}): {by_hand}") from error
        inside = next((path.parent for path in sorted(folder.rglob("*train.txt"))), folder)
        files = {split: in_folder(inside, split) for split in SPLITS}
        if None in files.values():
            raise InputError(f"{self.name}: the archive holds no train, valid and test .txt: {by_hand}")
        return {split: path for split, path in files.items() if path}

    def records(self, split: str, source: Source, found: Counter[str]) -> Iterator[Line]:
        """Label and sentence of every line of the split; of a single file, each repair counts in one split only."""
        since: Counter[str] = Counter()
        for label, text in read_lines(source.files[split], since, source.field):
            if source.seed is None or part(text, source.seed) == split:
                found.update(since)
                yield label, tokens.tokenize(text) if source.raw else text
            since.clear()
        if source.seed is None or split == SPLITS[0]:
            found.update(since)

    def _generate_examples(self, split: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        found: Counter[str] = Counter()
        digest, labelled, seen = hashlib.sha256(), False, np.sort(np.frombuffer(self._train, np.int64))
        for key, block in enumerate(blocks(self.records(split, source, found))):
            texts, labels = zip(*((text, label) for label, text in block), strict=True)
            labelled = labels[0] is not None
            text, numbers = "\n".join(texts), np.array(labels if labelled else (), np.int64)
            digest.update(text.encode() + b"\n" + numbers.tobytes())
            hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
            if split == "train":
                self._train.frombytes(hashes.tobytes())
            elif len(seen):
                found["in_train"] += int(np.sum(seen[np.searchsorted(seen, hashes) % len(seen)] == hashes))
            found["sentences"] += len(texts)
            yield key, {"text": text, "labels": numbers}
        where = source.files.get(split, source.place)
        if not found["sentences"]:
            raise InputError(_empty(split, source))
        if self._labelled is not None and labelled != self._labelled:
            raise InputError(f"{where}: labels must stand in every split or in none")
        self._labelled = labelled
        self.info.metadata[split] = {  # type: ignore[index]  # of `_info`, so not None
            **found,
            "labelled": labelled,
            "sha256": digest.hexdigest(),
        }
        last = split == list(source.files)[-1]
        if last and self.source.files and source.digest()[:16] != self.builder_config_name:
            raise InputError(f"{source.place}: changed while it was read; give the command again")


class Yahoo(Text):
    """Yahoo answers."""

    ABOUT: ClassVar = About(
        "Questions and answers of Yahoo! Answers, 20 to 200 words, 100,000 / 10,000 / 10,000 documents.",
        "Yang, Hu, Salakhutdinov, Berg-Kirkpatrick: Improved Variational Autoencoders for Text Modeling using Dilated "
        "Convolutions. ICML 2017.",
        "https://github.com/jxhe/vae-lagging-encoder",
        "Yahoo! Webscope: research use",
        "13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i",
    )


class Yelp(Text):
    """Yelp reviews."""

    ABOUT: ClassVar = Yahoo.ABOUT._replace(
        description="Yelp reviews of 2015, 20 to 200 words, labelled with their stars; 100,000 / 10,000 / 10,000.",
        license="Yelp dataset terms: academic, non-commercial use",
        archive="1FT49oLNV8syhmGXEgiK6XTjEfMNqqEJJ",
    )


class YelpSentiment(Text):
    """Short Yelp sentences."""

    ABOUT: ClassVar = About(
        "Sentences of at most 15 words from Yelp reviews, labelled 0 (negative) or 1 (positive).",
        "Shen, Lei, Barzilay, Jaakkola: Style Transfer from Non-Parallel Text by Cross-Alignment. NeurIPS 2017.",
        "https://github.com/shentianxiao/language-style-transfer",
        "Yelp dataset terms: academic, non-commercial use",
        "18h8UYr801qr-USCYRzZySi_DSbUkHW71",
    )


class Synthetic(Text):
    """The synthetic sentences of section 4.4; labels are components, and `z` is kept."""

    ABOUT: ClassVar = About(
        "Ten words a sentence from a random LSTM given z, a draw from four Gaussians; made by the package, seed 0.",
        "He, Spokoyny, Neubig, Berg-Kirkpatrick: Lagging Inference Networks and Posterior Collapse in VAEs. ICLR 2019.",
    )

    def features(self) -> dict[str, Any]:
        """With the z that each sentence was drawn from."""
        return super().features() | {"z": tfds.features.Tensor(shape=(None, synthetic.LATENT), dtype=np.float32)}

    def download(self, dl_manager: tfds.download.DownloadManager, place: Path) -> dict[str, Path]:
        """Nothing: the splits have no files."""
        return dict.fromkeys(SPLITS, place)

    def records(self, split: str, source: Source, found: Counter[str]) -> Iterator[Line]:
        """Components and sentences."""
        drawn = synthetic.splits()[split]
        for component, row in zip(drawn.component, drawn.tokens, strict=True):
            yield int(component), " ".join(synthetic.words(row))

    def _generate_examples(self, split: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        z = synthetic.splits()[split].z
        for key, block in super()._generate_examples(split, source):
            rows, z = np.split(z, [len(block["labels"])])
            yield key, block | {"z": rows}


BUILDERS = {"text": Text, "yahoo": Yahoo, "yelp": Yelp, "yelp_sentiment": YelpSentiment, "synthetic": Synthetic}


def part(text: str, seed: int) -> str:
    """The split of a sentence of a single file: a hash decides, so equal sentences go together."""
    of = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return SPLITS[sum(int.from_bytes(of) >= share * 2**64 for share in SHARES)]


def blocks(records: Iterator[Line]) -> Iterator[list[Line]]:
    """Runs of sentences, of bounded size."""
    block, characters = [], 0
    for record in records:
        if len(block) == SENTENCES or (block and characters + len(record[1]) > CHARACTERS):
            yield block
            block, characters = [], 0
        block.append(record)
        characters += len(record[1])
    if block:
        yield block


def _empty(split: str, source: Source) -> str:
    path = source.files[split]
    if source.seed is None:
        return f"{path}: the file has no sentence; one a line is wanted"
    return (
        f"{path}: too few sentences to split 90/5/5 ({split} has none); about a hundred are wanted, or a folder with "
        f"{', '.join(f'{name}.txt' for name in SPLITS)}"
    )


def cache_folder(given: str) -> pathlib.Path:
    """Where prepared corpora are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(storage.path(given or f"{home}/scalevae_jax"))


def prepare(source: Source, cache: pathlib.Path) -> tfds.core.DatasetBuilder:
    """The prepared data set, made where the cache has none of this digest: whole, or not at all.

    Two that prepare the same at once both work, and the first to be done is kept. Raises InputError.
    """

    def open_() -> tfds.core.DatasetBuilder:
        config = SourceConfig(name=source.digest()[:16], source=source)
        return BUILDERS[source.name](config=config, data_dir=cache, file_format="array_record")

    with _quiet():
        try:
            builder = open_()
            if builder.data_path.exists():
                return builder
            builder.download_and_prepare()
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and UNWRITTEN not in str(error):
                raise
            if not open_().data_path.exists():
                raise InputError(
                    f"{cache}: the corpus can not be prepared there: {error}; nothing half-made is left behind; free "
                    "space or give another folder with --config.data.cache=DIR"
                ) from error
        return open_()


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without what TFDS prints, logs and draws."""
    tfds.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
