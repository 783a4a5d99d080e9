"""The loss over the vocabulary, value and both gradients: ours, all logits at once by optax, PyTorch's, in one run.

Example:
  python -m benchmarks.cross_entropy

Full size: 32 sentences of 41 predicted tokens, hidden 1,024, vocabulary 20,000. The share of the matmul rate counts the
three products. The last line is JSON.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Callable

import jax
import numpy as np
import optax
import torch

from benchmarks import peer, timing
from scalevae_jax.core import cross_entropy
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer

CASES = {
    "full, 40 tokens": (32 * 41, 1024, 20_000),
    "full, 80 tokens": (32 * 81, 1024, 20_000),
    "small, 12 tokens": (32 * 13, 256, 10_000),
}


def case(tokens: int, hidden: int, vocabulary: int, rounds: int) -> dict[str, float]:
    """Seconds of each, ratios, and our share of the matmul rate."""
    rng = np.random.default_rng(0)
    features = np.float32(rng.normal(size=(tokens, hidden)))
    kernel = np.float32(rng.uniform(-0.03, 0.03, (hidden, vocabulary)))
    targets = rng.integers(0, vocabulary, tokens).astype(np.int32)
    weight = np.ones(tokens, np.float32)
    on_device = jax.device_put((features, kernel, targets, weight))

    def chunked(dtype: str | None) -> Callable[[], object]:
        def loss(features, kernel, targets, weight):
            return cross_entropy.weighted_nll(features, kernel, targets, weight, dtype)[0]

        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        return lambda: gradient(*on_device)

    def whole(features, kernel, targets, weight):
        return (weight * optax.softmax_cross_entropy_with_integer_labels(features @ kernel, targets)).sum()

    by_optax = jax.jit(jax.value_and_grad(whole, argnums=(0, 1)))
    layer = torch.nn.Linear(hidden, vocabulary, bias=False).to(peer.device())
    given = torch.from_numpy(features).to(peer.device()).requires_grad_()
    wanted = torch.from_numpy(targets).long().to(peer.device())

    def by_torch() -> None:
        layer.zero_grad(set_to_none=True)
        given.grad = None
        torch.nn.functional.cross_entropy(layer(given), wanted, reduction="sum").backward()

    contestants = {
        "ours": chunked(None),
        "bfloat16": chunked("bfloat16"),
        "optax": lambda: by_optax(*on_device),
        "torch": by_torch,
        "matmul": timing.matmul(),
    }
    seconds = timing.turns(rounds, contestants)
    operations = 3 * 2 * tokens * hidden * vocabulary
    return {
        "seconds": seconds["ours"],
        "ratio_vs_torch": seconds["torch"] / seconds["ours"],
        "ratio_vs_optax": seconds["optax"] / seconds["ours"],
        "share_of_matmul": operations / seconds["ours"] / timing.rate(seconds["matmul"]),
        "share_of_matmul_torch": operations / seconds["torch"] / timing.rate(seconds["matmul"]),
        "bfloat16_vs_float32": seconds["ours"] / seconds["bfloat16"],
    }


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.cross_entropy", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=7, help="turns of each")
    return arguments


def _command(options: Namespace) -> None:
    peer.alike()
    cases = {}
    for name, sizes in CASES.items():
        cases[name] = case(*sizes, options.rounds)
        timing.line(name, cases[name])
    timing.finish(cases, "full, 40 tokens")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
