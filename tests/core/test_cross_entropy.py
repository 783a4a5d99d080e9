"""Token log-likelihoods against SciPy, and the chunked loss against plain autodiff of all logits at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from scalevae_jax.core import cross_entropy

CHUNK, FEATURES, WORDS = 7, 4, 9


@pytest.fixture(autouse=True)
def small_chunk(monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", CHUNK)


def _arguments(rng, tokens):
    features = np.float32(rng.normal(size=(tokens, FEATURES)))
    kernel = np.float32(rng.normal(size=(FEATURES, WORDS)))
    targets = rng.integers(0, WORDS, tokens).astype(np.int32)
    return features, kernel, targets, np.float32(rng.uniform(0.1, 2.0, tokens))


def _plain(features, kernel, targets, weight):
    """All logits at once, in the precision of its arguments."""
    shifted = jnp.exp(features @ kernel)
    chosen = jnp.take_along_axis(features @ kernel, targets[:, None], axis=1)[:, 0]
    nll = jnp.log(shifted.sum(-1)) - chosen
    return jnp.sum(weight * nll), nll


def _double(*arrays):
    return [x.astype(np.float64) if x.dtype == np.float32 else x for x in arrays]


@pytest.mark.parametrize("rows", [(6,), (2, 3), ()])
def test_log_likelihood_is_scipys(rng, rows):
    features, kernel = (np.float32(rng.normal(size=(*rows, FEATURES))), np.float32(rng.normal(size=(FEATURES, WORDS))))
    targets = rng.integers(0, WORDS, rows).astype(np.int32) if rows else np.array(3, np.int32)
    log_probabilities = special.log_softmax(np.float64(features) @ np.float64(kernel), axis=-1)
    expected = np.take_along_axis(log_probabilities, np.asarray(targets)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(cross_entropy.log_likelihood(features, kernel, targets), expected, rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    features, kernel = np.full((3, 1), 1e4, np.float32), np.array([[1.0, -1.0, 1.0]], np.float32)
    targets, weight = np.array([0, 1, 2], np.int32), np.ones(3, np.float32)
    expected = [np.log(2), 2e4 + np.log(2), np.log(2)]
    np.testing.assert_allclose(-cross_entropy.log_likelihood(features, kernel, targets), expected, atol=2e-3)
    (total, nll), pull = jax.vjp(cross_entropy.weighted_nll, features, kernel, targets, weight)
    np.testing.assert_allclose(nll, expected, atol=2e-3)
    np.testing.assert_allclose(total, sum(expected), rtol=1e-4)
    assert all(np.all(np.isfinite(g)) for g in pull((jnp.float32(1), jnp.zeros(3)))[:2])


@pytest.mark.parametrize("tokens", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 2])
def test_value_and_gradients_are_those_of_all_logits_at_once(rng, tokens):
    arguments = _arguments(rng, tokens)
    loss = jax.value_and_grad(cross_entropy.weighted_nll, argnums=(0, 1), has_aux=True)
    (value, nll), gradients = jax.jit(loss)(*arguments)
    value_alone, nll_alone = jax.jit(cross_entropy.weighted_nll)(*arguments)
    with jax.enable_x64(True):
        plain = jax.jit(jax.value_and_grad(_plain, argnums=(0, 1), has_aux=True))
        (expected, each), wanted = plain(*_double(*arguments))
    np.testing.assert_allclose([value, value_alone], [expected, expected], rtol=1e-5)
    np.testing.assert_allclose(nll, each, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(nll_alone, each, rtol=1e-5, atol=1e-6)
    for gradient, want in zip(gradients, wanted, strict=True):
        assert gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-5)


def test_memory_is_that_of_one_chunk(rng):
    tokens = 10 * CHUNK
    arguments = _arguments(rng, tokens)
    for function in (cross_entropy.weighted_nll, jax.grad(lambda *a: cross_entropy.weighted_nll(*a)[0], (0, 1))):
        held = str(jax.make_jaxpr(function)(*arguments))
        assert f"f32[{CHUNK},{WORDS}]" in held
        assert f"f32[{tokens},{WORDS}]" not in held


def test_gradient_scales_with_the_cotangent_of_the_sum(rng):
    features, kernel, targets, weight = _arguments(rng, CHUNK + 3)

    def loss(scale):
        return jax.grad(lambda x, k: scale * cross_entropy.weighted_nll(x, k, targets, weight)[0], (0, 1))

    for once, thrice in zip(loss(1.0)(features, kernel), loss(3.0)(features, kernel), strict=True):
        np.testing.assert_allclose(thrice, 3 * once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tokens", [5, 2 * CHUNK + 1])
def test_tokens_of_weight_zero_give_no_gradient(rng, tokens):
    features, kernel, targets, weight = _arguments(rng, tokens)
    kept = rng.permutation(tokens) < tokens // 2
    weight = np.where(kept, weight, np.float32(0))
    gradient = jax.jit(jax.grad(lambda *a: cross_entropy.weighted_nll(*a)[0], (0, 1)))
    of_features, of_kernel = gradient(features, kernel, targets, weight)
    assert np.all(of_features[~kept] == 0)
    assert np.all(np.any(of_features[kept] != 0, axis=1))
    only_kept = gradient(features[kept], kernel, targets[kept], weight[kept])
    np.testing.assert_allclose(of_kernel, only_kept[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_features[kept], only_kept[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [5, 2 * CHUNK + 1])
def test_second_derivatives_in_the_features_are_those_of_all_logits_at_once(rng, tokens):
    features, kernel, targets, weight = _arguments(rng, tokens)
    direction = np.float32(rng.normal(size=features.shape))

    def product(function, features, kernel, targets, weight, direction):
        def slope(x, k):
            return jnp.vdot(direction, jax.grad(lambda y: function(y, k, targets, weight)[0])(x))

        return jax.jit(jax.grad(slope, (0, 1)))(features, kernel)

    products = product(cross_entropy.weighted_nll, features, kernel, targets, weight, direction)
    with jax.enable_x64(True):
        wanted = product(_plain, *_double(features, kernel, targets, weight, direction))
    for got, want in zip(products, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
