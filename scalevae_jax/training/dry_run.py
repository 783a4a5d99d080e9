"""`train --dry_run`: what a run would take, before it is begun."""

import math
import time
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from rich.table import Table

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.types import leaves_by_path
from scalevae_jax.data import loader
from scalevae_jax.runtime import console
from scalevae_jax.runtime.devices import shard
from scalevae_jax.training import workdir
from scalevae_jax.training.steps import make_steps

MIB = 2**20
JAXPR = (jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr)
SIZE = 2048  # of the square product that tells the rate of this machine


def operations(jaxpr: Any) -> int:
    """Of the matrix products of a program: loops as often as they run, of branches the larger.

    XLA's own count takes the body of a loop once. Raises ValueError for a product in a loop whose length is not known.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += (
                2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            )
        flat = jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: isinstance(x, JAXPR))
        inner = [operations(getattr(x, "jaxpr", x)) for x in flat if isinstance(x, JAXPR)]
        if any(inner):
            if eqn.primitive.name == "while":
                raise ValueError("a matrix product in a loop of unknown length")
            times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            total += times * (max(inner) if eqn.primitive.name == "cond" else sum(inner))
    return total


def matmul_rate() -> float:
    """Operations a second of a large float32 product here, the best of three."""
    size = SIZE if jax.default_backend() == "cpu" else 4 * SIZE  # a GPU takes more to be filled
    a = jax.random.normal(jax.random.key(0), (size, size))
    product, seconds = jax.jit(jnp.matmul), []
    for _ in range(4):
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds[1:])


def show(settings: Config, words: int, train: loader.Loader) -> None:
    """Configuration, parameters, buckets with their operations a step, compiled memory of the longest. Trains nothing
    and writes nothing."""
    console.log(config.to_json(settings))
    method = config.build_method(settings)
    model = config.build_model(settings, method, words)
    state = workdir.abstract_state(settings, model, method, len(train))
    console.console.print(_parameters(state.params))
    joint: Any = make_steps(model, method, workdir.optimizer(settings), len(train)).joint

    cut, devices = train.partition(1), jax.device_count()

    def batch(length: int) -> Any:
        rows = cut.rows[cut.lengths.index(length)]
        return shard(loader.assemble(train.split, rows, length, train.size))

    table = Table("tokens", "batches", "padding", "GFLOP a step", title="buckets, operations of the matrix products")
    epoch = 0.0
    for edge in map(int, train.edges):
        batches = [rows for rows, length in zip(cut.rows, cut.lengths, strict=True) if length == edge]
        real = sum(int(train.split.lengths[rows].sum()) for rows in batches)
        step = devices * operations(jax.make_jaxpr(joint)(state, batch(edge)).jaxpr)
        epoch += step * len(batches)
        padding = 1 - real / (len(batches) * train.batch_size * edge)
        table.add_row(str(edge), f"{len(batches):,}", f"{padding:.1%}", f"{step / 1e9:.4g}")
    console.console.print(table)
    if not method.plan.several:
        console.log(
            "operations are those of a joint step: this method's inner loop takes steps of the encoder beside it"
        )
    begun = time.monotonic()
    longest = int(train.edges[-1])
    memory = joint.lower(state, batch(longest)).compile().memory_analysis()
    compiled = time.monotonic() - begun
    held = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes) / MIB
    working = memory.temp_size_in_bytes / MIB
    console.log(
        f"memory of a device in a step of {longest} tokens: {held:,.0f} MiB state and batch, {working:,.0f} MiB while "
        f"it runs, {held + working:,.0f} MiB in all (compiled in {compiled:.1f} s)"
    )
    rate = matmul_rate() * (1 if jax.default_backend() == "cpu" else devices)  # CPU devices are parts of one machine
    console.log(
        f"an epoch: {len(train):,} steps, {epoch / 1e12:.4g} TFLOP; at this machine's matmul rate "
        f"({rate / 1e9:,.0f} GFLOP/s, float32) at least {console.duration(epoch / rate)}"
    )


def _parameters(params: Any) -> Table:
    table = Table("parameter", "shape", "numbers", "MiB", title="parameters, float32")
    leaves = leaves_by_path(params)
    for name, x in leaves.items():
        table.add_row(name, " x ".join(map(str, x.shape)), f"{x.size:,}", f"{4 * x.size / MIB:.2f}")
    total = sum(x.size for x in leaves.values())
    table.add_row("all", "", f"{total:,}", f"{4 * total / MIB:.2f}")
    return table
