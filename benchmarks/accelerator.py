"""All that is worth measuring on an accelerator, in the few minutes for which one is lent.

Example:
  python -m benchmarks.accelerator --minutes 8 --out accelerator.json

In this order: the LSTM, the cross-entropy, and the loss and gradients of every method against the CPU's, with float32
products at their highest precision and then as JAX multiplies by default; a training step at full size against
PyTorch's, with cuDNN and then with torch.compile; importance weights against PyTorch's; a start with and without what
was compiled before; an epoch of ragged text; two runs from one seed, with and without deterministic operations. A part
that begins after --minutes is left out, and one that fails is reported; both leave the others alone. Each result is
printed and written as it ends. Without PyTorch its parts are left out. The last line is JSON.
"""

import dataclasses
import functools
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours as package
from benchmarks import start, timing
from scalevae_jax import config
from scalevae_jax.config import Config, MethodConfig, Network
from scalevae_jax.core import cross_entropy, lstm
from scalevae_jax.inference import load
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import METHODS
from scalevae_jax.runtime import command, console, devices, storage
from scalevae_jax.runtime.command import Parser, number
from scalevae_jax.training.log import read_metrics
from scalevae_jax.training.state import create_state

Figures = dict[str, float]
Part = tuple[str, Callable[[], Figures]]
HAS_TORCH = importlib.util.find_spec("torch") is not None
DTYPES = ("float32", "bfloat16")
SIZES = ("embedding", "hidden", "latent")


class Sizes(NamedTuple):
    """Of everything that is measured."""

    network: Network
    vocabulary: int
    words: tuple[int, ...]
    rows: tuple[int, ...]
    methods: Network  # whose losses are compared with the CPU's
    draws: int
    sentences: int  # of two runs that are compared


TORCH = {"encoder_init": "torch", "decoder_init": "torch"}  # so large that z matters from the first step on
FULL = Sizes(Network(), 20_000, (40, 80), (32, 128), Network(128, 256, 32, **TORCH), 500, 1_600)
SMALL = Network(8, 12, 4, **TORCH)
TINY = Sizes(SMALL, 50, (4,), (16,), SMALL, 2, 64)


def _compiled(function: Callable[..., Any], arguments: Any, device: jax.Device, precision: str) -> Callable[[], Any]:
    """The function, ready to be called on a device."""
    with jax.default_device(device), jax.default_matmul_precision(None if precision == "default" else precision):
        placed = jax.device_put(arguments, device)
        program = jax.jit(function).lower(*placed).compile()
    return lambda: jax.device_get(program(*placed))


def _difference(program: Future[Any], reference: Future[Any]) -> Figures:
    """Difference of the loss over the loss, and the largest one of a gradient over the largest of its array."""
    (loss, found), (right, expected) = program.result()(), reference.result()()
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    gradient = max(float(np.max(np.abs(x - y)) / (np.max(np.abs(y)) or 1.0)) for x, y in pairs if y.size)
    return {"loss": float(abs(loss - right) / abs(right)), "gradient": gradient}


def _functions(sizes: Sizes) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """What is compared, by name: a function that returns a loss and its gradients, and the function's arguments."""
    rng, hidden, rows, steps = np.random.default_rng(0), sizes.network.hidden, sizes.rows[0], sizes.words[0]

    def recurrence(recurrent: Any, gates: Any) -> Any:
        zeros = jnp.zeros((rows, hidden))
        return jnp.sum(jnp.square(lstm.lstm(recurrent, gates, zeros, zeros)))

    recurrent, gates = rng.normal(size=(hidden, 4 * hidden)) / hidden**0.5, rng.normal(size=(steps, rows, 4 * hidden))
    yield "lstm", jax.value_and_grad(recurrence, (0, 1)), (np.float32(recurrent), np.float32(gates))
    targets = rng.integers(0, sizes.vocabulary, steps * rows).astype(np.int32)

    def words(features: Any, kernel: Any) -> Any:
        return cross_entropy.weighted_nll(features, kernel, targets, np.ones(steps * rows, np.float32))[0]

    features, kernel = rng.normal(size=(steps * rows, hidden)), rng.normal(size=(hidden, sizes.vocabulary)) / 50
    yield "cross-entropy", jax.value_and_grad(words, (0, 1)), (np.float32(features), np.float32(kernel))
    for name in METHODS:
        yield name, *_loss(name, sizes)


