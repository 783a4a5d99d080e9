"""Updates of Adam are optax's, part by part; the rate rises, stays or falls as the configuration says."""

import jax
import numpy as np
import optax
import pytest

from scalevae_jax.config import Config, Optim, Train
from scalevae_jax.core.types import InputError
from scalevae_jax.training import optimizer


def _trees(rng, n):
    shapes = {"encoder": {"kernel": (2, 3), "bias": (3,)}, "decoder": {"kernel": (3, 2)}, "posterior": {}}
    return [
        jax.tree.map(lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=lambda x: isinstance(x, tuple))
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_optaxs_and_an_update_of_one_part_is_no_step_of_another(name, rng):
    """The encoder takes three steps, the decoder the first and the last of them."""
    params, *gradients = _trees(rng, 4)
    direction = optimizer.build(Config(optim=Optim(name=name, learning_rate=0.1, weight_decay=0.3)), 5).direction
    theirs = (
        optax.adam(0.1) if name == "adam" else optax.adamw(0.1, weight_decay=0.3, mask={"kernel": True, "bias": False})
    )
    state, moved = direction.init(params), params
    for step, gradient in enumerate(gradients):
        parts = ("encoder", "posterior") if step == 1 else tuple(params)
        some = {part: moved[part] for part in parts}
        updates, state = direction.update({part: gradient[part] for part in parts}, state, some)
        moved = moved | optax.apply_updates(some, jax.tree.map(lambda u: -0.1 * u, updates))
    for part, steps in (("encoder", (0, 1, 2)), ("decoder", (0, 2))):
        if name == "adamw" and part == "decoder":
            theirs = optax.adamw(0.1, weight_decay=0.3)
        expected, their_state = params[part], theirs.init(params[part])
        for step in steps:
            updates, their_state = theirs.update(gradients[step][part], their_state, expected)
            expected = optax.apply_updates(expected, updates)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), moved[part], expected)


@pytest.mark.parametrize(
    ("optim", "rates"),
    [
        (Optim(), [2.0] * 9),
        (Optim(warmup_steps=3), [0.5, 1.0, 1.5, *[2.0] * 6]),
        (Optim(schedule="cosine"), [1 + np.cos(np.pi * k / 8) for k in range(9)]),
        (
            Optim(schedule="cosine", warmup_steps=4),
            [0.4, 0.8, 1.2, 1.6, *(1 + np.cos(np.pi * k / 4) for k in range(5))],
        ),
    ],
)
def test_the_rate_of_each_step(optim, rates):
    built = optimizer.build(Config(optim=optim, train=Train(max_epochs=2)), 4)
    np.testing.assert_allclose([built.rate(2.0, step) for step in range(9)], rates, rtol=1e-6, atol=1e-6)


def test_a_training_that_is_all_warm_up_is_refused_and_max_steps_ends_a_cosine():
    settings = Config(optim=Optim(schedule="cosine", warmup_steps=6), train=Train(max_epochs=2, max_steps=6))
    with pytest.raises(InputError, match=r"^config.optim.warmup_steps: must be under 6, "):
        optimizer.build(settings, 4)
    settings.train.max_steps = 0
    assert optimizer.build(settings, 4).rate(1.0, 8) == 0.0
