"""Real text of ragged lengths at full size: true tokens a second, ours in buckets against PyTorch in batches of equal
length, in one run.

Examples:
  python -m benchmarks.epoch_text
  python -m benchmarks.epoch_text --data DIR --batches 24 --rounds 5

Vocabulary at most 20,000, embedding 512, hidden 1,024, latent 32, batch 32. Ours pads to 8 lengths (`data.buckets`);
the reference code makes batches of sentences of one length, which pad nothing and are often small. Of each a sample of
an epoch's batches is timed, evenly spread over its batches in order of length; padding is no token. Without --data, the
captions that come with the package. The last line is JSON.
"""

import functools
import runpy
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import ours as package
from benchmarks import peer, timing
from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.data import loader
from scalevae_jax.data.loader import Loader
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import prepare


def sample(batches: Sequence[Any], count: int) -> list[Any]:
    """So many of them, evenly spread."""
    return [batches[at] for at in np.linspace(0, len(batches) - 1, min(count, len(batches))).round().astype(int)]


def ours(settings: Config, words: int, data: Loader, batches: int) -> tuple[Callable[[], object], int]:
    """The package's step over a sample of its batches; true tokens of it."""
    take = package.trainer(settings, words, len(data))
    chosen = sample(sorted(data.epoch(1), key=lambda batch: batch.tokens.shape[1]), batches)

    def epoch() -> object:
        return jax.block_until_ready([take(batch) for batch in chosen])

    return epoch, sum(int(np.sum(batch.weight * (batch.lengths - 1))) for batch in chosen)


def equal_lengths(data: Loader) -> Loader:
    """The same sentences in batches that pad nothing."""
    return Loader(data.split, loader.bucket_lengths(data.split.lengths, 0), data.batch_size, data.size, 0)


def theirs(settings: Config, words: int, data: Loader, batches: int) -> tuple[Callable[[], object], int]:
    """The reference code's step over a sample of its batches, of sentences of one length each; true tokens of it."""
    torch.manual_seed(0)
    sizes = settings.model
    network = peer.Vae(words, sizes.embedding, sizes.hidden, sizes.latent).to(peer.device())
    ordered = sorted(equal_lengths(data).epoch(1), key=lambda batch: batch.tokens.shape[1])
    chosen = [
        torch.from_numpy(batch.tokens[batch.weight > 0]).long().to(peer.device()) for batch in sample(ordered, batches)
    ]

    def epoch() -> None:
        for tokens in chosen:
            network.step(tokens)

    return epoch, sum(tokens.shape[0] * (tokens.shape[1] - 1) for tokens in chosen)


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.epoch_text", __doc__)
    arguments.add_argument("--data", default="package:snli", help="the corpus, as config.data.path")
    arguments.add_argument("--batches", type=integer(1), default=10, help="batches of the sample")
    arguments.add_argument("--rounds", type=integer(1), default=3, help="turns of each")
    return arguments


def _command(options: Namespace) -> None:
    peer.alike()
    path = Path(__file__).parents[1] / "configs/yahoo.py"
    settings = runpy.run_path(str(path))["get_config"]()
    settings.data.path = options.data
    settings.method = config.MethodConfig(name="vae")
    corpus = prepare.read(settings)
    contestants, tokens = {"matmul": timing.matmul()}, {}
    for name, make in (("ours", ours), ("torch", theirs)):
        contestants[name], tokens[name] = make(settings, len(corpus.words), corpus.train, options.batches)
    seconds = timing.turns(options.rounds, contestants)
    speed = {name: tokens[name] / seconds[name] for name in tokens}
    figures = {
        "tokens_per_second": speed["ours"],
        "tokens_per_second_torch": speed["torch"],
        "ratio_vs_torch": speed["ours"] / speed["torch"],
        "padding": loader.padding_share(corpus.train.split.lengths, corpus.train.edges),
        "rows_a_batch_torch": len(corpus.train.split) / len(equal_lengths(corpus.train)),
        "matmul_gflops": timing.rate(seconds["matmul"]) / 1e9,
    }
    name = f"{Path(options.data).name}, {options.batches} batches"
    timing.line(name, figures)
    timing.finish({name: figures}, name)


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