def _loss(name: str, sizes: Sizes) -> tuple[Callable[..., Any], Any]:
    settings = Config(model=sizes.methods, method=MethodConfig(name=name))
    method = config.build_method(settings)
    model = config.build_model(settings, method, sizes.vocabulary)
    state = create_state(settings, model, method, 10)
    phase = objective.Phase(np.float32(0.5), np.int32(1), train=True)

    def gradient(params: Any, method_state: Any, batch: Any, key: Any) -> Any:
        both: Any = jax.value_and_grad(objective.objective, has_aux=True)
        (loss, _), gradients = both(params, model, method, method_state, batch, key, phase)
        return loss, gradients

    def on_one(*given: Any) -> Any:
        return jax.tree.map(lambda x: x[0], jax.vmap(gradient, (None, None, 0, None), axis_name=devices.AXIS)(*given))

    batch = package.sentences(32, sizes.words[0], sizes.vocabulary)
    lengths = np.int32(np.arange(32) % sizes.words[0] + 2)  # ragged, and those of two tokens only fill the batch
    batch = batch._replace(lengths=lengths, weight=np.float32(lengths > 2))
    return on_one, (state.params, state.method_state, jax.tree.map(lambda x: x[None], batch), state.key)


def parity(sizes: Sizes) -> Iterator[Part]:
    """Each function on this device and on the CPU; what comes later compiles in threads meanwhile."""
    cpu = jax.devices("cpu")[0], "highest"
    places = [(jax.devices()[0], precision) for precision in ("highest", "default")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = {
            name: {place: pool.submit(_compiled, *given, *place) for place in {cpu: 0} | dict.fromkeys(places)}
            for name, *given in _functions(sizes)
        }
        for place in places:
            for name, programs in made.items():
                yield f"parity, {place[1]}, {name}", functools.partial(_difference, programs[place], programs[cpu])


def steps(sizes: Sizes) -> Iterator[Part]:
    """Seconds of a training step, ours and PyTorch's by cuDNN."""
    for words, rows in itertools.product(sizes.words, sizes.rows):
        yield f"step, {words} words, batch {rows}", functools.partial(_step, sizes, words, rows, compiled=False)
    if HAS_TORCH:
        yield "step, torch.compile", functools.partial(_step, sizes, sizes.words[0], sizes.rows[0], compiled=True)


def _step(sizes: Sizes, words: int, rows: int, compiled: bool) -> Figures:
    batch, contestants = package.sentences(rows, words, sizes.vocabulary), {}
    for dtype in DTYPES:
        network = dataclasses.replace(sizes.network, compute_dtype=dtype)
        take = package.trainer(Config(model=network, method=MethodConfig(name="vae")), sizes.vocabulary)
        contestants[dtype] = functools.partial(take, batch)
        if HAS_TORCH:
            import torch

            from benchmarks import peer

            peer.alike()
            vae = peer.Vae(sizes.vocabulary, *(getattr(network, size) for size in SIZES)).to(peer.device())
            vae.losses = torch.compile(vae.losses) if compiled else vae.losses
            tokens = torch.from_numpy(batch.tokens).long().to(peer.device())
            contestants[f"torch_{dtype}"] = functools.partial(vae.step, tokens, bfloat16=dtype == "bfloat16")
    seconds = timing.turns(3, contestants)
    ratios = {f"torch_{dtype}_ratio": seconds[f"torch_{dtype}"] / seconds[dtype] for dtype in DTYPES if HAS_TORCH}
    return {f"{name}_ms": 1e3 * x for name, x in seconds.items()} | ratios


def importance(sizes: Sizes) -> Iterator[Part]:
    """Importance weights, ours and PyTorch's."""
    if HAS_TORCH:
        from benchmarks import iw_nll

        network = (getattr(sizes.network, size) for size in SIZES)
        size = iw_nll.Size(sizes.vocabulary, *network, sizes.words[0], sizes.rows[0], 1)
        yield f"importance weights, {size.words} words", lambda: iw_nll.case(size, sizes.draws, sizes.draws, 3)


def runs(sizes: Sizes, folder: Path) -> Iterator[Part]:
    """What whole runs of the command take, by themselves and next to each other."""
    small = [f"--config.model.{size}={getattr(SMALL, size)}" for size in SIZES] if sizes is TINY else []
    few = ["--config.data.buckets=1", f"--config.data.limit_train={sizes.sentences}", "--config.data.limit_valid=64"]

    def started() -> Figures:
        return {i: start.start(folder / i, folder / "cache", "package:snli", small) for i in ("cold", "warm")}

    def run(name: str, *arguments: str, **environment: str) -> dict[str, Any]:
        line = [*small, "--config.train.max_epochs=1", *arguments]
        if code := start.run(folder / name, folder / "cache", "package:snli", line, **environment).wait():
            raise RuntimeError(f"the run ended with {code}")
        return read_metrics(folder / name)[-1]

    def epoch() -> Figures:
        line = run("epoch", *(few if sizes is TINY else []))
        tokens, seconds = line["tokens_per_second"] * line["seconds"], line["seconds"] - line["seconds_compiling"]
        return {"tokens_per_second": tokens / seconds, "seconds": seconds, "compiling": line["seconds_compiling"]}

    def twice(flags: str) -> Figures:
        names = [name + flags[-5:] for name in ("one", "two")]
        lines = [run(name, *few, XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags}") for name in names]
        first, second = (jax.tree.leaves(load.load(folder / name).params) for name in names)
        difference = max(float(np.max(np.abs(x - y))) for x, y in zip(first, second, strict=True) if x.size)
        return {"difference": difference, "seconds": lines[1]["seconds"] - lines[1]["seconds_compiling"]}

    yield "start", started
    yield "an epoch of ragged text", epoch
    yield "two runs", functools.partial(twice, "")
    yield "two runs, deterministic operations", functools.partial(twice, "--xla_gpu_deterministic_ops=true")


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.accelerator", __doc__)
    arguments.add_argument("--minutes", type=number(0.0), default=8.0, help="after which no further part begins")
    arguments.add_argument("--out", type=Path, metavar="FILE", help="JSON, written anew after each result")
    arguments.add_switch("--tiny", help="small sizes, which a CPU takes too: a test of this program")
    return arguments


def _command(options: Namespace) -> None:
    began, results = time.monotonic(), dict[str, Any]()
    sizes = TINY if options.tiny else FULL
    if not HAS_TORCH:
        console.warn("PyTorch is not installed: nothing is compared with it")
    with tempfile.TemporaryDirectory() as folder:
        for parts in (parity(sizes), steps(sizes), importance(sizes), runs(sizes, Path(folder))):
            for name, part in parts:
                if time.monotonic() - began > 60 * options.minutes:
                    console.warn(f"{name}: left out, {options.minutes:g} minutes have gone")
                    continue
                try:
                    results[name] = part()
                    timing.line(name, results[name])
                except Exception as error:
                    results[name] = {"failed": storage.first_line(error)}
                    console.warn(f"{name}: {results[name]['failed']}")
                if options.out is not None:
                    storage.write_json(options.out, timing.summary(results))
    timing.finish(results, "")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the runs are processes of their own
    sys.exit(main())
