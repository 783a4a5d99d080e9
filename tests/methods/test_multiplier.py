"""The least rate where the answer is known: one direction of Gaussian data, whose VAE has a KL of log(signal) / 2."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis

from scalevae_jax.core.types import Gaussian, Posteriors, StepContext
from scalevae_jax.methods import multiplier, penalty

DATA = np.float32([-1, 1] * 8)
WEIGHT = np.float32([1, 1] * 7 + [0, 0])


@pytest.mark.parametrize(("rate", "expected"), [(2.0, 2.0), (0.5, 1.0)])
def test_the_kl_is_held_at_the_rate_and_the_multiplier_is_zero_where_more_is_worth_it(rate, expected):
    transform = multiplier.multiplier(rate, 0.01)

    def loss(q, state):
        posteriors = Posteriors(Gaussian(q.mean * DATA[:, None], jnp.full((len(DATA), 1), q.logvar)), jnp.ones(1))
        context = StepContext(jnp.float32(1), jnp.int32(1), WEIGHT, None)
        posteriors, state = transform.apply({}, state, posteriors, context, True)
        unit = penalty.unit_rate(posteriors)
        rec = 0.5 * math.exp(2) * jnp.exp(q.logvar) / (q.mean**2 + jnp.exp(q.logvar))  # of the best linear decoder
        return rec + multiplier.constrained(unit, posteriors, context._replace(state=state)), (state, unit[0, 0])

    def step(carry, _):
        q, state = carry
        slope, (state, kl) = jax.grad(loss, has_aux=True)(q, state)
        return (jax.tree.map(lambda x, g: x - 0.05 * g, q, slope), state), kl

    start = Gaussian(jnp.float32(0.5), jnp.float32(0)), transform.init(1, 1)
    (_, state), kl = on_axis(jax.jit(lambda start: jax.lax.scan(step, start, length=6000)))(start)
    assert kl[-1] == pytest.approx(expected, rel=0.02)
    assert (state == 0) == (rate < expected)
    assert state < 1  # the KL still costs, so that a direction that says nothing keeps none


@pytest.mark.parametrize(("rate", "step"), [(0.0, 0.1), (1.0, 0.0)])
def test_a_wrong_hyperparameter_is_rejected(rate, step):
    with pytest.raises(ValueError, match="are positive"):
        multiplier.multiplier(rate, step)
