"""The LSTM against PyTorch's golden values, autodiff of a naive scan, and finite differences."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalevae_jax.core import lstm

GOLDEN = Path(__file__).parent / "golden" / "lstm.npz"
TIME, BATCH, HIDDEN = 5, 3, 4


@pytest.fixture
def golden():
    with np.load(GOLDEN) as values:
        return dict(values)


def _arguments(rng, dtype=np.float64, time=TIME):
    shapes = (HIDDEN, 4 * HIDDEN), (time, BATCH, 4 * HIDDEN), (BATCH, HIDDEN), (BATCH, HIDDEN)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def _sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def _naive(recurrent, gates, h, c):
    """The recurrence as a plain scan, without the package's cell."""

    def one(state, x):
        h, c = state
        i, f, g, o = jnp.split(x + h @ recurrent, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * jnp.tanh(g)
        h = _sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return jax.lax.scan(one, (h, c), gates)[1]


def _of_torch(inputs):
    """The golden network in our layout: every hidden state, and the linear layer's outputs."""
    bias = inputs["bias_ih_l0"] + inputs["bias_hh_l0"]
    gates = inputs["x"] @ inputs["weight_ih_l0"].T + jnp.broadcast_to(bias, (*inputs["x"].shape[:2], bias.size))
    hs = lstm.lstm(inputs["weight_hh_l0"].T, gates, inputs["h0"], inputs["c0"])
    offset = jnp.broadcast_to(inputs["linear_bias"], (*hs.shape[:2], inputs["linear_bias"].size))
    return hs, hs @ inputs["linear_weight"].T + offset


def test_outputs_and_gradients_are_torchs(golden):
    names = [name.removeprefix("grad_") for name in golden if name.startswith("grad_")]
    assert len(names) == 9

    def functional(inputs):
        hs, y = _of_torch(inputs)
        return jnp.sum(hs * golden["of_hs"]) + jnp.sum(y * golden["of_y"]), (hs, y)

    with jax.enable_x64(True):
        inputs = {name: golden[name] for name in names}
        (_, (hs, y)), gradients = jax.jit(jax.value_and_grad(functional, has_aux=True))(inputs)
        np.testing.assert_allclose(hs, golden["hs"], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(y, golden["y"], rtol=1e-10, atol=1e-12)
        for name in names:
            np.testing.assert_allclose(gradients[name], golden[f"grad_{name}"], rtol=1e-9, atol=1e-11, err_msg=name)


def test_states_in_float32_are_torchs_up_to_rounding(golden):
    inputs = {name: np.float32(value) for name, value in golden.items()}
    hs, y = _of_torch(inputs)
    assert hs.dtype == jnp.float32
    np.testing.assert_allclose(hs, golden["hs"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, golden["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("time", [1, TIME])
def test_own_reverse_pass_is_autodiff_of_a_naive_scan(rng, time):
    arguments, of_hs = _arguments(rng, time=time), rng.normal(size=(time, BATCH, HIDDEN))

    def through(function):
        functional = jax.value_and_grad(lambda *a: jnp.sum(of_hs * function(*a)), argnums=(0, 1, 2, 3))
        return jax.jit(functional)(*arguments)

    with jax.enable_x64(True):
        (value, gradients), (expected, wanted) = through(lstm.lstm), through(_naive)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for gradient, want in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(gradient, want, rtol=1e-10, atol=1e-12)


def test_the_loops_of_a_gpu_give_the_same_numbers(rng, monkeypatch):
    """Eight tokens a turn, of nine: one is left over."""
    arguments = _arguments(rng, time=9)
    weight = rng.normal(size=(9, BATCH, HIDDEN))

    def value_and_gradient():
        return jax.value_and_grad(lambda *x: jnp.sum(weight * lstm.lstm(*x)), argnums=range(4))(*arguments)

    with jax.enable_x64(True):
        plain = value_and_gradient()
        monkeypatch.setattr(lstm, "unroll", lambda: 8)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), value_and_gradient(), plain)


def test_value_is_the_same_with_and_without_a_gradient(rng):
    arguments = _arguments(rng, np.float32)
    alone = lstm.lstm(*arguments)
    together, _ = jax.vjp(lstm.lstm, *arguments)
    np.testing.assert_allclose(alone, together, rtol=1e-6, atol=1e-7)


def test_reverse_over_reverse_is_that_of_a_naive_scan_and_of_finite_differences(rng):
    arguments = _arguments(rng)
    direction = tuple(rng.normal(size=x.shape) for x in arguments)
    of_hs = rng.normal(size=(TIME, BATCH, HIDDEN))

    def gradient(function):
        return jax.grad(lambda *a: jnp.sum(of_hs * function(*a) ** 2), argnums=(0, 1, 2, 3))

    def hessian_vector(function):
        def slope(*a):
            return sum(jnp.vdot(x, y) for x, y in zip(gradient(function)(*a), direction, strict=True))

        return jax.jit(jax.grad(slope, argnums=(0, 1, 2, 3)))(*arguments)

    def at(step):
        return jax.jit(gradient(lstm.lstm))(*(x + step * y for x, y in zip(arguments, direction, strict=True)))

    with jax.enable_x64(True):
        product, naive = hessian_vector(lstm.lstm), hessian_vector(_naive)
        differences = [(up - down) / 2e-5 for up, down in zip(at(1e-5), at(-1e-5), strict=True)]
        for got, want, difference in zip(product, naive, differences, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(got, difference, rtol=1e-6, atol=1e-6)


def test_one_step_is_one_step_of_the_scan(rng):
    recurrent, gates, h, c = _arguments(rng, np.float32)
    state = h, c
    for x, expected in zip(gates, lstm.lstm(recurrent, gates, h, c), strict=True):
        state = lstm.step(recurrent, x, state)
        np.testing.assert_allclose(state[0], expected, rtol=1e-5, atol=1e-6)


def test_last_is_the_state_at_the_last_true_token(rng):
    hs, lengths = np.float32(rng.normal(size=(TIME, BATCH, HIDDEN))), np.array([1, TIME, 3], np.int32)
    expected = [hs[length - 1, row] for row, length in enumerate(lengths)]
    np.testing.assert_array_equal(lstm.last(hs, lengths), expected)


def test_padding_changes_neither_the_last_state_nor_its_gradient(rng):
    recurrent, gates, h, c = _arguments(rng, np.float32)
    lengths, of_last = np.array([2, 4, 3], np.int32), np.float32(rng.normal(size=(BATCH, HIDDEN)))

    def of(gates):
        def functional(*a):
            return jnp.sum(of_last * lstm.last(lstm.lstm(*a), lengths))

        return jax.jit(jax.value_and_grad(functional, argnums=(0, 1, 2, 3)))(recurrent, gates, h, c)

    real = (np.arange(TIME)[:, None] < lengths)[..., None]
    other = np.where(real, gates, np.float32(50 * rng.normal(size=gates.shape)))
    (value, gradients), (value_other, gradients_other) = of(gates), of(other)
    shorter, gradients_shorter = of(gates[: max(lengths)])
    np.testing.assert_allclose(value_other, value, rtol=1e-6)
    np.testing.assert_allclose(shorter, value, rtol=1e-6)
    for gradient, want in zip(gradients_other, gradients, strict=True):
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6)
    for i in (0, 2, 3):
        np.testing.assert_allclose(gradients_shorter[i], gradients[i], rtol=1e-5, atol=1e-6)
    assert np.all(np.where(real, 0, gradients[1]) == 0)
    assert np.any(gradients[1] != 0)
