"""Table 1 as code: each system is the plain VAE with a slot or two filled differently.

The keyword arguments of a constructor are the fields `--config.method.<hyperparameter>`. An ablation is
`dataclasses.replace(scale_vae(des_std=1.1), kl_weight=schedule.constant(1.0))`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from scalevae_jax.core.network import INITS
from scalevae_jax.core.types import Inject
from scalevae_jax.methods import multiplier, penalty, plan, posterior, refine, schedule
from scalevae_jax.methods.penalty import Penalty, Rate, unit_rate, weighted
from scalevae_jax.methods.plan import Plan, joint
from scalevae_jax.methods.posterior import PosteriorTransform, identity
from scalevae_jax.methods.refine import Refine, none
from scalevae_jax.methods.schedule import Schedule, linear


@dataclasses.dataclass(frozen=True)
class Method:
    """A training system. The defaults are the VAE with linear annealing.

    Methods are compared and hashed by the functions in their slots: what is compiled for a method is found again only
    by the same object, or by one made of the same functions.
    """

    posterior: PosteriorTransform = identity  # from the encoder's q to q and q_hat; its state is carried
    rate: Rate = unit_rate  # the KL of each sentence and dimension, in nats
    penalty: Penalty = weighted  # what is paid beside the reconstruction, made of the rate; nats a sentence
    kl_weight: Schedule = linear(10.0)  # of the fractional epoch
    inject: Inject = Inject.STATE | Inject.INPUT  # where z enters the decoder
    refine: Refine = none  # each sentence's posterior, improved before it is used
    plan: Plan = joint  # which parameters move at a step; runs on the host
    encoder_init: str = "paper"  # initial values (INITS) unless the configuration chooses others for the network
    decoder_init: str = "paper"

    def __post_init__(self) -> None:
        for slot in ("encoder_init", "decoder_init"):
            if getattr(self, slot) not in INITS:
                raise ValueError(f"{slot} is one of {', '.join(INITS)}; got {getattr(self, slot)!r}")


def lstm_lm() -> Method:
    """A language model: the decoder without z (Table 1, first row)."""
    return Method(inject=Inject.NONE)


def vae(*, warm_up: float = 10.0, kl_start: float = 0.0) -> Method:
    """The VAE (Eq. 1) with linear annealing; warm_up=0 has none (Kingma and Welling 2014, Bowman et al. 2016)."""
    return Method(kl_weight=schedule.linear(warm_up, kl_start))


def cyclical(
    *, cycle_epochs: float = 0.0, ratio: float = 0.5, cycles: int = 4, kl_start: float = 0.0, max_epochs: int = 120
) -> Method:
    """Cyclical annealing, by default four cycles over the whole training (Fu et al. 2019).

    A run that resumes with another max_epochs has cycles of the new length, unless `cycle_epochs` is given.
    """
    return Method(kl_weight=schedule.cyclical(cycle_epochs or max_epochs / cycles, ratio, cycles, kl_start))


def beta_vae(*, beta: float = 0.4) -> Method:
    """A constant KL weight other than 1 (Higgins et al. 2016)."""
    return Method(kl_weight=schedule.constant(beta))


def free_bits(*, threshold: float = 0.1, fb_mode: str = "example", warm_up: float = 10.0) -> Method:
    """No gradient from a KL below `threshold` nats a dimension (Kingma et al. 2016)."""
    return Method(penalty=penalty.free_bits(threshold, fb_mode), kl_weight=schedule.linear(warm_up))


def delta_vae(*, delta: float = 0.1, warm_up: float = 10.0) -> Method:
    """Posteriors at least `delta` nats a dimension from the prior (Razavi et al. 2019)."""
    return Method(posterior=posterior.committed_rate(delta), kl_weight=schedule.linear(warm_up))


def sa_vae(
    *,
    svi_steps: int = 20,
    svi_learning_rate: float = 1.0,
    svi_momentum: float = 0.5,
    svi_clip: float = 5.0,
    first_order: bool = False,
    warm_up: float = 10.0,
) -> Method:
    """Amortised posteriors refined by SVI for each sentence, in training and evaluation (Kim et al. 2018)."""
    svi = refine.svi(svi_steps, svi_learning_rate, svi_momentum, svi_clip, first_order)
    return Method(refine=svi, kl_weight=schedule.linear(warm_up))


def skip_vae(*, warm_up: float = 10.0) -> Method:
    """z also joins the features of the vocabulary layer (Dieng et al. 2019)."""
    inject = Inject.STATE | Inject.INPUT | Inject.OUTPUT
    return Method(inject=inject, kl_weight=schedule.linear(warm_up))


def agg_vae(*, inner_steps: int = 99, window: int = 15, warm_up: float = 10.0) -> Method:
    """The encoder trained aggressively until the validation MI falls (He et al. 2019)."""
    return Method(plan=plan.aggressive(inner_steps, window), kl_weight=schedule.linear(warm_up))


def mae(*, diversity: float = 1.0, smoothness: float = 0.2) -> Method:
    """Mutual posterior divergence: diversity and smoothness terms, no annealing (Ma et al. 2019)."""
    terms = penalty.mutual_divergence(diversity, smoothness)
    return Method(penalty=terms, kl_weight=schedule.constant(1.0))


def bn_vae(*, gamma: float = 0.6, shift: float = 0.0, train_shift: bool = True, warm_up: float = 10.0) -> Method:
    """Batch-normalised posterior means, so that E[KL] >= n (gamma^2 + shift^2) / 2 (Zhu et al. 2020; Eq. 14).

    The counter-example of section 4.2 is gamma=0, shift=0.7, train_shift=False. The authors' code leaves the encoder at
    PyTorch's initial values (`model.encoder_init=torch`); this paper does not say so of its own run.
    """
    norm = posterior.batch_norm(gamma, shift, train_shift=train_shift)
    return Method(posterior=norm, kl_weight=schedule.linear(warm_up))


def du_vae(*, gamma: float = 0.6, keep: float = 0.8, alpha: float = 1.0, warm_up: float = 10.0) -> Method:
    """Batch norm with a learned scale of fixed norm, variance floor and variance dropout (Shen et al. 2021).

    It begins from PyTorch's values: with the paper's, the KL was "extremely large" (footnote 2).
    """
    norm = posterior.batch_norm(gamma, train_scale=True, min_batch=16)
    return Method(
        posterior=posterior.chain(norm, posterior.variance_dropout(keep, alpha)),
        kl_weight=schedule.linear(warm_up),
        encoder_init="torch",
        decoder_init="torch",
    )


def scale_vae(
    *,
    des_std: float = 0.7,
    f_epo: int = 3,
    std_ddof: int = 1,
    factor_average: str = "mean",
    factor_min_batch: int = 16,
    stop_gradient_factor: bool = False,
    warm_up: float = 10.0,
) -> Method:
    """The paper's system: decode from f mu, f = des_std / Std[mu], and pay the KL of q (Eq. 2 to 7, Algorithm 1).

    The encoder begins from PyTorch's values. With the paper's, the means of a small network hardly differ at first, f
    begins in the hundreds, and in our runs it ran away (docs/methods.md).
    """
    return Method(
        posterior=posterior.scale(
            des_std,
            f_epo,
            std_ddof=std_ddof,
            factor_average=factor_average,
            factor_min_batch=factor_min_batch,
            stop_gradient_factor=stop_gradient_factor,
        ),
        kl_weight=schedule.linear(warm_up),
        encoder_init="torch",
    )


@functools.wraps(scale_vae, assigned=())  # the signature is scale_vae's
def scale_vae_matched(**hyperparameters: Any) -> Method:
    """Scale-VAE that pays the matching KL, KL(q_hat || N(0, f^2)), so that its objective is a true bound.

    Not in the paper.
    """
    return dataclasses.replace(scale_vae(**hyperparameters), rate=penalty.matched_rate)


def scale_vae_fixed(*, factor: float = 1.5, warm_up: float = 10.0) -> Method:
    """Scale-VAE with a fixed factor, which cannot run away; Std[f mu] follows from the text.

    It is the VAE that pays 1 / factor^2 of the mean term of its KL (docs/methods.md). Not in the paper.
    """
    return Method(posterior=posterior.constant_factor(factor), kl_weight=schedule.linear(warm_up), encoder_init="torch")


def minimum_rate(*, rate: float = 5.0, multiplier_step: float = 0.001) -> Method:
    """The KL held at `rate` nats a sentence or above by a Lagrange multiplier (Pelsmaeker and Aziz 2020).

    The paper cites it but does not run it.
    """
    return Method(
        posterior=multiplier.multiplier(rate, multiplier_step),
        penalty=multiplier.constrained,
        kl_weight=schedule.constant(1.0),
        encoder_init="torch",
    )


_TABLE_1 = (
    lstm_lm, vae, cyclical, beta_vae, free_bits, delta_vae, sa_vae, skip_vae, agg_vae, mae, bn_vae, du_vae, scale_vae,
)  # fmt: skip
_OTHERS = (scale_vae_matched, scale_vae_fixed, minimum_rate)
METHODS: dict[str, Callable[..., Method]] = {constructor.__name__: constructor for constructor in _TABLE_1 + _OTHERS}


FILLED = {"max_epochs": "train.max_epochs"}  # arguments that a field of the configuration fills, if a method asks


def hyperparameters(name: str) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a method's constructor, by name and in order; without those of FILLED."""
    return {key: value for key, value in inspect.signature(METHODS[name]).parameters.items() if key not in FILLED}


