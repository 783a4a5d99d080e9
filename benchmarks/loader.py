"""What the loader costs: a batch of ours and of PyTorch's DataLoader beside a small model's step, in one run.

Example:
  python -m benchmarks.loader --rounds 5

The captions that come with the package, batch 32, buckets of the data's own choice; the small model has vocabulary
10,000, embedding 128, hidden 256, latent 32. `batch_ms` is the time of an epoch of batches that nobody waits for;
training makes them in a thread beside the device. `fed_vs_held` is a step that is fed by the loader over one whose
batches lie ready. The last line is JSON.
"""

import functools
import itertools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable

import torch
from torch.utils.data import DataLoader

from benchmarks import ours as package
from benchmarks import timing
from scalevae_jax.config import Config, Data, MethodConfig, Network
from scalevae_jax.core.types import Batch
from scalevae_jax.data.loader import Loader
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import prepare

STEPS = 40


def theirs(data: Loader) -> Callable[[], object]:
    """A DataLoader over batches of the same rows, padded in its collate function."""
    sentences = [torch.from_numpy(data.split[row]) for row in range(len(data.split))]

    def collate(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    batches = DataLoader(sentences, batch_sampler=data.partition(1).rows, collate_fn=collate)  # type: ignore[arg-type]
    return lambda: sum(1 for _ in batches)


def stepping(
    settings: Config, words: int, data: Loader, batches: Callable[[], Iterable[Batch]]
) -> Callable[[], object]:
    """Some training steps over what `batches` gives."""
    take = package.trainer(settings, words, len(data))
    return lambda: [take(batch) for batch in itertools.islice(batches(), STEPS)]


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.loader", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=5, help="turns of each")
    return arguments


def _command(options: Namespace) -> None:
    settings = Config(
        data=Data(path="package:snli", vocab_size=10_000),
        model=Network(embedding=128, hidden=256, latent=32),
        method=MethodConfig(name="vae"),
    )
    corpus = prepare.read(settings)
    data = corpus.train
    ready = list(itertools.islice(data.epoch(1), STEPS))
    contestants = {
        "loader": lambda: sum(1 for _ in data.epoch(1)),
        "torch": theirs(data),
        "held": stepping(settings, len(corpus.words), data, lambda: ready),
        "fed": stepping(settings, len(corpus.words), data, lambda: data.epoch(1)),
        "matmul": timing.matmul(),
    }
    seconds = timing.turns(options.rounds, contestants)
    batch, step = seconds["loader"] / len(data), seconds["held"] / STEPS
    figures = {
        "batch_ms": 1e3 * batch,
        "batch_ms_torch": 1e3 * seconds["torch"] / len(data),
        "ratio_vs_torch": seconds["torch"] / seconds["loader"],
        "step_ms": 1e3 * step,
        "share_of_step": batch / step,
        "fed_vs_held": seconds["fed"] / seconds["held"],
        "matmul_gflops": timing.rate(seconds["matmul"]) / 1e9,
    }
    timing.line("small", figures)
    timing.finish({"small": figures}, "small")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
