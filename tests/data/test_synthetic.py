"""The generator of section 4.4 and the distribution of its sentences (studies/synthetic_evidence.py)."""

from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import synthetic_evidence

from scalevae_jax.data import synthetic

WORDS, LENGTH = 3, 2
EVERY = np.array(list(product(range(WORDS), repeat=LENGTH)))


@pytest.fixture(scope="module")
def tiny():
    return synthetic.generator(seed=1, words=WORDS, hidden=4, units=5)


def _by_hand(parameters, tokens, z):
    """log p(x|z) of one sentence in float64, word by word."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters)
    c = z @ p.start + p.start_bias
    h, word, total = np.tanh(c), -1, 0.0
    for token in tokens:
        i, f, g, o = np.split(p.embedding[word] @ p.kernel + h @ p.recurrent + p.bias, 4)
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
        h = scipy.special.expit(o) * np.tanh(c)
        logits = np.concatenate([h, z]) @ p.output
        total += logits[token] - scipy.special.logsumexp(logits)
        word = token
    return total


def test_the_likelihood_is_that_of_the_lstm_written_out(tiny, rng):
    z = rng.normal(size=(len(EVERY), 2))
    expected = [_by_hand(tiny, *pair) for pair in zip(EVERY, z, strict=True)]
    got = synthetic_evidence.log_likelihood(tiny, EVERY, z.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_prior_is_the_mixture_of_four_gaussians(rng):
    z = rng.normal(scale=3, size=(20, 2)).astype(np.float32)
    expected = np.log(np.mean([scipy.stats.multivariate_normal(mean).pdf(z) for mean in synthetic.MEANS], axis=0))
    np.testing.assert_allclose(synthetic_evidence.log_prior(z), expected, rtol=1e-5)


def test_the_evidence_of_all_sentences_adds_up_to_one(tiny):
    evidence = synthetic_evidence.log_evidence(tiny, EVERY, 7.0, 0.25)
    np.testing.assert_allclose(np.sum(np.exp(evidence)), 1, atol=1e-4)


def test_draws_follow_the_evidence_and_the_mixture(tiny):
    rows = 20_000
    drawn = synthetic.sample(tiny, jax.random.key(2), rows, LENGTH)
    counts = np.bincount(drawn.tokens @ np.array([WORDS, 1]), minlength=len(EVERY))
    expected = rows * np.exp(np.asarray(synthetic_evidence.log_evidence(tiny, EVERY, 7.0, 0.25), np.float64))
    assert np.sum((counts - expected) ** 2 / expected) < scipy.stats.chi2(len(EVERY) - 1).ppf(0.9999)
    noise = drawn.z - synthetic.MEANS[drawn.component]
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.05)
    np.testing.assert_allclose(np.bincount(drawn.component) / rows, 0.25, atol=0.02)
    # words given z, not given another z
    likelihood = synthetic_evidence.log_likelihood(tiny, drawn.tokens, drawn.z)
    assert jnp.mean(likelihood) > jnp.mean(synthetic_evidence.log_likelihood(tiny, drawn.tokens, drawn.z[::-1])) + 0.5


def test_sizes_and_ranges_are_the_papers():
    made = synthetic.generator()
    assert [x.shape for x in made] == [(1001, 100), (100, 400), (100, 400), (400,), (2, 100), (100,), (102, 1000)]
    assert 4.9 < np.abs(made.output[100:]).max() <= 5
    assert all(0.9 < np.abs(x).max() <= 1 for x in (*made[:-1], made.output[:100]))


def test_sentences_seldom_come_again():
    """With all of the vocabulary layer in [-5, 5] there were 908 of them, and 5.3 nats of words given z."""
    drawn = synthetic.splits()
    known = set(map(bytes, drawn["train"].tokens))
    assert sum(row in known for row in map(bytes, drawn["valid"].tokens)) == pytest.approx(21, abs=5)
    few = drawn["valid"]._replace(tokens=drawn["valid"].tokens[:500], z=drawn["valid"].z[:500])
    given_z = synthetic_evidence.log_likelihood(synthetic.generator(), few.tokens, few.z)
    assert -jnp.mean(given_z) == pytest.approx(21.8, abs=0.5)


def test_the_seed_decides(tiny):
    again = synthetic.generator(seed=1, words=WORDS, hidden=4, units=5)
    chex.assert_trees_all_equal(tiny, again)
    assert not np.array_equal(tiny.output, synthetic.generator(seed=2, words=WORDS, hidden=4, units=5).output)


def test_words_and_numbers_of_words_are_inverse():
    assert synthetic.words(np.array([0, 17, 999])) == ["w0", "w17", "w999"]
    assert synthetic_evidence.tokens(["w0", "w17", "w999"]) == [0, 17, 999]