def filled(name: str) -> dict[str, str]:
    """The arguments of FILLED that a method's constructor asks for, and their fields."""
    return {key: field for key, field in FILLED.items() if key in inspect.signature(METHODS[name]).parameters}


MEANINGS = {  # of the hyperparameters, for --help
    "warm_up": "epochs in which the KL weight rises to 1; 0 means no annealing",
    "kl_start": "KL weight at the first step",
    "cycle_epochs": "epochs of a cycle; 0 means train.max_epochs / cycles",
    "ratio": "share of a cycle in which the KL weight rises",
    "cycles": "number of cycles, after which the KL weight stays at 1",
    "beta": "the KL weight",
    "threshold": "nats a dimension below which a KL has no gradient",
    "fb_mode": "which KL `threshold` applies to: example, batch (the batch mean) or total (of a sentence)",
    "delta": "minimum KL of every dimension, in nats",
    "svi_steps": "gradient steps on each sentence's posterior",
    "svi_learning_rate": "learning rate of the SVI steps",
    "svi_momentum": "momentum of the SVI steps",
    "svi_clip": "maximum gradient norm of the SVI steps, and of what flows back through them",
    "first_order": "no gradient through the SVI steps",
    "inner_steps": "maximum encoder steps before a decoder step",
    "window": "encoder steps between two checks of whether the loss still falls",
    "diversity": "weight of the diversity term",
    "smoothness": "weight of the smoothness term",
    "gamma": "standard deviation of the normalised mean, in units of z",
    "shift": "mean of the normalised mean at the start of training, in units of z",
    "train_shift": "whether the shift is learned",
    "keep": "share of the variances that variance dropout keeps",
    "alpha": "the variance floor is alpha / (2 pi e)",
    "des_std": "the desired Std[f mu], in units of z",
    "factor": "factor that multiplies the means",
    "rate": "minimum KL, in nats a sentence",
    "multiplier_step": "how fast the Lagrange multiplier moves",
    "f_epo": "last epoch in which a batch uses its own f",
    "std_ddof": "0 for the biased Std, 1 for the unbiased",
    "factor_average": "average of an epoch's factors: mean, median, or population",
    "factor_min_batch": "a batch with fewer sentences records no f",
    "stop_gradient_factor": "no gradient through a batch's own f",
}
