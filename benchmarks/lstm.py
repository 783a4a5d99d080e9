"""One LSTM over time, forward and backward to weights and inputs: ours, flax.linen's, PyTorch's, in one run.

Example:
  python -m benchmarks.lstm

Batch 32, inputs of 544 (word and z), hidden 1,024 at the full size; 128 + 32 and 256 at the small one. The share of the
matmul rate counts 8 hidden (inputs + hidden) operations a token forward and twice that backward. The last line is JSON.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import peer, timing
from scalevae_jax.core import lstm
from scalevae_jax.core.linear import linear
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer

BATCH = 32
FULL, SMALL = (544, 1024), (160, 256)
CASES = {"full, 40 tokens": (*FULL, 40), "full, 80 tokens": (*FULL, 80), "small, 12 tokens": (*SMALL, 12)}


def ours(x: np.ndarray, hidden: int, dtype: str | None = None) -> Callable[[], object]:
    """The package's, projection included."""
    rng = np.random.default_rng(0)
    inputs = x.shape[-1]
    kernel, recurrent = (np.float32(rng.uniform(-0.03, 0.03, (n, 4 * hidden))) for n in (inputs, hidden))

    def loss(x, kernel, recurrent):
        zeros = jnp.zeros((BATCH, hidden))
        return jnp.sum(jnp.square(lstm.lstm(recurrent, linear(x, kernel, dtype), zeros, zeros, dtype)))

    arguments = jax.device_put((x, kernel, recurrent))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return lambda: gradient(*arguments)


def linen(x: np.ndarray, hidden: int) -> Callable[[], object]:
    """What a user of flax would take."""
    network = nn.RNN(nn.OptimizedLSTMCell(hidden), time_major=True)
    params = jax.jit(network.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.square(network.apply(params, x))), argnums=(0, 1)))
    on_device = jax.device_put(x)
    return lambda: gradient(params, on_device)


def theirs(x: np.ndarray, hidden: int) -> Callable[[], object]:
    """PyTorch's nn.LSTM."""
    network = torch.nn.LSTM(x.shape[-1], hidden).to(peer.device())
    given = torch.from_numpy(x).to(peer.device()).requires_grad_()

    def gradient() -> None:
        network.zero_grad(set_to_none=True)
        given.grad = None
        network(given)[0].square().sum().backward()

    return gradient


def case(inputs: int, hidden: int, time: int, rounds: int) -> dict[str, float]:
    """Seconds of each, ratios, and our share of the matmul rate."""
    x = np.random.default_rng(1).normal(size=(time, BATCH, inputs)).astype(np.float32)
    contestants = {
        "ours": ours(x, hidden),
        "bfloat16": ours(x, hidden, "bfloat16"),
        "linen": linen(x, hidden),
        "torch": theirs(x, hidden),
        "matmul": timing.matmul(),
    }
    seconds = timing.turns(rounds, contestants)
    operations = 3 * 8 * hidden * (inputs + hidden) * BATCH * time
    return {
        "seconds": seconds["ours"],
        "ratio_vs_torch": seconds["torch"] / seconds["ours"],
        "ratio_vs_linen": seconds["linen"] / seconds["ours"],
        "share_of_matmul": operations / seconds["ours"] / timing.rate(seconds["matmul"]),
        "share_of_matmul_torch": operations / seconds["torch"] / timing.rate(seconds["matmul"]),
        "bfloat16_vs_float32": seconds["ours"] / seconds["bfloat16"],
    }


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.lstm", __doc__)
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
