"""Importance-weighted NLL against PyTorch's usual way (one sentence at a time, 100 draws at once), and against the
machine's matmul rate, in one run.

Example:
  python -m benchmarks.iw_nll

The full size is the paper's: vocabulary 20,000, embedding 512, hidden 1,024, latent 32; 40 and 80 words. So many draws
are timed as --draws says, and seconds are given for 500, to which the cost is proportional. The small size is hidden
50, vocabulary 1,000, 10 words, all 500 draws. The contestants take turns; medians. `share_of_matmul` counts the
recurrent and the vocabulary product of each draw and token alone. The last line is JSON. On a GPU (--draws 500 there)
both multiply in tf32, and no memory is measured.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import torch

from benchmarks import peer, timing
from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Batch, Gaussian, Posteriors
from scalevae_jax.inference import metrics
from scalevae_jax.inference.importance import draws_at_once
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer

SAMPLES = 500


class Size(NamedTuple):
    """Of a case."""

    vocabulary: int
    embedding: int
    hidden: int
    latent: int
    words: int
    rows: int  # sentences of our batch
    torch_rows: int  # sentences that PyTorch is timed on

    @property
    def operations(self) -> float:
        """Multiplications and additions of one draw of one sentence, recurrence and vocabulary."""
        return (self.words + 1) * (8 * self.hidden**2 + 2 * self.hidden * self.vocabulary)


FULL = {words: Size(20_000, 512, 1024, 32, words, 32, 1) for words in (40, 80)}
SMALL = Size(1000, 50, 50, 2, 10, 32, 40)


def ours(size: Size, draws: int, dtype: str = "float32") -> Callable[[], dict[str, jax.Array]]:
    """Every reading of a batch; compiled."""
    sizes = size[:4]
    model = Model(Encoder(*sizes), Decoder(*sizes, compute_dtype=dtype))
    rng, params = np.random.default_rng(0), parameters(size)
    tokens = sentences(size, size.rows)
    full = np.full(size.rows, tokens.shape[1], np.int32)
    batch = Batch(tokens, full, np.ones(size.rows, np.float32), np.arange(size.rows, dtype=np.int32))
    mean = np.float32(rng.normal(size=(size.rows, size.latent)))
    posteriors = Posteriors(Gaussian(mean, np.zeros_like(mean) - 1), np.ones(size.latent, np.float32))
    keys = jax.random.split(jax.random.key(0), size.rows)
    chunk = draws_at_once(128, size.rows, size.vocabulary, size.hidden)

    fitted = {"nll_fitted_prior": mixture.diagonal(gaussian.standard(size.latent))}

    def weigh(params, posteriors, batch, keys):
        return metrics.importance_weighted(model, params, posteriors, batch, keys, fitted, draws, chunk)

    arguments = jax.device_put((params, posteriors, batch, keys))
    compiled = jax.jit(weigh).lower(*arguments).compile()
    return lambda: compiled(*arguments)


def theirs(size: Size, draws: int, chunk: int = 100) -> Callable[[], object]:
    """PyTorch's way on its sentences."""
    decoder = peer.Decoder(*size[:4]).to(peer.device())
    decoder.load(parameters(size)["decoder"])
    tokens = torch.from_numpy(sentences(size, size.torch_rows)).long().to(peer.device())
    mean = torch.randn(size.latent, device=peer.device())
    logvar = torch.zeros_like(mean) - 1

    def all_of_them() -> list[torch.Tensor]:
        with torch.no_grad():
            return [peer.nll_iw(decoder, row[None], mean, logvar, draws, chunk) for row in tokens]

    return all_of_them


def parameters(size: Size) -> dict:
    """Of the package's layout, drawn anew, host arrays."""
    model = Model(Encoder(*size[:4]), Decoder(*size[:4]))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.uniform(-0.1, 0.1, x.shape).astype(np.float32), shapes)


def sentences(size: Size, rows: int) -> np.ndarray:
    """Of random words, all of the same length."""
    tokens = np.random.default_rng(2).integers(4, size.vocabulary, (rows, size.words + 2)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 1, 2
    return tokens


def case(size: Size, draws: int, torch_draws: int, rounds: int) -> dict[str, float]:
    """Seconds a sentence of 500 draws, ours and PyTorch's, their ratio, and our share of the matmul rate."""
    contestants = {
        "ours": ours(size, draws),
        "bfloat16": ours(size, draws, "bfloat16"),
        "torch": theirs(size, torch_draws),
        "matmul": timing.matmul(),
    }
    seconds = timing.turns(rounds, contestants)
    sentence = {name: seconds[name] / size.rows * SAMPLES / draws for name in ("ours", "bfloat16")}
    torch_sentence = seconds["torch"] / size.torch_rows * SAMPLES / torch_draws
    rate = timing.rate(seconds["matmul"])
    return {
        "seconds_a_sentence": sentence["ours"],
        "seconds_a_sentence_torch": torch_sentence,
        "seconds_a_sentence_bfloat16": sentence["bfloat16"],
        "ratio_vs_torch": torch_sentence / sentence["ours"],
        "share_of_matmul": size.operations * SAMPLES / sentence["ours"] / rate,
        "bfloat16_vs_float32": sentence["ours"] / sentence["bfloat16"],
        "matmul_gflops": rate / 1e9,
        "draws_timed": draws,
    }


def _memory(what: str) -> None:
    """The child process that measures one peak: who, words, draws, rows."""
    who, words, draws, rows = what.split(",")
    size = FULL[int(words)]._replace(rows=int(rows))
    work = ours(size, int(draws)) if who == "ours" else theirs(size, int(draws))
    print(timing.above_loaded(work))


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.iw_nll", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=5, help="turns of each")
    arguments.add_argument("--draws", type=integer(1), default=20, help="of ours at full size; PyTorch has 200")
    arguments.add_argument("--memory", help="measure one peak: who,words,draws,rows (used by the program itself)")
    return arguments


def _command(options: Namespace) -> None:
    peer.alike()
    if options.memory:
        return _memory(options.memory)
    cases = {}
    for words, size in FULL.items():
        cases[f"full, {words} words"] = case(size, options.draws, 200, options.rounds)
    cases["small, 10 words"] = case(SMALL, SAMPLES, SAMPLES, options.rounds)

    def peak(who: str, words: int, draws: int, rows: int) -> float:
        return timing.peak_mib("benchmarks.iw_nll", ["--memory", f"{who},{words},{draws},{rows}"])

    if jax.default_backend() == "cpu":
        for words in FULL:
            memory = {"peak_mib": peak("ours", words, 50, 32), "peak_mib_torch": peak("torch", words, 100, 1)}
            cases[f"full, {words} words"] |= memory
        cases["memory, 40 words"] = {
            "peak_mib_50_draws_8_rows": peak("ours", 40, 50, 8),
            "peak_mib_500_draws_8_rows": peak("ours", 40, 500, 8),
        }
    for name, figures in cases.items():
        timing.line(name, figures)
    timing.finish(cases, "full, 40 words")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
