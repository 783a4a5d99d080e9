"""Products of narrow operands against NumPy's float64 on the same rounded operands."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from scalevae_jax.core import cross_entropy, lstm
from scalevae_jax.core.linear import linear


def _rounded(x):
    return np.float64(np.asarray(x).astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("rows", [(), (5,), (2, 3)])
def test_bfloat16_rounds_operands_and_nothing_else(rng, rows):
    x, kernel = np.float32(rng.normal(size=(*rows, 300))), np.float32(rng.normal(size=(300, 7)))
    cotangent = np.float32(rng.normal(size=(*rows, 7)))
    value, pull = jax.vjp(lambda x, kernel: linear(x, kernel, "bfloat16"), x, kernel)
    dx, dkernel = pull(jnp.asarray(cotangent))
    x_rows, cotangent_rows = _rounded(x).reshape(-1, 300), _rounded(cotangent).reshape(-1, 7)
    for actual, expected in (
        (value, _rounded(x) @ _rounded(kernel)),
        (dx, _rounded(cotangent) @ _rounded(kernel).T),
        (dkernel, x_rows.T @ cotangent_rows),
    ):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_without_a_type_it_is_a_plain_product_in_value_and_gradient(rng):
    x, kernel, cotangent = (rng.normal(size=shape) for shape in ((2, 3, 4), (4, 5), (2, 3, 5)))
    with jax.enable_x64(True):
        (value, pull), (expected, pull_plain) = (jax.vjp(product, x, kernel) for product in (linear, jnp.matmul))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for a, b in zip(pull(jnp.asarray(cotangent)), pull_plain(jnp.asarray(cotangent)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_network_in_bfloat16_is_near_float32_and_keeps_wide_gradients(rng):
    def loss(arguments, dtype):
        recurrent, gates, h0, c0, output = arguments
        hs = lstm.lstm(recurrent, gates, h0, c0, dtype)
        return cross_entropy.weighted_nll(hs.reshape(-1, 16), output, targets, weight, dtype)[0]

    shapes = (16, 64), (6, 3, 64), (3, 16), (3, 16), (16, 11)
    arguments = tuple(np.float32(0.5 * rng.normal(size=shape)) for shape in shapes)
    targets, weight = rng.integers(0, 11, 18).astype(np.int32), np.float32(rng.uniform(0.1, 1, 18))
    wide, narrow = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(arguments, t) for t in (None, "bfloat16"))
    assert wide[0] != narrow[0]
    np.testing.assert_allclose(narrow[0], wide[0], rtol=3e-3)
    for a, b in zip(narrow[1], wide[1], strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.03 * np.abs(b).max())
