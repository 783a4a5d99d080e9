"""The LSTM against autodiff of a naive scan, in float64; test_network.py has it against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalevae_jax.core import lstm

TIME, BATCH, HIDDEN = 5, 3, 4


def _arguments(rng, dtype=np.float64, time=TIME):
    shapes = (HIDDEN, 4 * HIDDEN), (time, BATCH, 4 * HIDDEN), (BATCH, HIDDEN), (BATCH, HIDDEN)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def _naive(recurrent, gates, h, c):
    """The recurrence as a plain scan, without the package's cell."""

    def sigmoid(x):
        return 1 / (1 + jnp.exp(-x))

    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(x + h @ recurrent, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return jax.lax.scan(step, (h, c), gates)[1]


@pytest.mark.parametrize(("time", "unroll"), [(1, 1), (TIME, 1), (9, 8)])
def test_value_gradient_and_second_derivative_are_those_of_a_naive_scan(rng, monkeypatch, time, unroll):
    """A single token has no previous step; a GPU's eight tokens a turn leave one of nine over."""
    monkeypatch.setattr(lstm, "unroll", lambda: unroll)
    arguments, direction = _arguments(rng, time=time), _arguments(rng, time=time)
    weight, every = rng.normal(size=(time, BATCH, HIDDEN)), range(4)

    def derivatives(function):
        gradient = jax.grad(lambda *a: jnp.sum(weight * function(*a) ** 2), argnums=every)

        def slope(*a):
            return sum(jnp.vdot(x, y) for x, y in zip(gradient(*a), direction, strict=True))

        return jax.jit(lambda *a: (function(*a), gradient(*a), jax.grad(slope, argnums=every)(*a)))(*arguments)

    with jax.enable_x64(True):
        actual, expected = (jax.tree.leaves(derivatives(function)) for function in (lstm.lstm, _naive))
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_one_step_is_one_step_of_the_scan(rng):
    recurrent, gates, h, c = _arguments(rng, np.float32)
    state = h, c
    for x, expected in zip(gates, lstm.lstm(recurrent, gates, h, c), strict=True):
        state = lstm.step(recurrent, x, state)
        np.testing.assert_allclose(state[0], expected, rtol=1e-5, atol=1e-6)
