"""What training reads: the text of a configuration as batches."""

from typing import NamedTuple

from scalevae_jax import parallel, report
from scalevae_jax.config import Config
from scalevae_jax.data import corpus, loader, vocab


class Feed(NamedTuple):
    """What training reads: the words and batches of the two splits."""

    words: vocab.Vocabulary
    train: loader.Loader
    valid: loader.Loader
    digests: dict[str, str]


def read(settings: Config, words: vocab.Vocabulary | None = None) -> Feed:
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
        whole = parallel.rows_for(size, parts)
        here = parallel.rows_here(whole)
        loaders[split] = loader.Loader(rows, edges, size, whole, seed, data.partition, here)
    train, valid = loaders["train"], loaders["valid"]
    counts = " ".join(
        f"{split} {len(loaders[split].split) if split in loaders else found['sentences']:,}"
        for split, found in about.items()
    )
    unknown = f"{train.split.unknown:.1%} unknown (valid {valid.split.unknown:.1%})"
    report.say(f"data: {text.source.place}: {counts} sentences, {len(words):,} words, {unknown}")
    for remark in corpus.remarks(text, {split: of.split for split, of in loaders.items()}):
        report.warn(f"data: {remark}")
    padding = loader.padding_share(train.split.lengths, train.edges)
    report.say(
        f"buckets: {' '.join(map(str, train.edges))} tokens, {padding:.1%} padding, {len(train):,} batches an epoch, "
        "one compilation a bucket"
    )
    return Feed(words, train, valid, {split: found["sha256"] for split, found in about.items()})
