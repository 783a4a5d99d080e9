"""SVI against a plain loop, its gradient against the recursion of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis

from scalevae_jax.core.types import Gaussian, Posteriors
from scalevae_jax.methods import refine

ROWS, LATENT = 8, 3


def _random(rng):
    return Gaussian(*np.float32(rng.normal(size=(2, ROWS, LATENT)))), np.float32(rng.normal(size=(2, ROWS, LATENT)))


def _refined(svi, negative_elbo):
    """(q, targets of the objective) -> the refined q."""

    def run(q, targets):
        start = Posteriors(q, jnp.full(LATENT, 2.0))
        return svi(lambda q, k, _: negative_elbo(q, k, targets), start, {}).q

    return run


def _bowl(q, k, targets):
    """A quadratic whose minimum moves with the step."""
    return jnp.sum(2.0 * jnp.square(q.mean - targets[0] - 0.3 * k) + 0.5 * jnp.square(q.logvar - targets[1] + 0.1 * k))


def _loop(q, targets, steps, learning_rate, momentum, clip):
    """The descent into the bowl in NumPy, and how often each block was clipped."""
    values, velocities, clipped = [np.float64(q.mean), np.float64(q.logvar)], [0.0, 0.0], np.zeros(2, int)
    for k in range(steps):
        gradients = [4.0 * (values[0] - targets[0] - 0.3 * k), values[1] - targets[1] + 0.1 * k]
        for block, gradient in enumerate(gradients):
            norm = np.sqrt(np.sum(gradient**2))
            if norm > clip:
                gradient, clipped[block] = gradient * clip / norm, clipped[block] + 1
            velocities[block] = momentum * velocities[block] - gradient
            values[block] = values[block] + learning_rate * velocities[block]
    return values, clipped


def test_svi_is_momentum_with_the_two_blocks_clipped_apart(rng):
    q, targets = _random(rng)
    arguments = {"steps": 12, "learning_rate": 0.3, "momentum": 0.5, "clip": 3.0}
    expected, clipped = _loop(q, targets, **arguments)
    assert 0 < clipped[1] < clipped[0] <= 12  # both kinds of step occur, and not together
    actual = on_axis(_refined(refine.svi(**arguments), _bowl))(q, targets)
    np.testing.assert_allclose(actual.mean, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual.logvar, expected[1], rtol=1e-4, atol=1e-5)


def test_no_refinement_hands_back_the_posteriors_and_svi_keeps_the_factor(rng):
    posteriors = Posteriors(_random(rng)[0], np.full(LATENT, 2.0, np.float32))
    assert refine.none(lambda q, k, _: pytest.fail("evaluated"), posteriors, {}) is posteriors
    unmoved = on_axis(lambda p: refine.svi(0)(lambda q, k, _: jnp.sum(q.mean), p, {}))(posteriors)
    jax.tree.map(np.testing.assert_array_equal, unmoved, posteriors)
    refined = on_axis(lambda p: refine.svi(2)(lambda q, k, _: jnp.sum(q.mean), p, {}))(posteriors)
    np.testing.assert_array_equal(refined.factor, posteriors.factor)
    assert np.any(refined.q.mean != posteriors.q.mean)
    np.testing.assert_array_equal(refined.q.logvar, posteriors.q.logvar)  # a gradient of norm 0 is not divided by it
    with pytest.raises(ValueError, match="cannot take -1 steps"):
        refine.svi(-1)


def _through(svi, targets, weight):
    """q_0 -> a random linear function of q_K."""

    def value(start):
        refined = _refined(svi, _bowl)(Gaussian(start[0], start[1]), targets)
        return jnp.sum(weight[0] * refined.mean + weight[1] * refined.logvar)

    return value


def test_first_order_treats_each_steps_gradient_as_a_constant(rng):
    targets, weight, start = np.float32(rng.normal(size=(3, 2, ROWS, LATENT)))
    svis = (refine.svi(6, 0.7, 0.5, 1e6, first_order) for first_order in (True, False))
    first, exact = (on_axis(jax.jit(jax.value_and_grad(_through(svi, targets, weight))))(start) for svi in svis)
    np.testing.assert_allclose(first[0], exact[0], rtol=1e-6)
    np.testing.assert_allclose(first[1], weight, rtol=1e-6)


# The reverse pass, against the recursion of the authors' code (optim_n2n.py) with exact Hessian products. The model is
# a quadratic plus a quartic in q, coupled to a "decoder" of two arrays:
#   f = 1/2 sum a (x - t - k/10)^2 + 1/4 b sum x^4 + c sum mean logvar + sum x (M w) + 1/2 sum x^2 (N v)
# with x either block of q.


def _coupled(q, k, decoder, model):
    a, b, c, m, n, t = (model[name] for name in "abcmnt")
    blocks = zip(q, t, m, n, strict=True)
    alone = sum(
        jnp.sum(
            0.5 * a * (x - t - 0.1 * k) ** 2
            + 0.25 * b * x**4
            + x * (m @ decoder["w"])
            + 0.5 * x**2 * (n @ decoder["v"])
        )
        for x, t, m, n in blocks
    )
    return alone + c * jnp.sum(q.mean * q.logvar)


def _limited(blocks, limit):
    """Blocks scaled together to a norm of at most `limit`, and whether they were longer."""
    norm = np.sqrt(sum(np.sum(x**2) for x in blocks))
    return [x * min(1.0, limit / norm) for x in blocks], norm > limit


def _recursion(start, decoder, model, weight, steps, learning_rate, momentum, limit):
    """Gradients of sum(weight * q_K) towards q_0, w and v, and how often each of four norms was clipped."""
    a, b, c, m, n, t = (model[name] for name in "abcmnt")
    x, velocity, path, clipped = list(start), [0.0, 0.0], [], np.zeros(4, int)
    for k in range(steps):
        gradient = [
            a * (x[i] - t[i] - 0.1 * k)
            + b * x[i] ** 3
            + c * x[1 - i]
            + m[i] @ decoder["w"]
            + x[i] * (n[i] @ decoder["v"])
            for i in (0, 1)
        ]
        shares = []
        for i in (0, 1):
            (limited,), longer = _limited([gradient[i]], limit)
            shares.append(limit / np.linalg.norm(gradient[i]) if longer else 1.0)
            velocity[i] = momentum * velocity[i] - limited
            clipped[i] += longer
        path.append((list(x), shares))
        x = [x[i] + learning_rate * velocity[i] for i in (0, 1)]
    gx, p = list(weight), [np.zeros_like(weight[0]) for _ in (0, 1)]
    towards = {name: np.zeros_like(value) for name, value in decoder.items()}
    for at, shares in reversed(path):
        p = [p[i] + learning_rate * gx[i] for i in (0, 1)]
        moved = [shares[i] * p[i] for i in (0, 1)]  # the forward clip's coefficients are constants
        hessian = [(a + 3 * b * at[i] ** 2 + n[i] @ decoder["v"]) * moved[i] + c * moved[1 - i] for i in (0, 1)]
        product = [
            sum(np.einsum("rl,rlw->w", moved[i], m[i]) for i in (0, 1)),
            sum(np.einsum("rl,rlv->v", moved[i] * at[i], n[i]) for i in (0, 1)),
        ]
        product, longer = _limited(product, limit)
        clipped[2] += longer
        towards["w"], towards["v"] = towards["w"] - product[0], towards["v"] - product[1]
        gx, longer = _limited([gx[i] - hessian[i] for i in (0, 1)], limit)
        clipped[3] += longer
        p = [momentum * p[i] for i in (0, 1)]
    return gx, towards, clipped


@pytest.mark.parametrize(("limit", "some"), [(1e6, False), (4.0, True)])
def test_the_reverse_pass_is_the_authors_recursion_with_exact_hessian_products(limit, some):
    steps, learning_rate, momentum, rng = 8, 0.3, 0.5, np.random.default_rng(0)
    start, weight = rng.normal(size=(2, 2, 4, LATENT))
    model = {"a": 0.3, "b": 0.1, "c": 0.2, "t": rng.normal(size=(2, 4, LATENT))}
    model |= {name: rng.normal(size=(2, 4, LATENT, 5)) for name in "mn"}
    decoder = {name: rng.normal(size=5) for name in "wv"}
    gx, towards, clipped = _recursion(start, decoder, model, weight, steps, learning_rate, momentum, limit)
    assert np.all((clipped > 0) == some)  # each kind of clip occurs, or none
    assert not some or np.all(clipped < steps)

    def loss(start, decoder):
        elbo = lambda q, k, decoder: _coupled(q, k, decoder, model)  # noqa: E731
        svi = refine.svi(steps, learning_rate, momentum, limit)
        refined = svi(elbo, Posteriors(Gaussian(start[0], start[1]), jnp.ones(LATENT)), decoder).q
        return jnp.sum(weight[0] * refined.mean + weight[1] * refined.logvar)

    with jax.enable_x64(True):
        gradient, parameters = on_axis(jax.jit(jax.grad(loss, argnums=(0, 1))))(start, decoder)
        np.testing.assert_allclose(gradient, gx, rtol=1e-7, atol=1e-9)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9), parameters, towards)
