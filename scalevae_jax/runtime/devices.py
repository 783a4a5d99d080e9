"""The one file that knows of devices: the named axis "data", the map over it, and the collectives across it.

A step is a function of one device's share of the batch. Sums cross devices, never means, and each is divided once by a
count that was summed too. A local loss is this device's share of the global loss, so that summed gradients are the
gradient of the global loss, also where the forward pass itself uses global moments.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from scalevae_jax.core.types import Array, InputError

AXIS = "data"
KEPT_BYTES = 2**30  # of compiled functions
MMAP_MAX, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -1, -2, -8  # glibc's names for mallopt (malloc.h)


def pmap_over_devices(
    step: Callable[..., Any], in_axes: Sequence[int | None], out_axes: Any = None, donate: Sequence[int] = ()
) -> Callable[..., Any]:
    """Map `step` over all devices of all processes: 0 marks an argument that is split over them, None one that is the
    same on all."""
    return jax.pmap(step, axis_name=AXIS, in_axes=tuple(in_axes), out_axes=out_axes, donate_argnums=tuple(donate))


def replicate(tree: Any) -> Any:
    """A tree that is the same on all local devices, placed there as a mapped step leaves it.

    A state placed otherwise would compile the step once more, and with several processes of several devices pmap
    (jax 0.10) would delete a donated scalar before its use.
    """
    return jax.device_put(tree, NamedSharding(Mesh(jax.local_devices(), (AXIS,)), PartitionSpec()))


def start() -> None:
    """Make XLA's CPU thread pool large enough for several virtual devices; call before the first computation. Raises
    InputError if JAX would compute in float64.

    XLA sizes the pool by NPROC. With fewer threads than twice the devices, the collectives of two steps that run at
    once deadlock.
    """
    if jax.dtypes.canonicalize_dtype(float) != np.float32:  # computes nothing
        raise InputError("JAX_ENABLE_X64 is set, but models are float32; unset it (jax.enable_x64(False) in a program)")
    for flag in os.environ.get("XLA_FLAGS", "").split():
        name, _, count = flag.partition("=")
        if name == "--xla_force_host_platform_device_count":
            os.environ.setdefault("NPROC", str(2 * int(count)))


def keep_compiled(keep: bool = True) -> None:
    """Keep compiled functions for the next start of any command, at most KEPT_BYTES of them in the user's cache folder;
    call before the first computation. The ones unused for longest go first; processes that share the folder lock it.

    Where JAX_COMPILATION_CACHE_DIR is set, JAX keeps them there instead, as its own variables say.
    """
    if not keep:
        jax.config.update("jax_enable_compilation_cache", False)
    if not keep or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = os.path.expanduser(f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/scalevae_jax/compiled")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:  # a home that is missing or read-only costs time and nothing else
        sys.stderr.write(f"compiled functions are not kept: {folder}: {error.strerror}\n")
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", KEPT_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _alone() -> bool:
    """Whether the mapped axis has one device: XLA copies every operand of a collective even then."""
    return jax.lax.axis_size(AXIS) == 1


def total(tree: Any) -> Any:
    """Sum over the devices."""
    return tree if _alone() else jax.lax.psum(tree, AXIS)


def gather(x: Float[Array, "rows ..."]) -> Float[Array, "all_rows ..."]:
    """The rows of every device, in the order of the global batch."""
    return x if _alone() else jax.lax.all_gather(x, AXIS, tiled=True)


def one_over_devices() -> Float[Array, ""]:
    """1 / devices: each device's share of a term that all of them compute from gathered values."""
    return 1.0 / jax.lax.psum(jnp.float32(1.0), AXIS)


class Moments(NamedTuple):
    """Moments of the real rows of the global batch (those of weight 1)."""

    rows: Float[Array, ""]
    mean: Float[Array, " latent"]
    squares: Float[Array, " latent"]  # sum of squared deviations from the mean

    def variance(self, ddof: int) -> Float[Array, " latent"]:
        """Divided by rows - ddof; 0 where there are too few rows."""
        return self.squares / jnp.maximum(self.rows - ddof, 1.0)


def batch_moments(x: Float[Array, "batch latent"], weight: Float[Array, " batch"]) -> Moments:
    """Moments by two passes, so that rounding does not lose a small spread round a large mean."""
    rows = total(jnp.sum(weight))
    mean = total(jnp.sum(weight[:, None] * x, axis=0)) / jnp.maximum(rows, 1.0)
    squares = total(jnp.sum(weight[:, None] * jnp.square(x - mean), axis=0))
    return Moments(rows, mean, squares)


def shard(tree: Any) -> Any:
    """This process's share of the leading axis of host arrays, split over its devices:
    [rows, ..] -> [local devices, rows / devices, ..]."""
    here = jax.local_device_count()
    return jax.tree.map(lambda x: (y := x[rows_here(len(x))]).reshape(here, len(y) // here, *x.shape[1:]), tree)


def stack_batches(trees: Sequence[Any]) -> Any:
    """Sharded trees stacked behind the axis of the devices: [local devices, trees, rows / devices, ..]."""
    return jax.tree.map(lambda *x: np.stack(x, axis=1), *trees)


def unshard(tree: Any) -> Any:
    """The inverse of `shard`: the rows of all processes, on every process."""
    tree = jax.tree.map(np.asarray, tree)
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda x: np.asarray(x).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def rows_for(batch_size: int) -> int:
    """The number of rows of a batch: `batch_size`, filled up to a multiple of the number of devices."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def rows_here(rows: int) -> slice:
    """The rows of a batch that are this process's share."""
    share = rows // jax.device_count() * jax.local_device_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def _on_data(change: Callable[[Any], Any], x: Any) -> Any:
    """`change` of an array, or of the integers behind a random key."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(change(jax.random.key_data(x)))
    return change(x)


def to_global(tree: Any) -> Any:
    """A tree that is the same on all processes, as arrays of all their devices: orbax saves no others."""
    if jax.process_count() == 1:
        return tree
    mesh = Mesh(jax.devices(), (AXIS,))
    change = functools.partial(
        multihost_utils.host_local_array_to_global_array, global_mesh=mesh, pspecs=PartitionSpec()
    )
    return jax.tree.map(functools.partial(_on_data, change), tree)


def to_local(tree: Any) -> Any:
    """The inverse of `to_global`: arrays of this process alone."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(functools.partial(_on_data, lambda x: jnp.asarray(np.asarray(x))), tree)


def keep_pages() -> None:
    """Keep freed memory for the next step, where the C library is glibc; elsewhere do nothing.

    On a CPU, XLA takes its buffers from malloc and frees them after every step. glibc gives large ones back to the
    system at once, and the kernel clears every page again at the next step: a fifth to a third of the step's time.
    Here they stay on the heap of the one arena that all threads share.
    """
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 2**26)):
        _call_glibc("mallopt", option, value)


def give_back() -> None:
    """Give the system the memory that is kept and not in use, where the C library is glibc.

    Buffers of many sizes leave holes, which would add up over a long run.
    """
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        getattr(ctypes.CDLL(None), name)(*arguments)
