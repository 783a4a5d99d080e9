"""The four estimates of NLL where log p(x) is known exactly: Scale-VAE on a linear-Gaussian model.

  python studies/linear_gaussian.py [--picture docs/images/estimates.svg]

x in R^12 comes from a Gaussian of six factors, so its entropy is known. The encoder is mu = A x with a variance of its
own, the decoder W z with isotropic noise, and both minimise the population value of Eq. 7, in closed form, to its
optimum, with f = des_std / Std[mu] recomputed at each step as a constant. Exact -log p(x) under each prior is then a
Gaussian density, and the package's estimators are set beside it, 500 draws for each of 1,500 test points. Prints a
table, nats a point.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.types import Gaussian, Posteriors
from scalevae_jax.inference import metrics

DIMS, LATENT, NOISE = 12, 6, 0.5
DES_STDS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 2.0)


class Linear(NamedTuple):
    """Encoder and decoder; float64."""

    encoder: jax.Array  # [dims, latent]
    logvar: jax.Array  # [latent], of q
    decoder: jax.Array  # [latent, dims]
    log_noise: jax.Array  # log Std of p(x|z)


def population(seed: int = 0) -> np.ndarray:
    """Covariance of the data."""
    loadings = np.random.default_rng(seed).normal(size=(DIMS, LATENT))
    return loadings @ loadings.T + NOISE**2 * np.eye(DIMS)


def factor(model: Linear, covariance: np.ndarray, des_std: float) -> jax.Array:
    """f = des_std / Std[mu] over the population (Eq. 3)."""
    return des_std / jnp.sqrt(jnp.diagonal(model.encoder.T @ covariance @ model.encoder))


def objective(model: Linear, covariance: np.ndarray, des_std: float) -> jax.Array:
    """Eq. 7 over the population, in closed form, with f a constant of the step."""
    f = jax.lax.stop_gradient(factor(model, covariance, des_std))
    means = model.encoder.T @ covariance @ model.encoder  # covariance of mu
    z = f[:, None] * means * f + jnp.diag(jnp.exp(model.logvar))
    cross = covariance @ model.encoder * f
    squares = jnp.trace(covariance) - 2 * jnp.trace(cross @ model.decoder)
    squares += jnp.trace(model.decoder.T @ z @ model.decoder)
    rec = 0.5 * squares * jnp.exp(-2 * model.log_noise) + DIMS * (model.log_noise + 0.5 * gaussian.LOG_2PI)
    kl = 0.5 * jnp.sum(jnp.diagonal(means) + jnp.exp(model.logvar) - 1 - model.logvar)
    return rec + kl


def fit(des_std: float, covariance: np.ndarray, steps: int = 20_000) -> Linear:
    """The optimum, by Adam with a falling rate."""
    rng = np.random.default_rng(1)
    start = Linear(
        jnp.asarray(0.1 * rng.normal(size=(DIMS, LATENT))),
        jnp.zeros(LATENT),
        jnp.asarray(0.1 * rng.normal(size=(LATENT, DIMS))),
        jnp.zeros(()),
    )
    adam = optax.adam(optax.cosine_decay_schedule(0.02, steps))

    def one(carry, _):
        model, state = carry
        updates, state = adam.update(jax.grad(objective)(model, covariance, des_std), state)
        return (optax.apply_updates(model, updates), state), None

    (model, _), _ = jax.jit(lambda: jax.lax.scan(one, (start, adam.init(start)), length=steps))()
    return model


def exact(model: Linear, prior: Gaussian, x: np.ndarray) -> np.ndarray:
    """-log p(x) of each point under this prior of what the decoder reads."""
    decoder = np.asarray(model.decoder)
    noise = np.exp(2 * float(model.log_noise)) * np.eye(DIMS)
    covariance = decoder.T @ np.diag(np.exp(np.float64(prior.logvar))) @ decoder + noise
    return -stats.multivariate_normal.logpdf(x, np.float64(prior.mean) @ decoder, covariance)


def estimates(
    model: Linear, posteriors: Posteriors, fitted: Gaussian, x: np.ndarray, samples: int, seed: int = 2
) -> dict[str, np.ndarray]:
    """Each estimate of each point by the package's own weights, float32."""
    decoder, log_noise = np.float32(model.decoder), np.float32(model.log_noise)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        noise = jax.random.normal(key, posteriors.q.mean.shape)
        z = gaussian.sample(posteriors.q_hat, noise)
        squares = jnp.sum(jnp.square((x - z @ decoder) * jnp.exp(-log_noise)), axis=-1)
        log_likelihood = -0.5 * squares - DIMS * (log_noise + 0.5 * gaussian.LOG_2PI)
        priors = {"nll_fitted_prior": mixture.diagonal(fitted)}
        return metrics.log_weights(posteriors, noise, log_likelihood, priors)

    @jax.jit
    def weigh(keys: jax.Array) -> dict[str, jax.Array]:
        weights = jax.lax.map(one, keys, batch_size=50)
        return {key: jnp.log(samples) - jax.nn.logsumexp(w, axis=0) for key, w in weights.items()}

    return {key: np.float64(nll) for key, nll in weigh(jax.random.split(jax.random.key(seed), samples)).items()}


