"""A whole training step, ours against PyTorch's, with the machine's matmul rate, in one run.

Examples:
  python -m benchmarks.train_step
  python -m benchmarks.train_step --cases 40 --rounds 9

Batch 32. Full size: vocabulary 20,000, embedding 512, hidden 1,024, latent 32, sentences of 10 to 160 words. Small:
vocabulary 10,000, embedding 128, hidden 256, 12 words. Counted operations: 8 hidden (inputs + hidden) a token of an
LSTM, 2 hidden vocabulary a predicted token, the reverse pass twice that. The last line is JSON. On a CPU exit code 1
where PyTorch's full-size step of 40 words does not reach 0.80 of its own matmul rate: the comparison is then invalid.
On a GPU both multiply as --products says, PyTorch's bfloat16 (autocast) is timed too, and no memory is measured.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import torch

from benchmarks import ours as package
from benchmarks import peer, timing
from scalevae_jax.config import Config, Data, MethodConfig, Network
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer


class Size(NamedTuple):
    """Of a network and its sentences; a sentence is `<s>`, words, `</s>`."""

    vocabulary: int
    embedding: int
    hidden: int
    latent: int
    words: int
    rows: int = 32

    @property
    def operations(self) -> float:
        """Of the matrix products of a step: the encoder reads words + 2 tokens, the decoder predicts words + 1."""
        lstm = 8 * self.hidden * (self.embedding + self.hidden)
        decoder = lstm + 8 * self.hidden * self.latent + 2 * self.hidden * self.vocabulary
        return 3 * self.rows * (lstm * (self.words + 2) + decoder * (self.words + 1))


CASES = {
    **{f"full, {words} words": Size(20_000, 512, 1024, 32, words) for words in (10, 40, 80, 160)},
    "small, 12 words": Size(10_000, 128, 256, 32, 12),
}
HEADLINE = "full, 40 words"
VALID = 0.80  # of its own matmul rate that PyTorch's step of the headline case must reach


def ours(size: Size, method_name: str = "vae", dtype: str = "float32") -> Callable[[], object]:
    """The package's own joint step."""
    network = Network(embedding=size.embedding, hidden=size.hidden, latent=size.latent, compute_dtype=dtype)
    settings = Config(data=Data(path=""), model=network, method=MethodConfig(name=method_name))
    take, batch = package.trainer(settings, size.vocabulary), package.sentences(size.rows, size.words, size.vocabulary)
    return lambda: take(batch)


def theirs(size: Size, bfloat16: bool = False) -> Callable[[], object]:
    """The reference code's step."""
    torch.manual_seed(0)
    network = peer.Vae(*size[:4]).to(peer.device())
    batch = package.sentences(size.rows, size.words, size.vocabulary)
    tokens = torch.from_numpy(batch.tokens).long().to(peer.device())
    return lambda: network.step(tokens, bfloat16=bfloat16)


def torch_matmul() -> Callable[[], object]:
    """`timing.matmul` by PyTorch."""
    a = torch.randn(timing.side(), timing.side(), device=peer.device())
    return lambda: a @ a


def case(size: Size, methods: Sequence[str], rounds: int) -> dict[str, float]:
    """Seconds a step of each, ratios, and shares of the matmul rates."""
    contestants = {
        "ours": ours(size),
        "torch": theirs(size),
        "bfloat16": ours(size, dtype="bfloat16"),
        **{name: ours(size, name) for name in methods},
        "matmul": timing.matmul(),
        "matmul_torch": torch_matmul(),
    }
    if not _on_cpu():
        contestants |= {"torch_bfloat16": theirs(size, bfloat16=True), "matmul_bfloat16": timing.matmul("bfloat16")}
    seconds = timing.turns(rounds, contestants)
    rate, rate_torch = timing.rate(seconds["matmul"]), timing.rate(seconds["matmul_torch"])
    figures = {
        "seconds": seconds["ours"],
        "seconds_torch": seconds["torch"],
        "ratio_vs_torch": seconds["torch"] / seconds["ours"],
        "share_of_matmul": size.operations / seconds["ours"] / rate,
        "share_of_matmul_torch": size.operations / seconds["torch"] / rate_torch,
        "bfloat16_vs_float32": seconds["ours"] / seconds["bfloat16"],
        "bfloat16_vs_torch": seconds["torch"] / seconds["bfloat16"],
        **{f"{name}_vs_vae": seconds[name] / seconds["ours"] for name in methods},
        "matmul_gflops": rate / 1e9,
        "matmul_gflops_torch": rate_torch / 1e9,
    }
    if not _on_cpu():
        rate = timing.rate(seconds["matmul_bfloat16"])
        figures |= {
            "bfloat16_vs_torch_bfloat16": seconds["torch_bfloat16"] / seconds["bfloat16"],
            "share_of_matmul_bfloat16": size.operations / seconds["bfloat16"] / rate,
            "matmul_gflops_bfloat16": rate / 1e9,
        }
    return figures


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _memory(what: str) -> None:
    """The child process that measures one peak; our compiled step comes from the cache."""
    who, name = what.split(",", 1)
    work = ours(CASES[name]) if who == "ours" else theirs(CASES[name])
    print(timing.above_loaded(work, times=5))


def _chosen(parts: Sequence[str]) -> Iterator[str]:
    return (name for name in CASES if not parts or any(part in name for part in parts))


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.train_step", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=5, help="turns of each")
    arguments.add_argument(
        "--cases", type=command.names, default=[], help="only the cases whose names hold one of these"
    )
    arguments.add_argument("--methods", type=command.names, default="scale_vae,bn_vae", help="compared with the VAE")
    arguments.add_argument("--products", choices=peer.PRODUCTS, default="tf32", help="of float32 on a GPU")
    arguments.add_argument("--memory", help="measure one peak: who,case (used by the program itself)")
    return arguments


def _command(options: Namespace) -> None:
    peer.alike(options.products)
    if options.memory:
        return _memory(options.memory)
    cases = {}
    for name in _chosen(options.cases):
        figures = case(CASES[name], options.methods, options.rounds)
        if _on_cpu():
            for who, key in (("ours", "peak_mib"), ("torch", "peak_mib_torch")):
                figures[key] = timing.peak_mib("benchmarks.train_step", ["--memory", f"{who},{name}"])
            figures["peak_vs_torch"] = figures["peak_mib"] / figures["peak_mib_torch"]
        timing.line(name, figures)
        cases[name] = figures
    headline = cases.get(HEADLINE, {})
    timing.finish(cases, HEADLINE)
    if _on_cpu() and headline and headline["share_of_matmul_torch"] < VALID:
        console.warn(
            f"PyTorch reaches {headline['share_of_matmul_torch']:.2f} of its own matmul rate: not a valid peer"
        )
        sys.exit(1)


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
