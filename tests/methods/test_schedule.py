"""KL weights at the epochs where they turn."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalevae_jax.methods import schedule


def _weights(weight, epochs):
    return [float(weight(jnp.float32(epoch))) for epoch in epochs]


def test_constant_is_the_same_at_every_epoch():
    assert _weights(schedule.constant(0.25), [0, 0.01, 7, 1000]) == [0.25] * 4


def test_linear_is_straight_from_the_start_to_one():
    weights = _weights(schedule.linear(8.0, 0.25), [0, 2, 4, 6, 8, 9, 400])
    np.testing.assert_allclose(weights, [0.25, 0.4375, 0.625, 0.8125, 1, 1, 1], rtol=1e-6)
    assert _weights(schedule.linear(8.0), [0, 4]) == [0, 0.5]
    assert _weights(schedule.linear(0.0), [0, 0.001, 5]) == [1, 1, 1]  # no annealing


@given(st.floats(0.25, 200), st.floats(0, 1))
def test_linear_is_the_start_at_zero_and_exactly_one_from_warm_up_on(warm_up, start):
    just_after = np.nextafter(np.float32(warm_up), np.float32(999))
    weights = _weights(schedule.linear(warm_up, start), [0, just_after, 2 * warm_up])
    assert weights[0] == np.float32(start)
    assert weights[1:] == [1, 1]  # DU-VAE's variance floor waits for a weight of 1; just under it is not enough


@pytest.mark.parametrize(
    ("arguments", "epochs", "expected"),
    [
        (  # the last step of a cycle belongs to it
            (4.0, 0.5, 3, 0.2),
            [0.1, 1, 2, 3, 3.75, 4, 4.1, 5, 7.5, 8, 8.1, 10, 12, 13, 40],
            [0.24, 0.6, 1, 1, 1, 1, 0.24, 0.6, 1, 1, 0.24, 1, 1, 1, 1],
        ),
        ((4.0, 1.0, 1), [1, 3, 3.96, 4], [0.25, 0.75, 0.99, 1]),  # never rests, starts at 0
    ],
)
def test_cyclical_rises_rests_and_falls_back_for_each_cycle_and_then_is_one(arguments, epochs, expected):
    np.testing.assert_allclose(_weights(schedule.cyclical(*arguments), epochs), expected, rtol=1e-5)


@pytest.mark.parametrize("arguments", [(-1.0, 0.0), (10.0, -0.1), (10.0, 1.1)])
def test_linear_rejects_what_is_no_annealing(arguments):
    with pytest.raises(ValueError, match="linear annealing"):
        schedule.linear(*arguments)


@pytest.mark.parametrize("arguments", [(0.0, 0.5, 4), (10.0, 0.0, 4), (10.0, 1.5, 4), (10.0, 0.5, 0)])
def test_cyclical_rejects_what_is_no_cycle(arguments):
    with pytest.raises(ValueError, match="cyclical annealing"):
        schedule.cyclical(*arguments)