def study(des_std: float, points: int = 1500, samples: int = 500, steps: int = 20_000) -> dict[str, dict[str, float]]:
    """For each estimate its mean (`estimate`), the standard error of (estimate - exact) over the points, and the
    `exact` value that it bounds (`nll_paper` bounds none); under `data`, the `entropy` of the population, and -log p of
    the test points under the population itself."""
    covariance = population()
    with jax.enable_x64(True):
        model = jax.tree.map(np.asarray, fit(des_std, covariance, steps))
        f = np.asarray(factor(model, covariance, des_std))
    rng = np.random.default_rng(3)
    train, x = (rng.multivariate_normal(np.zeros(DIMS), covariance, size=points) for _ in range(2))

    def posteriors(of: np.ndarray) -> Posteriors:
        mean = np.float32(of @ model.encoder)
        return Posteriors(Gaussian(mean, np.broadcast_to(np.float32(model.logvar), mean.shape)), np.float32(f))

    fitted = gaussian.mixture_moments(posteriors(train).q_hat)
    measured = estimates(model, posteriors(x), fitted, np.float32(x), samples)
    priors = {
        "nll": Gaussian(np.zeros(LATENT), 2 * np.log(f)),
        "nll_unit_prior": Gaussian(np.zeros(LATENT), np.zeros(LATENT)),
        "nll_fitted_prior": fitted,
    }
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    own = -stats.multivariate_normal.logpdf(x, np.zeros(DIMS), covariance)
    out = {"data": {"entropy": float(entropy), "test_points": float(own.mean()), "factor": float(np.median(f))}}
    for name, nll in measured.items():
        out[name] = {"estimate": float(nll.mean())}
        if name in priors:
            known = exact(model, priors[name], x)
            error = float(np.std(nll - known, ddof=1) / np.sqrt(points))
            out[name] |= {"exact": float(known.mean()), "error": error}
    return out


def picture(rows: dict[float, dict], path: Path) -> None:
    """Exact values and estimates against des_std."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "estimates"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    at = list(rows)
    colours = {"nll": "C0", "nll_unit_prior": "C1", "nll_fitted_prior": "C2", "nll_paper": "C3"}
    for name, colour in colours.items():
        axes.plot(at, [row[name]["estimate"] for row in rows.values()], "o", color=colour, label=name)
        if name != "nll_paper":
            axes.plot(at, [row[name]["exact"] for row in rows.values()], "-", color=colour)
    axes.plot(at, [row["nll_paper"]["estimate"] for row in rows.values()], ":", color="C3")
    axes.axhline(
        next(iter(rows.values()))["data"]["test_points"], color="black", lw=1, label="the data's own -log p(x)"
    )
    title = "Estimates (points) and exact values (solid lines)"
    axes.set(xlabel="des_std (units of z)", ylabel="nats a point", title=title)
    axes.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="file for the picture, .svg")
    parser.add_argument("--samples", type=int, default=500, help="draws a point")
    arguments = parser.parse_args()
    rows = {des_std: study(des_std, samples=arguments.samples) for des_std in DES_STDS}
    data = next(iter(rows.values()))["data"]
    print(f"entropy of the data {data['entropy']:.3f}, of the test points {data['test_points']:.3f} nats a point")
    bounds = ("nll", "nll_unit_prior", "nll_fitted_prior")
    print("| des_std | f, median | " + " | ".join(f"exact | {name} (error)" for name in bounds) + " | nll_paper |")
    print("|---" * 9 + "|")
    for des_std, row in rows.items():
        cells = [
            f"{row[name]['exact']:.3f} | {row[name]['estimate']:.3f} ({row[name]['error']:.3f})" for name in bounds
        ]
        print(f"| {des_std} | {row['data']['factor']:.2f} | {' | '.join(cells)} | {row['nll_paper']['estimate']:.3f} |")
    if arguments.picture:
        picture(rows, arguments.picture)
        print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
