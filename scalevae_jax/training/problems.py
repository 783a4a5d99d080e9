"""What a user should not discover a day later: a posterior that has collapsed, a factor that has run away, and others.

They are consequences of each other: where the factor has run away, z is ignored too. So a run has one problem at a
time, the one whose remedy helps.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from scalevae_jax.config import Config
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console

RUNAWAY_FACTOR = 50.0
MUCH_LARGER = 2.0  # of a factor, than that of the last epoch
# The hyperparameter that holds the posterior away from the prior, of the methods that have one.
STRENGTH = {
    "bn_vae": "gamma", "du_vae": "gamma", "delta_vae": "delta", "free_bits": "threshold", "scale_vae_fixed": "factor",
    "minimum_rate": "rate",
}  # fmt: skip


class Problem(NamedTuple):
    """Its kind, by which it is reported once, and what the user reads."""

    kind: str
    text: str


def collapsed(line: dict[str, Any], method: Method) -> bool:
    """Whether z says nothing about the sentence, although the KL has its full weight; of a line of the epoch log."""
    full = float(method.kl_weight(jnp.float32(1e6)))  # the weight of a late epoch: 1, except for beta_vae
    return line["mi"] is not None and line["kl_weight"] >= full and (line["mi"] < 0.1 or line["au_hat"] == 0)


def runaway(line: dict[str, Any], method: Method) -> bool:
    """Whether a factor is far too large after the epochs in which a batch uses its own."""
    largest = line["factor_max"]
    return largest is not None and line["epoch"] > method.posterior.own_epochs > 0 and largest > RUNAWAY_FACTOR


def find(line: dict[str, Any], settings: Config, method: Method) -> Problem | None:
    """The problem of an epoch, by its line of the log, with the remedies that this method has."""
    option, least_kl = "--config.method.", settings.model.latent * method.posterior.min_kl
    # f_bar is exactly 1 until a batch that is large enough has recorded its factor.
    if line["factor_min"] == line["factor_max"] == 1.0:
        return Problem(
            "never scaled",
            f"no batch had the {method.posterior.min_batch} sentences that a factor needs, so the factor stays at 1, "
            "as in a plain VAE. Try fewer --config.data.buckets, a larger --config.train.batch_size, or a smaller "
            f"{option}factor_min_batch",
        )
    if runaway(line, method):
        return Problem(
            "run away",
            f"the factor has run away (largest {line['factor_max']:.3g}): the posterior means have nearly no spread of "
            f"their own. This may pass. Try a smaller {option}des_std, more steps an epoch, or "
            f"{option}factor_average=population",
        )
    if line["train_kl"] is not None and line["train_kl"] < least_kl / 2:  # the bound is of the mean: half is no chance
        torch = settings.model.encoder_init == "torch"
        return Problem(
            "bound broken",
            f"the KL is {line['train_kl']:.2g} nats, where {settings.method.name} is meant to keep {least_kl:.2g}: the "
            "encoder's means vary so little that normalising them no longer restores their spread. Try "
            f"{'' if torch else '--config.model.encoder_init=torch or '}a longer {option}warm_up",
        )
    if collapsed(line, method):
        found = f"the posterior has collapsed (mi {line['mi']:.3f} nats, {line['au_hat']} active units of q_hat)"
        return Problem("collapsed", f"{found}: z is ignored. Try {_against_collapse(settings, method)}")
    return None


def larger_factor(lines: list[dict[str, Any]], best: int, settings: Config) -> str:
    """A warning where the best epoch has a much larger factor than the last one; else an empty text.

    Eq. 7 is not a bound, and can be lowest in an early epoch whose factor is still large.
    """
    factors = {line["epoch"]: line["factor_median"] for line in lines if line["factor_median"]}
    if settings.train.select_by != "loss" or best not in factors:
        return ""
    of_best, of_last = factors[best], factors[max(factors)]
    if of_best < MUCH_LARGER * of_last:
        return ""
    return (
        f"the best epoch, {best}, has a median factor of {of_best:.3g}, the last one of {of_last:.3g}, so its samples "
        "may be poor. --config.train.select_by=neg_elbo chooses the epoch by a bound"
    )


def _against_collapse(settings: Config, method: Method) -> str:
    option, name = "--config.method.", settings.method.name
    if method.posterior.own_epochs:
        switch = f"fewer steps before the switch to f_bar (a smaller {option}f_epo, or a larger batch)"
        return f"a larger {option}des_std than {settings.method.des_std}, or {switch}"
    if name in STRENGTH:
        return f"a larger {option}{STRENGTH[name]}, or {option}name=scale_vae"
    return f"{option}name=scale_vae or bn_vae"


class Warnings:
    """Says each kind of problem once, when it begins, that it has ended, and the last epoch's once more when training
    ends."""

    def __init__(self, settings: Config, method: Method):
        self._settings, self._method = settings, method
        self._said = set[str]()
        self._last: Problem | None = None  # of the epoch before
        self._repeated = False  # whether an earlier epoch has said it

    def hear(self, line: dict[str, Any]) -> None:
        """Warn of a problem that begins in this epoch, or say that the last one has ended."""
        problem = find(line, self._settings, self._method)
        if problem is None and self._last is not None:
            console.log(f"epoch {line['epoch']}: the last warning ({self._last.kind}) no longer holds")
        self._last, self._repeated = problem, problem is not None and problem.kind in self._said
        if problem is not None and not self._repeated:
            self._said.add(problem.kind)
            console.warn(problem.text)

    def end(self) -> None:
        """Warn of the problem that training ends with, unless that was the line before."""
        if self._last is not None and self._repeated:
            console.warn(f"at the end of training {self._last.text}")
