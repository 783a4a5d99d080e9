"""Posterior transforms: from the encoder's output to the posteriors that pay the KL and feed the decoder.

A transform is a record of pure functions with explicit state. `apply` sees the batch and returns the next state;
`end_epoch` closes the epoch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core.types import Array, Gaussian, Params, Posteriors, StepContext
from scalevae_jax.runtime import devices

State = Any
Applied = tuple[Posteriors, State]


class PosteriorTransform(NamedTuple):
    """Parameters are trained by gradient; state is carried from batch to batch and saved with the model.

    The last argument of `apply` is True in training, False in evaluation.
    """

    init_params: Callable[[int], Params] = lambda latent: {}  # of the latent dimensions
    init: Callable[[int, int], State] = lambda latent, steps: ()  # of the latent dimensions and the steps an epoch
    apply: Callable[[Params, State, Posteriors, StepContext, bool], Applied] = (
        lambda params, state, posteriors, context, train: (posteriors, state)
    )
    end_epoch: Callable[[State], State] = lambda state: state
    project: Callable[[Params], Params] = lambda params: params  # after an update: to the nearest that is allowed
    factor: Callable[[State], Float[Array, " latent"] | float] = lambda state: 1.0  # of prior draws before decoding
    own_epochs: int = 0  # last epoch in which a batch uses its own factor
    min_batch: int = 1  # a batch of fewer sentences teaches nothing about the moments
    min_kl: float = 0.0  # what the mean KL(q || N(0, I)) does not fall under by design; nats a dimension


identity = PosteriorTransform()


def chain(*links: PosteriorTransform) -> PosteriorTransform:
    """One transform after another; factors multiply."""

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        states = []
        for i, link in enumerate(links):
            posteriors, link_state = link.apply(params[str(i)], state[i], posteriors, context, train)
            states.append(link_state)
        return posteriors, tuple(states)

    return PosteriorTransform(
        init_params=lambda latent: {str(i): link.init_params(latent) for i, link in enumerate(links)},
        init=lambda latent, steps: tuple(link.init(latent, steps) for link in links),
        apply=apply,
        project=lambda params: {str(i): link.project(params[str(i)]) for i, link in enumerate(links)},
        end_epoch=lambda state: tuple(link.end_epoch(part) for link, part in zip(links, state, strict=True)),
        factor=lambda state: math.prod(link.factor(part) for link, part in zip(links, state, strict=True)),
        own_epochs=max(link.own_epochs for link in links),
        min_batch=max(link.min_batch for link in links),
        min_kl=max(link.min_kl for link in links),
    )


class NormState(NamedTuple):
    """Running moments of mu, used in evaluation."""

    mean: Float[Array, " latent"]
    variance: Float[Array, " latent"]


def batch_norm(
    gamma: float,
    shift: float = 0.0,
    *,
    train_shift: bool = True,
    train_scale: bool = False,
    min_batch: int = 2,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> PosteriorTransform:
    """Normalise mu over the batch to standard deviation `gamma` and mean `shift` (Zhu et al. 2020; Eq. 14).

    With `train_scale` the scale is a learned vector, brought back to a root mean square of `gamma` after every update,
    as in the code of Shen et al. (2021). The moments are over the real rows of the global batch. A batch of fewer than
    `min_batch` of them trains on the running moments and leaves them as they are; the authors' code skips it.

    The variance of the normalised mean is gamma^2 Var / (Var + eps): `min_kl` holds only while Var[mu] is far over eps.
    """

    def init_params(latent: int) -> Params:
        params = {"shift": jnp.full(latent, shift, jnp.float32)} if train_shift else {}
        return params | ({"scale": jnp.full(latent, gamma, jnp.float32)} if train_scale else {})

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        mu, (mean, variance) = posteriors.q.mean, state
        if train:
            moments = devices.batch_moments(mu, context.weight)
            enough = moments.rows >= min_batch
            mean = jnp.where(enough, moments.mean, mean)
            variance = jnp.where(enough, moments.variance(ddof=0), variance)
            step = jnp.where(enough, 1 - momentum, 0.0)
            # as PyTorch's BatchNorm1d: normalise by the biased variance, keep the unbiased one for evaluation
            seen = NormState(moments.mean, moments.variance(ddof=1))
            state = jax.lax.stop_gradient(jax.tree.map(lambda old, new: old + step * (new - old), state, seen))
        scale = params["scale"] if train_scale else jnp.float32(gamma)
        offset = params["shift"] if train_shift else jnp.float32(shift)
        mu = scale * (mu - mean) * jax.lax.rsqrt(variance + eps) + offset
        return posteriors._replace(q=Gaussian(mu, posteriors.q.logvar)), state

    def project(params: Params) -> Params:
        if not train_scale:
            return params
        size = jnp.sqrt(jnp.mean(jnp.square(params["scale"])))
        return params | {"scale": params["scale"] * gamma / jnp.maximum(size, 1e-12)}

    return PosteriorTransform(
        init_params=init_params,
        init=lambda latent, steps: NormState(jnp.zeros(latent), jnp.ones(latent)),
        apply=apply,
        project=project,
        min_batch=min_batch,
        min_kl=(gamma**2 + (0.0 if train_shift else shift**2)) / 2,  # a learned shift may go to 0
    )


def variance_dropout(keep: float, alpha: float) -> PosteriorTransform:
    """A variance floor a = alpha / (2 pi e) and dropout on s2 - a, both once the KL weight is 1 (Shen et al. 2021).

    Dropout is for training alone. Whether the floor is on is state, so that a restored model keeps it.
    """
    if not 0 < keep <= 1 or not alpha > 0:
        raise ValueError(f"variance dropout keeps a share in (0, 1], over alpha > 0; got {keep} and {alpha}")
    floor = alpha / (2 * math.pi * math.e)

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        q = posteriors.q
        if train:
            state = jnp.maximum(state, (context.kl_weight >= 1).astype(jnp.float32))
        variance = jnp.exp(q.logvar)
        excess = variance
        if train:
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, keep, q.mean.shape[-1:]))
            excess = jnp.where(draw(context.keys), variance / keep, 0.0)
        logvar = jnp.where(state > 0, jnp.log(excess + floor), q.logvar)
        return posteriors._replace(q=Gaussian(q.mean, logvar)), state

    return PosteriorTransform(init=lambda latent, steps: jnp.float32(0), apply=apply)


def committed_roots(delta: float) -> tuple[float, float]:
    """The two variances v with KL(N(0, v) || N(0, 1)) = delta, where log v - v + 1 + 2 delta = 0."""
    from scipy.special import lambertw  # a tenth of every command's start, for one method

    if delta <= 0:
        raise ValueError(f"a committed rate is positive, got {delta}")
    # -v is Lambert's W of -exp(-1 - 2 delta), on either branch
    low, high = (-lambertw(-math.exp(-1 - 2 * delta), branch).real for branch in (0, -1))
    return float(low), float(high)


def committed_rate(delta: float) -> PosteriorTransform:
    """Posteriors whose KL is at least `delta` nats in each dimension, for any input (Razavi et al. 2019, Eq. 4)."""
    low, high = (math.sqrt(v) for v in committed_roots(delta))

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        # Between the roots a variance alone costs at most delta; the mean makes up the rest, and relu(a) / 2 on top.
        a, b = posteriors.q
        std = low + (high - low) * jnp.maximum(jax.nn.sigmoid(b), 1 / 50)
        variance = jnp.square(std)
        mean = jnp.sqrt(2 * delta + 1 + jnp.log(variance) - variance + jnp.maximum(a, 0.0) + 1e-6)
        return posteriors._replace(q=Gaussian(mean, jnp.log(variance))), state

    return PosteriorTransform(apply=apply, min_kl=delta)


class FactorAverage(NamedTuple):
    """One way to average the factors of an epoch (line 17 of Algorithm 1), which begins with zeros."""

    init: Callable[[int, int], State]  # of the latent dimensions and the steps an epoch
    record: Callable[[State, Int[Array, ""], Float[Array, " latent"], devices.Moments], State]
    value: Callable[[State, Int[Array, ""]], Float[Array, " latent"]]  # of the accumulator and the batches recorded


def _averages(des_std: float, ddof: int, eps: float) -> dict[str, FactorAverage]:
    def median(factors: State, batches: Array) -> Array:
        rising = jnp.sort(jnp.where(jnp.arange(len(factors))[:, None] < batches, factors, jnp.inf), axis=0)
        return (rising[(batches - 1) // 2] + rising[batches // 2]) / 2

    def merge(state: State, batches: Array, factor: Array, moments: devices.Moments) -> State:
        """The moments of all sentences so far, by the parallel algorithm of Chan et al. (1979)."""
        rows = state.rows + moments.rows
        delta = moments.mean - state.mean
        mean = state.mean + delta * moments.rows / jnp.maximum(rows, 1.0)
        between = jnp.square(delta) * state.rows * moments.rows / jnp.maximum(rows, 1.0)
        return devices.Moments(rows, mean, state.squares + moments.squares + between)

    return {
        "mean": FactorAverage(
            init=lambda latent, steps: jnp.zeros(latent),
            record=lambda state, batches, factor, moments: state + factor,
            value=lambda state, batches: state / jnp.maximum(batches, 1),
        ),
        "median": FactorAverage(
            init=lambda latent, steps: jnp.zeros((steps, latent)),
            record=lambda state, batches, factor, moments: state.at[batches].set(factor),
            value=median,
        ),
        # Eq. 3 over all means of the epoch, each as it was when its batch was seen
        "population": FactorAverage(
            init=lambda latent, steps: devices.Moments(jnp.float32(0), jnp.zeros(latent), jnp.zeros(latent)),
            record=merge,
            value=lambda state, batches: des_std / jnp.maximum(jnp.sqrt(state.variance(ddof)), eps),
        ),
    }


class ScaleState(NamedTuple):
    """The accumulator of this epoch's factors, and the average of the previous epoch's."""

    accumulator: State
    batches: Int[Array, ""]  # recorded in this epoch
    f_bar: Float[Array, " latent"]  # 1 until an epoch has ended


def scale(
    des_std: float,
    f_epo: int,
    *,
    std_ddof: int = 1,
    factor_average: str = "mean",
    factor_min_batch: int = 16,
    stop_gradient_factor: bool = False,
    eps: float = 1e-6,
) -> PosteriorTransform:
    """Scale-VAE: multiply mu by f = des_std / Std[mu] (Eq. 2 and 3; lines 6 to 11 and 17 of Algorithm 1).

    Epochs 1 to `f_epo` use the batch's own f, later ones f_bar, the average of the factors recorded in the previous
    epoch. Std is over the real rows of the global batch. A batch of fewer than `factor_min_batch` of them records
    nothing; where its own f would be used, it takes the average of this epoch so far, or f_bar before there is any.
    """
    averages = _averages(des_std, std_ddof, eps)
    if factor_average not in averages:
        raise ValueError(f"factor_average is one of {', '.join(averages)}; got {factor_average!r}")
    if not des_std > 0:
        raise ValueError(f"des_std is a standard deviation above 0, got {des_std}")
    if f_epo < 1 or std_ddof not in (0, 1):
        raise ValueError(f"f_epo is 1 epoch or more, and std_ddof 0 or 1; got {f_epo} and {std_ddof}")
    average = averages[factor_average]

    def so_far(state: ScaleState) -> Float[Array, " latent"]:
        return jnp.where(state.batches > 0, average.value(state.accumulator, state.batches), state.f_bar)

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        if not train:
            return posteriors._replace(factor=posteriors.factor * state.f_bar), state
        # line 6: f = des_std / Std[mu], of this batch
        moments = devices.batch_moments(posteriors.q.mean, context.weight)
        variance = jnp.maximum(moments.variance(std_ddof), eps * eps)
        own = des_std * jax.lax.rsqrt(variance)
        recorded = jax.lax.stop_gradient(own)
        enough = moments.rows >= factor_min_batch
        # The gradient flows through a batch's own f, as through a batch norm. The paper leaves it open.
        own = jnp.where(enough, recorded if stop_gradient_factor else own, so_far(state))
        # lines 7 to 11: the batch's own f up to epoch f_epo, f_bar after it; `Posteriors.q_hat` multiplies
        factor = jnp.where(context.epoch <= f_epo, own, state.f_bar)
        # for line 17, in every epoch: the factor counts whether or not this batch used it
        entered = average.record(state.accumulator, state.batches, recorded, jax.lax.stop_gradient(moments))
        state = ScaleState(
            jax.tree.map(lambda new, old: jnp.where(enough, new, old), entered, state.accumulator),
            state.batches + enough,
            state.f_bar,
        )
        return posteriors._replace(factor=posteriors.factor * factor), state

    def end_epoch(state: ScaleState) -> ScaleState:
        """Line 17: f_bar = Average(f). The next epoch records anew."""
        return jax.tree.map(jnp.zeros_like, state)._replace(f_bar=so_far(state))

    return PosteriorTransform(
        init=lambda latent, steps: ScaleState(average.init(latent, steps), jnp.int32(0), jnp.ones(latent)),
        apply=apply,
        end_epoch=end_epoch,
        factor=lambda state: state.f_bar,
        own_epochs=f_epo,
        min_batch=factor_min_batch,
    )


def constant_factor(factor: float) -> PosteriorTransform:
    """Multiply mu by one number, in every dimension and at every step: Scale-VAE at a fixed point of its rule."""
    if not factor > 0:
        raise ValueError(f"a factor is positive, got {factor}")
    return PosteriorTransform(
        apply=lambda params, state, posteriors, *_: (posteriors._replace(factor=posteriors.factor * factor), state),
        factor=lambda state: factor,
    )
