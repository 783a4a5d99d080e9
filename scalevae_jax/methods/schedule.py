"""KL weights as functions of the fractional epoch: training steps done, this one counted, over steps an epoch."""

from collections.abc import Callable

import jax.numpy as jnp

from scalevae_jax.core.types import Scalar

Schedule = Callable[[Scalar], Scalar]


def constant(weight: float) -> Schedule:
    """The same weight at every step; 1 is the plain ELBO."""
    return lambda epoch: jnp.float32(weight)


def linear(warm_up: float, start: float = 0.0) -> Schedule:
    """From `start` to 1 over `warm_up` epochs, then 1 (Bowman et al. 2016); a `warm_up` of 0 is no annealing."""
    if warm_up < 0 or not 0 <= start <= 1:
        raise ValueError(f"linear annealing needs warm_up >= 0 and 0 <= start <= 1, got {warm_up} and {start}")
    if warm_up == 0:
        return constant(1.0)
    return lambda epoch: start + (1 - start) * jnp.clip(epoch / warm_up, 0.0, 1.0)


def cyclical(cycle_epochs: float, ratio: float, cycles: int, start: float = 0.0) -> Schedule:
    """Linear from `start` to 1 over the first `ratio` of each of `cycles` cycles, else 1 (Fu et al. 2019)."""
    if cycle_epochs <= 0 or not 0 < ratio <= 1 or cycles < 1:
        raise ValueError(
            f"cyclical annealing needs cycle_epochs > 0, 0 < ratio <= 1 and cycles >= 1, "
            f"got {cycle_epochs}, {ratio} and {cycles}"
        )

    def weight(epoch: Scalar) -> Scalar:
        # mod of -epoch, so that the last step of a cycle belongs to it and not to the next one
        within = (cycle_epochs - jnp.mod(-epoch, cycle_epochs)) / (ratio * cycle_epochs)
        rising = start + (1 - start) * jnp.clip(within, 0.0, 1.0)
        return jnp.where(epoch < cycles * cycle_epochs, rising, 1.0)

    return weight
