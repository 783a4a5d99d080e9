"""The training loss against its own definition, put together from the model's evaluation path and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_axis

from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Gaussian
from scalevae_jax.methods import objective, penalty, posterior
from scalevae_jax.methods.method import Method
from scalevae_jax.methods.objective import KeyStream, Phase

SIZES = (tiny.VOCABULARY, tiny.EMBEDDING, tiny.HIDDEN, tiny.LATENT)
F_BAR = np.float32([0.5, 1.5, 3.0])
TRAINING = Phase(np.float32(0.4), np.int32(2), train=True)


def _model(dropout):
    return Model(Encoder(*SIZES), Decoder(*SIZES, dropout_words=dropout, dropout_outputs=dropout))


def _scaled(**slots):
    """In epoch 2 the factor is f_bar, so that q and q_hat differ by a known one; the rate is not KL(q || N(0, I))."""
    return Method(posterior=posterior.scale(0.7, 1), rate=penalty.matched_rate, **slots)


def _state(method):
    return method.posterior.init(tiny.LATENT, 2)._replace(f_bar=F_BAR)


def _keys(key, rows, *streams):
    """A row's key is the run's, folded with its place; each stream folds further."""
    keys = [jax.random.fold_in(key, row) for row in rows]
    for stream in streams:
        keys = [jax.random.fold_in(key, stream) for key in keys]
    return jnp.stack(keys)


def _noise(key, rows, *streams):
    return np.stack([jax.random.normal(key, (tiny.LATENT,)) for key in _keys(key, rows, *streams)])


def _nll(model, params, q, batch, noise, dropout=None):
    """-log p(x | f mu + s noise) of each row in nats: with dropout by the path of training, else by evaluation's."""

    @jax.jit
    def nll(params, z, batch):
        if dropout is not None:
            return model.weighted_nll(params, z, batch, batch.mask, dropout)[1]
        words = model.decode(params, "project", batch.inputs.T)
        return -model.decode(params, "log_likelihood", z, words, batch)

    return np.float64(nll(params, np.float32(F_BAR * q.mean + np.exp(0.5 * q.logvar) * noise), batch))


def _matched(q):
    """KL(N(f mu, s2) || N(0, f^2))."""
    return tiny.kl_dims(Gaussian(q.mean, q.logvar - 2 * np.log(F_BAR)))


def test_every_use_of_a_key_has_a_stream_of_its_own_and_keeps_it():
    """A run that was stopped must go on with the draws it would have had."""
    streams = {"NOISE": 0, "DROPOUT": 1, "POSTERIOR": 2, "REFINE": 3, "SAMPLE": 4, "PENALTY": 5}
    assert {stream.name: int(stream) for stream in KeyStream} == streams


def test_evaluation_is_at_kl_weight_one_without_training():
    assert (float(objective.EVALUATION.kl_weight), objective.EVALUATION.train) == (1.0, False)


@pytest.mark.parametrize(("real", "rate"), [(0, 0.0), (1, 0.0), (6, 0.0), (6, 0.5)])
def test_the_loss_is_rec_of_q_hat_plus_the_weighted_rate_over_the_real_rows(real, rate, rng):
    model, method, batch, key = _model(rate), _scaled(), tiny.make_batch(rng, real), jax.random.key(3)
    params = tiny.random_params(model, rng, 0.9)

    def loss(params, batch):
        return objective.objective(params, model, method, _state(method), batch, key, TRAINING)

    total, (_, sums) = on_axis(jax.jit(loss))(params, batch)
    q = jax.jit(model.encode)(params, batch)
    dropout = _keys(key, batch.row, KeyStream.DROPOUT) if rate else None
    nll = _nll(model, params, q, batch, _noise(key, batch.row, KeyStream.NOISE), dropout)
    rec, loss = nll[:real].sum(), nll[:real].sum() + 0.4 * _matched(q)[:real].sum()
    np.testing.assert_allclose(total, loss / max(real, 1), rtol=1e-5)
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(sums.rec, rec, rtol=1e-5)
    np.testing.assert_allclose(sums.kl, tiny.kl_dims(q)[:real].sum(), rtol=1e-5)  # KL(q || N(0, I)), whatever is paid
    assert (sums.sentences, sums.tokens) == (real, np.sum(batch.lengths[:real] - 1))


@pytest.mark.parametrize("train", [True, False])
def test_a_refinement_step_sees_the_loss_of_a_posterior_with_its_own_draws(rng, train):
    """The refinement here writes the negative ELBO of another q at step 7 into the mean, where it can be read. It is a
    sum over the real sentences, divided by the constant 32: a sentence's step does not depend on the batch."""
    other = Gaussian(*np.float32(rng.normal(size=(2, tiny.ROWS, tiny.LATENT))))

    def read(negative_elbo, posteriors, decoder):
        value = negative_elbo(other, 7, decoder)
        return posteriors._replace(q=posteriors.q._replace(mean=jnp.full_like(posteriors.q.mean, value)))

    model, method, batch = _model(0.5), _scaled(refine=read), tiny.make_batch(rng)
    params, key = tiny.random_params(model, rng, 0.9), jax.random.key(11)

    def infer(params, batch):
        keys, phase = objective.row_keys(key, batch.row), TRAINING._replace(train=train)
        return objective.infer(model, method, params, _state(method), batch, keys, phase)[0].q

    seen = on_axis(jax.jit(infer))(params, batch)
    noise = _noise(key, batch.row, KeyStream.REFINE, 7, KeyStream.NOISE)
    dropout = _keys(key, batch.row, KeyStream.REFINE, 7, KeyStream.DROPOUT) if train else None
    paid = _nll(model, params, other, batch, noise, dropout) + 0.4 * _matched(other).sum(-1)
    np.testing.assert_allclose(seen.mean, np.sum(paid[batch.weight > 0]) / 32, rtol=1e-5)
    np.testing.assert_allclose(seen.logvar, model.encode(params, batch).logvar, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_a_transform_and_a_penalty_see_the_phase_and_draw_from_their_own_streams(rng, train):
    """The transform here writes all that it sees into its state; the penalty is the sum of its noise."""

    def noise(context):
        return jax.vmap(lambda key: jax.random.normal(key, (tiny.LATENT,)))(context.keys)

    def apply(params, state, posteriors, context, train):
        return posteriors, (noise(context), context.kl_weight, context.epoch, context.weight, jnp.bool_(train))

    model, batch, key = _model(0.0), tiny.make_batch(rng), jax.random.key(2)
    method = Method(
        posterior=posterior.PosteriorTransform(apply=apply),
        penalty=lambda rate, posteriors, context: jnp.sum(noise(context)),
    )

    def loss(params, batch):
        phase = TRAINING._replace(train=train)
        return objective.objective(params, model, method, (), batch, key, phase)

    total, (seen, sums) = on_axis(jax.jit(loss))(tiny.random_params(model, rng, 0.9), batch)
    expected = _noise(key, batch.row, KeyStream.POSTERIOR), TRAINING.kl_weight, TRAINING.epoch, batch.weight, train
    jax.tree.map(np.testing.assert_array_equal, seen, expected)
    drawn = _noise(key, batch.row, KeyStream.PENALTY).sum()
    np.testing.assert_allclose(total - sums.rec / sums.sentences, drawn, rtol=1e-4, atol=1e-4)
