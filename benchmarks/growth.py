"""How time and memory of a training step grow with batch, length, vocabulary and hidden size, and those of the
importance-weighted step with draws.

Example:
  python -m benchmarks.growth --rounds 5 --picture docs/images/growth

One size is changed at a time around batch 32, 40 words, vocabulary 5,000, hidden 256 (embedding 128, latent 32), and
100 draws of 8 sentences. Time is a median; memory is what XLA sets aside for the compiled step beside state and batch.
An exponent is the slope of a straight line through the points on a log-log plot, and `last` that of the last two alone.
The last line is JSON.
"""

import functools
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks import ours as package
from benchmarks import timing
from scalevae_jax import config
from scalevae_jax.comparison import pictures
from scalevae_jax.config import Config, Data, MethodConfig, Network
from scalevae_jax.core import gaussian, mixture
from scalevae_jax.inference.importance import draws_at_once, make_importance
from scalevae_jax.runtime import command, console, devices
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import optimizer
from scalevae_jax.training import state as training
from scalevae_jax.training.steps import make_steps


class Size(NamedTuple):
    """Of a step."""

    batch: int = 32
    words: int = 40
    vocabulary: int = 5000
    hidden: int = 256
    draws: int = 0  # 0 is a training step

    @property
    def operations(self) -> float:
        """Of the matrix products. XLA's own count takes the body of a loop once, and the LSTM is a loop over words."""
        tokens, word = self.words + 1, 8 * self.hidden * EMBEDDING
        recurrence, output = 8 * self.hidden**2, 2 * self.hidden * self.vocabulary
        z = 2 * LATENT * (4 + 1) * self.hidden  # into the gates and the first state, once a sentence
        encoder = (tokens + 1) * (word + recurrence) + 4 * self.hidden * LATENT
        decoder = tokens * (word + recurrence + output) + z
        if not self.draws:
            return 3 * self.batch * (encoder + decoder)  # the reverse pass costs twice the forward pass
        draw = tokens * (recurrence + output) + z
        return self.batch * (encoder + tokens * word + self.draws * draw)


AXES: dict[str, list[Size]] = {
    "batch": [Size(batch=n) for n in (8, 16, 32, 64, 128)],
    "words": [Size(words=n) for n in (10, 20, 40, 80, 160)],
    "vocabulary": [Size(vocabulary=n) for n in (1250, 2500, 5000, 10_000, 20_000, 40_000)],
    "hidden": [Size(hidden=n) for n in (64, 128, 256, 512, 1024)],
    "draws": [Size(batch=8, draws=n) for n in (25, 50, 100, 200, 400)],
}
EMBEDDING, LATENT = 128, 32
TICKS = (0.25, 0.5, 1, 2, 4, 8)


class Point(NamedTuple):
    """Seconds, MiB beside state and batch, operations of the matrix products."""

    seconds: float
    mib: float
    operations: float


def build(size: Size) -> tuple[Callable, list[Any]]:
    """The mapped function of a size and its arguments."""
    network = Network(embedding=EMBEDDING, hidden=size.hidden, latent=LATENT)
    settings = Config(data=Data(path=""), model=network, method=MethodConfig(name="vae"))
    method = config.build_method(settings)
    model = config.build_model(settings, method, size.vocabulary)
    batch = devices.shard(package.sentences(size.batch, size.words, size.vocabulary))
    state = devices.replicate(training.create_state(settings, model, method, 1000))
    if not size.draws:
        return make_steps(model, method, optimizer.build(settings, 1000), 1000).joint, [state, batch]
    chunk = min(size.draws, draws_at_once(settings.eval.memory_mib, size.batch, size.vocabulary, size.hidden))
    weigh = make_importance(model, method, size.draws, chunk)
    fitted = {"nll_fitted_prior": mixture.diagonal(gaussian.standard(model.latent))}
    return weigh, [state.params, state.method_state, batch, jax.random.key(0), fitted, np.int32(0)]


def measure(size: Size, rounds: int) -> Point:
    """Of one size, compiled first."""
    step, arguments = build(size)
    compiled: Any = step
    memory = compiled.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    def one() -> object:
        out = step(*arguments)
        if not size.draws:  # the state was donated
            arguments[0] = out[0]
        return out

    return Point(timing.turns(rounds, {"ours": one})["ours"], memory / 2**20, size.operations)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope on a log-log plot."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(points: dict[str, list[Point]]) -> Figure:
    """Time and memory over each size, as multiples of the common one."""
    figure, common = Figure(figsize=(7.2, 3.2), layout="constrained"), Size(draws=100)
    panels = (("seconds", "seconds a step"), ("mib", "MiB for the step"))
    for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for i, (axis, measured) in enumerate(points.items()):
            of = getattr(common, axis)
            x = [getattr(size, axis) / of for size in AXES[axis]]
            y = [getattr(point, name) for point in measured]
            axes.plot(x, y, marker=pictures.MARKERS[i], label=f"{axis}, of {of:,}")
        axes.set(xscale="log", yscale="log", xlabel="size over the common one", ylabel=label)
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
    figure.axes[0].legend()
    return figure


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.growth", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=5, help="calls of each point")
    arguments.add_argument("--picture", help="PNG and SVG of this name")
    return arguments


def _command(options: Namespace) -> None:
    points: dict[str, list[Point]] = {}
    cases: dict[str, dict[str, float]] = {}
    for axis, sizes in AXES.items():
        points[axis] = [measure(size, options.rounds) for size in sizes]
        x = [getattr(size, axis) for size in sizes]
        cases[axis] = {}
        for name in Point._fields:
            y = [getattr(point, name) for point in points[axis]]
            cases[axis] |= {
                f"{name}_exponent": exponent(x, y),
                f"{name}_last": math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2]),
            }
            cases[axis] |= {f"{name}_{n}": value for n, value in zip(x, y, strict=True)}
        timing.line(axis, {key: value for key, value in cases[axis].items() if key.endswith(("exponent", "last"))})
    if options.picture:
        with matplotlib.rc_context(pictures.STYLE):
            pictures.save(draw(points), Path(options.picture))
        console.log(f"{options.picture}.png and .svg are written")
    timing.finish(cases, "words")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
