"""The protocol that every method keeps, and that every hyperparameter does something."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny

from scalevae_jax.methods import objective, schedule
from scalevae_jax.methods.method import METHODS, Method, hyperparameters
from scalevae_jax.runtime import devices
from scalevae_jax.training import steps

ALL_METHODS = [
    "lstm_lm",
    "vae",
    "cyclical",
    "beta_vae",
    "free_bits",
    "delta_vae",
    "sa_vae",
    "skip_vae",
    "agg_vae",
    "mae",
    "bn_vae",
    "du_vae",
    "scale_vae",
    "scale_vae_matched",
]


@pytest.fixture(scope="module", params=ALL_METHODS)
def name(request) -> str:
    """Of the module, so that the tests of one method follow each other and share what they compile."""
    return request.param


def test_the_list_of_methods_is_whole():
    assert list(METHODS) == ALL_METHODS


def test_every_method_is_a_record_with_a_documented_constructor(name):
    assert isinstance(METHODS[name](), Method)
    assert METHODS[name].__doc__
    for parameter in hyperparameters(name).values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert type(parameter.default) is parameter.annotation


def test_one_device_and_four_give_the_same_numbers(name, rng):
    method = tiny.make_method(name)
    batches = [tiny.make_batch(rng, real) for real in (8, 6, 7, 5)]
    one, loss = tiny.train(method, batches, tiny.on_mesh(method, devices=1))
    update = steps.device_update(tiny.make_model(method), method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)
    mapped = devices.pmap_over_devices(update, (None, 0))

    def on_four(state, batch):
        return mapped(devices.replicate(state), devices.shard(batch))

    four, loss_of_four = tiny.train(method, batches, on_four)
    np.testing.assert_allclose(loss_of_four, loss, rtol=1e-5)
    for part in ("params", "method_state"):
        np.testing.assert_allclose(tiny.flat(getattr(four, part)), tiny.flat(getattr(one, part)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["scale_vae", "mae"])
def test_the_same_functions_run_under_shard_map(name, rng):
    method = tiny.make_method(name)
    batches = [tiny.make_batch(rng) for _ in range(2)]
    one, _ = tiny.train(method, batches, tiny.on_mesh(method, devices=1))
    four, _ = tiny.train(method, batches, tiny.on_mesh(method, devices=4))
    np.testing.assert_allclose(tiny.flat(four.params), tiny.flat(one.params), rtol=1e-5, atol=1e-5)


def test_padding_rows_and_padding_tokens_change_nothing(name, rng):
    method = tiny.make_method(name)
    batch = tiny.make_batch(rng, real=6)
    other = tiny.make_batch(rng, real=6)
    fill = batch.weight == 0
    refilled = jax.tree.map(lambda a, b: np.where(fill.reshape(-1, *[1] * (a.ndim - 1)), b, a), batch, other)
    longer = refilled._replace(tokens=np.pad(refilled.tokens, [(0, 0), (0, 2)]))
    step = tiny.on_mesh(method, devices=1)
    expected, _ = tiny.train(method, [batch], step)
    for same in (refilled, longer):
        state, _ = tiny.train(method, [same], step)
        np.testing.assert_allclose(tiny.flat(state.params), tiny.flat(expected.params), rtol=1e-5, atol=1e-6)


def test_evaluation_is_of_each_sentence_alone_and_of_the_methods_own_posterior(name, rng):
    """No batch statistic and no dropout is left, except in SVI, whose step is scaled by the batch (Kim et al.)."""
    if name == "sa_vae":
        pytest.skip("SVI's step is of the batch mean, by its authors' convention")
    method = tiny.make_method(name)
    state, batch = tiny.make_state(method), tiny.make_batch(rng, real=8)
    model = tiny.make_model(method)

    def infer(batch):
        keys = objective.row_keys(state.key, batch.row)
        posteriors, _ = objective.infer(model, method, state.params, state.method_state, batch, keys)
        return posteriors.q_hat

    on_one = jax.vmap(infer, axis_name="data")
    whole = on_one(jax.tree.map(lambda x: x[None], batch))
    first = on_one(jax.tree.map(lambda x: x[None, :1], batch))
    for all_rows, one_row in zip(whole, first, strict=True):
        np.testing.assert_allclose(one_row[0, 0], all_rows[0, 0], rtol=1e-5, atol=1e-6)


# the settings in which a hyperparameter can be seen within three epochs: of a method, or of one hyperparameter
BASES = {
    "cyclical": {"cycle_epochs": 1.5, "cycles": 2, "kl_start": 0.3},
    "free_bits": {"threshold": 2e-4},
    "du_vae": {"warm_up": 1.0},
    "svi_clip": {"svi_clip": 0.1},
}
OTHERS = {
    "warm_up": 3.0,
    "kl_start": 0.5,
    "cycle_epochs": 1.7,
    "ratio": 0.9,
    "cycles": 1,
    "beta": 0.9,
    "threshold": 2.0,
    "fb_mode": "total",
    "delta": 0.4,
    "svi_steps": 2,
    "svi_learning_rate": 0.4,
    "svi_momentum": 0.1,
    "svi_clip": 0.001,
    "first_order": True,
    "inner_steps": 1,
    "window": 1,
    "diversity": 3.0,
    "smoothness": 0.9,
    "gamma": 1.3,
    "shift": 0.4,
    "train_shift": False,
    "encoder_init": None,
    "decoder_init": None,
    "keep": 0.3,
    "alpha": 6.0,
    "des_std": 1.4,
    "f_epo": 2,
    "std_ddof": 0,
    "factor_average": "population",
    "factor_min_batch": 7,
    "stop_gradient_factor": True,
}
FORWARDED = "scale_vae_matched"  # hands all that it takes to scale_vae
CASES = [(name, key) for name in ALL_METHODS if name != FORWARDED for key in hyperparameters(name)]


@functools.cache
def final(name: str, hyper: tuple) -> np.ndarray:
    """Encoder and decoder after three epochs of two steps."""
    rng = np.random.default_rng(5)
    batches = [tiny.make_batch(rng, real) for real in (8, 6, 8, 5, 7, 8)]
    method = tiny.make_method(name, **dict(hyper))
    step, inner = (tiny.on_mesh(method, devices=1, move=move) for move in ("joint", "encoder"))
    state = tiny.make_state(method)
    for i, batch in enumerate(batches):
        taken = steps.Steps(joint=step, several=None, encoder=inner, decoder=step)
        state, _ = method.plan.step(taken, state, batch, lambda k: batches[k % len(batches)])
        state = tiny.advance(state, method, epoch_done=i % 2 == 1)
    return tiny.flat({part: state.params[part] for part in ("encoder", "decoder")})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_hyperparameter_changes_training(name, key):
    base = BASES.get(name, {}) | BASES.get(key, {})
    other = OTHERS[key]
    if key.endswith("_init"):
        other = "torch" if hyperparameters(name)[key].default == "paper" else "paper"
    changed = final(name, tuple((base | {key: other}).items()))
    assert np.any(final(name, tuple(base.items())) != changed)


def test_an_ablation_is_a_replace(rng):
    annealed = tiny.make_method("scale_vae")
    plain = dataclasses.replace(annealed, kl_weight=schedule.constant(1.0))
    batch = tiny.make_batch(rng)
    _, with_annealing = tiny.train(annealed, [batch], tiny.on_mesh(annealed, devices=1))
    _, without = tiny.train(plain, [batch], tiny.on_mesh(plain, devices=1))
    assert without[0] > with_annealing[0]


def test_vae_is_scale_vae_whose_factor_stays_one(rng):
    """A batch too small for a factor leaves f at 1, and Scale-VAE is the VAE."""
    vae, scaled = tiny.make_method("vae"), tiny.make_method("scale_vae", factor_min_batch=100, encoder_init="paper")
    batches = [tiny.make_batch(rng) for _ in range(4)]
    expected, _ = tiny.train(vae, batches, tiny.on_mesh(vae, devices=1))
    state, _ = tiny.train(scaled, batches, tiny.on_mesh(scaled, devices=1))
    np.testing.assert_allclose(tiny.flat(state.params), tiny.flat(expected.params), rtol=1e-6, atol=1e-7)
