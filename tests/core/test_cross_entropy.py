"""The chunked loss against plain autodiff of all logits at once, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalevae_jax.core import cross_entropy

CHUNK, FEATURES, WORDS = 7, 4, 9


@pytest.fixture(autouse=True)
def small_chunk(monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", CHUNK)


def test_large_logits_do_not_overflow():
    features, kernel = np.full((3, 1), 1e4, np.float32), np.array([[1.0, -1.0, 1.0]], np.float32)
    targets, weight = np.array([0, 1, 2], np.int32), np.ones(3, np.float32)
    expected = [np.log(2), 2e4 + np.log(2), np.log(2)]
    np.testing.assert_allclose(-cross_entropy.log_likelihood(features, kernel, targets), expected, atol=2e-3)
    (total, nll), pull = jax.vjp(cross_entropy.weighted_nll, features, kernel, targets, weight)
    np.testing.assert_allclose(nll, expected, atol=2e-3)
    np.testing.assert_allclose(total, sum(expected), rtol=1e-4)
    assert all(np.all(np.isfinite(g)) for g in pull((jnp.float32(1), jnp.zeros(3)))[:2])


def _all_at_once(features, kernel, targets, weight):
    """The same loss from all logits, in the precision of its arguments."""
    logits = features @ kernel
    nll = jnp.log(jnp.exp(logits).sum(-1)) - jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return jnp.sum(weight * nll), nll


@pytest.mark.parametrize("tokens", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 2])
def test_value_and_derivatives_are_those_of_all_logits_at_once(rng, tokens):
    """Gradients and second derivatives of three times the sum; every third token has no weight."""
    features, kernel, direction = (rng.normal(size=(n, k)) for n, k in ((tokens, 4), (4, WORDS), (tokens, 4)))
    targets, weight = rng.integers(0, WORDS, tokens).astype(np.int32), rng.uniform(0.1, 2.0, tokens)
    weight[1::3] = 0

    def derivatives(function, features, kernel, weight, direction):
        def loss(x, k):
            return 3 * function(x, k, targets, weight)[0]

        def slope(x, k):
            return jnp.vdot(direction, jax.grad(loss)(x, k))

        def every(x, k):
            return function(x, k, targets, weight), jax.grad(loss, (0, 1))(x, k), jax.grad(slope, (0, 1))(x, k)

        return jax.jit(every)(features, kernel)

    actual = derivatives(cross_entropy.weighted_nll, *map(np.float32, (features, kernel, weight, direction)))
    with jax.enable_x64(True):
        expected = derivatives(_all_at_once, features, kernel, weight, direction)
    np.testing.assert_allclose(actual[0][0], expected[0][0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(np.any(actual[1][0] != 0, axis=1), weight > 0)


def test_memory_is_that_of_one_chunk(rng):
    tokens = 10 * CHUNK
    features, kernel = (np.float32(rng.normal(size=shape)) for shape in ((tokens, FEATURES), (FEATURES, WORDS)))
    arguments = features, kernel, np.zeros(tokens, np.int32), np.ones(tokens, np.float32)
    for function in (cross_entropy.weighted_nll, jax.grad(lambda *a: cross_entropy.weighted_nll(*a)[0], (0, 1))):
        jaxpr = str(jax.make_jaxpr(function)(*arguments))
        assert f"f32[{CHUNK},{WORDS}]" in jaxpr
        assert f"f32[{tokens},{WORDS}]" not in jaxpr
