"""The protocol that every method keeps, and that every hyperparameter does something."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_axis

from scalevae_jax.config import Config, MethodConfig, Network, Train, build_method, build_model, with_defaults
from scalevae_jax.core.types import Gaussian, Inject, Posteriors, StepContext
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import METHODS, Method, hyperparameters

TRAINING = objective.Phase(np.float32(1), np.int32(1), train=True)


@functools.cache
def _compiled(method: Method):
    """(params, state, batch) -> loss, gradients and next state of training; the posteriors of evaluation."""
    model, key = tiny.make_model(method), jax.random.key(7)

    def run(params, state, batch):
        def loss(params):
            return objective.objective(params, model, method, state, batch, key, TRAINING)

        (value, (after, _)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        posteriors, _ = objective.infer(model, method, params, state, batch, objective.row_keys(key, batch.row))
        return (value, gradients, after), posteriors.q_hat

    return on_axis(jax.jit(run))


def _replace_rows(batch, other, rows):
    """The batch with the tokens and lengths of another one in the marked rows."""
    tokens = np.where(rows[:, None], other.tokens, batch.tokens)
    return batch._replace(tokens=tokens, lengths=np.where(rows, other.lengths, batch.lengths))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_protocol(name, rng):
    assert METHODS[name].__doc__
    for parameter in hyperparameters(name).values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert type(parameter.default) is parameter.annotation
    method = tiny.make_method(name)
    start, batch, other = tiny.make_state(method), tiny.make_batch(rng), tiny.make_batch(rng)
    run = functools.partial(_compiled(method), start.params, start.method_state)
    trained, evaluated = run(batch)
    assert np.all(np.isfinite(tiny.flat((trained, evaluated))))
    # a state keeps its shape, so that a step is compiled once
    after = method.posterior.end_epoch(trained[2])
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, start.method_state)
    assert jax.tree.structure(after) == jax.tree.structure(start.method_state)
    # neither rows of weight 0 nor tokens after the last count
    filled = _replace_rows(batch, other, batch.weight == 0)
    words = rng.integers(4, tiny.VOCABULARY, batch.tokens.shape)
    filled = filled._replace(tokens=np.where(np.arange(tiny.TIME) < filled.lengths[:, None], filled.tokens, words))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), run(filled)[0], trained)
    # evaluation is of each sentence alone: no batch statistic is left
    if name != "sa_vae":  # SVI clips the gradient of a whole batch, by its authors' convention
        _, among_others = run(_replace_rows(batch, other, np.arange(tiny.ROWS) > 0))
        np.testing.assert_allclose(among_others.mean[0], evaluated.mean[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(among_others.logvar[0], evaluated.logvar[0], rtol=1e-5, atol=1e-6)


def test_vae_is_scale_vae_whose_factor_stays_one(rng):
    """A batch too small for a factor leaves f at 1, and Eq. 7 is Eq. 1."""
    vae, scaled = tiny.make_method("vae"), tiny.make_method("scale_vae", factor_min_batch=100)
    params, batch = tiny.make_state(vae).params, tiny.make_batch(rng)
    (loss, gradients, _), _ = _compiled(vae)(params, (), batch)
    (same_loss, same_gradients, _), _ = _compiled(scaled)(params, tiny.make_state(scaled).method_state, batch)
    np.testing.assert_allclose(same_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(tiny.flat(same_gradients), tiny.flat(gradients), rtol=1e-5, atol=1e-7)


def test_equal_configurations_give_one_method():
    config = Config(method=MethodConfig(name="scale_vae", f_epo=5, des_std=0.9))
    same = Config(method=MethodConfig(name="scale_vae", des_std=0.9, f_epo=5))
    assert build_method(config) is build_method(same) is build_method(with_defaults(config))
    assert build_method(config) is not build_method(Config())
    assert hash(build_method(config)) != hash(build_method(Config()))


def test_the_network_is_built_as_the_method_says():
    model = build_model(Config(), METHODS["scale_vae"](), words=50)
    assert (model.latent, model.encoder.vocabulary, model.decoder.hidden) == (32, 50, 1024)
    assert build_model(Config(), METHODS["skip_vae"](), words=50).decoder.inject == ~Inject.NONE
    assert build_model(Config(), METHODS["lstm_lm"](), words=50).latent == 0


@pytest.mark.parametrize("name", METHODS)
def test_initial_values_are_the_configurations_for_every_method_and_else_the_methods(name):
    defaults = {"du_vae": ("torch", "torch")}
    torch = ("scale_vae", "scale_vae_matched", "scale_vae_fixed", "minimum_rate")
    defaults |= dict.fromkeys(torch, ("torch", "paper"))

    def kinds(**network):
        config = with_defaults(Config(model=Network(**network), method=MethodConfig(name=name)))
        model = build_model(config, build_method(config), words=50)
        built = (model.encoder.init_kind, model.decoder.init_kind)
        assert (config.model.encoder_init, config.model.decoder_init) == built  # config.json says how the run began
        return built

    assert kinds() == defaults.get(name, ("paper", "paper"))
    assert kinds(encoder_init="paper", decoder_init="paper_scaled") == ("paper", "paper_scaled")


def test_cycles_follow_from_the_length_of_training_unless_they_are_given():
    """Fu et al. 2019: four cycles over the whole training, the first half of each rising."""

    def weights(max_epochs, **hyperparameters):
        config = Config(train=Train(max_epochs=max_epochs), method=MethodConfig(name="cyclical", **hyperparameters))
        kl_weight = build_method(config).kl_weight
        return [float(kl_weight(jnp.float32(share * max_epochs))) for share in (0.0625, 0.125, 0.25, 0.8125, 1)]

    for max_epochs in (15, 120):
        np.testing.assert_allclose(weights(max_epochs), [0.5, 1, 1, 0.5, 1], rtol=1e-5)
    np.testing.assert_allclose(weights(16, cycle_epochs=8.0, cycles=2), [0.25, 0.5, 1, 1, 1], rtol=1e-5)
    short, long = (Config(train=Train(max_epochs=n), method=MethodConfig(name="cyclical")) for n in (15, 120))
    assert build_method(short) is not build_method(long)
    assert build_method(Config()) is build_method(Config(train=Train(max_epochs=3)))  # scale_vae does not ask for it


CASES = [(name, key) for name in METHODS for key in hyperparameters(name)]


def _other(default):
    """Another value of a hyperparameter."""
    if isinstance(default, str):
        return {"example": "total", "mean": "population"}[default]
    if isinstance(default, bool):
        return not default
    return default - 1 if isinstance(default, int) else 0.5 * default + 0.03


def _encoder_steps(plan, turn: int) -> int:
    """Those that a plan takes on a batch when the loss a token falls until a step and then rises."""
    taken = []

    def encoder(state, batch):
        taken.append(batch)
        loss = np.float32(abs(turn - len(taken)))
        return state, SimpleNamespace(sums=SimpleNamespace(loss=loss, tokens=np.float32(1)), finite=True)

    def stay(state, batch):
        return state, None

    steps = SimpleNamespace(joint=stay, encoder=encoder, decoder=stay)
    plan.step(steps, SimpleNamespace(plan=plan.init()), "batch", lambda k: k)
    return len(taken)


def _slots(method: Method) -> np.ndarray:
    """What the slots make of fixed Gaussians, gradients included: three epochs of a batch of 24 and one of 15."""
    rng, keys, latent = np.random.default_rng(5), jax.random.split(jax.random.key(0), 24), tiny.LATENT
    params, state = method.posterior.init_params(latent), method.posterior.init(latent, 2)

    def run(state, q, weight, epoch):
        context = StepContext(jnp.float32(1), epoch, weight, keys)

        def loss(q):
            before = Posteriors(q, jnp.ones(latent))
            posteriors, after = method.posterior.apply(params, state, before, context, True)
            posteriors = method.refine(lambda q, k, _: jnp.sum((q.mean - k) ** 2 + q.logvar**2), posteriors, {})
            read = jnp.sum(jnp.sin(posteriors.q_hat.mean) + jnp.cos(posteriors.q_hat.logvar))
            return read + method.penalty(method.rate(posteriors), posteriors, context._replace(state=after)), after

        return jax.value_and_grad(loss, has_aux=True)(q)

    run, outputs = on_axis(jax.jit(run)), [params]
    for epoch in (1, 2, 3):
        for real in (24, 15):
            q = Gaussian(*np.float32(rng.normal(size=(2, 24, latent))))
            (value, state), gradient = run(state, q, np.float32(np.arange(24) < real), np.int32(epoch))
            outputs += [value, gradient]
        state = method.posterior.end_epoch(state)
    weights = [method.kl_weight(jnp.float32(epoch)) for epoch in np.linspace(0.1, 45, 60)]
    taken = [_encoder_steps(method.plan, turn) for turn in (60, 1000)]
    return tiny.flat([outputs, weights, taken])


@functools.cache
def _default_slots(name: str) -> np.ndarray:
    return _slots(METHODS[name]())


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_hyperparameter_changes_what_a_slot_gives(name, key):
    other = _other(hyperparameters(name)[key].default)
    assert not np.array_equal(_slots(METHODS[name](**{key: other})), _default_slots(name))
