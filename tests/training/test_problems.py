"""Warnings: which problem an epoch has, the remedies of each method, and how often it is said."""

import numpy as np
import pytest

from scalevae_jax import config
from scalevae_jax.methods.method import METHODS
from scalevae_jax.training import problems


def settings_for(name: str = "scale_vae", **changes) -> config.Config:
    method = config.MethodConfig(name=name, **changes)
    return config.with_defaults(config.Config(model=config.Network(latent=2), method=method))


def line(**changes):
    numbers = {"mi": 2.0, "au_hat": 3, "kl_weight": 1.0, "epoch": 5, "factor_min": 1.5, "factor_max": 2.0}
    return numbers | {"train_kl": 3.0} | changes


def find(name="scale_vae", hyperparameters=None, **changes):
    settings = settings_for(name, **(hyperparameters or {}))
    return problems.find(line(**changes), settings, config.build_method(settings))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"mi": 0.05}, "collapsed"),
        ({"au_hat": 0}, "collapsed"),
        ({"mi": 0.05, "kl_weight": 0.9}, None),
        ({"mi": None, "au_hat": None, "train_kl": None, "factor_min": None, "factor_max": None}, None),
        ({"factor_max": 51.0}, "run away"),
        ({"factor_max": 51.0, "epoch": 3}, None),
        ({"factor_max": 51.0, "mi": 0.05}, "run away"),  # one problem at a time: their remedies are opposite
        ({"factor_min": 1.0, "factor_max": 1.0, "mi": 0.05}, "never scaled"),
        ({"factor_min": None, "factor_max": None}, None),
    ],
)
def test_an_epoch_has_one_problem_or_none(changes, kind):
    problem = find(**changes)
    assert (problem and problem.kind) == kind
    if problem:
        assert " or " in problem.text.split("Try")[1]  # two remedies at least


@pytest.mark.parametrize(
    ("factors", "select_by", "warns"),
    [
        ([9.0, 3.0], "loss", True),
        ([9.0, 5.0], "loss", False),
        ([9.0, 3.0], "neg_elbo", False),
        ([None, None], "loss", 0),
    ],
)
def test_a_best_epoch_whose_factor_is_much_larger_than_the_last_one_is_said(factors, select_by, warns):
    settings = settings_for()
    settings.train.select_by = select_by
    lines = [{"epoch": epoch, "factor_median": factor} for epoch, factor in enumerate(factors, 1)]
    assert ("--config.train.select_by=neg_elbo" in problems.larger_factor(lines, 1, settings)) == warns
    assert problems.larger_factor(lines, 2, settings) == ""


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("vae", "Try --config.method.name=scale_vae or bn_vae"),
        ("bn_vae", "Try a larger --config.method.gamma, or --config.method.name=scale_vae"),
        ("delta_vae", "Try a larger --config.method.delta, or --config.method.name=scale_vae"),
        ("scale_vae", "Try a larger --config.method.des_std than 0.7, or fewer steps before the switch to f_bar"),
    ],
)
def test_the_remedy_against_collapse_is_never_the_method_at_hand(name, remedy):
    text = find(name, mi=0.05).text
    assert remedy in text
    assert f"name={name}" not in text


def test_the_hyperparameter_that_a_remedy_names_is_the_methods():
    assert all(key in config.methods.hyperparameters(name) for name, key in problems.STRENGTH.items())


@pytest.mark.parametrize(("kl", "breaks"), [(0.36, False), (0.19, False), (0.17, True), (5e-4, True)])
def test_bn_vae_is_meant_to_keep_half_gamma_squared_nats_a_dimension(kl, breaks):
    """0.36 nats in two dimensions. The recorded runs that died ended with 5e-4."""
    problem = find("bn_vae", {"gamma": 0.6}, train_kl=kl, factor_min=None, factor_max=None)
    assert (problem is not None) == breaks
    if problem:
        assert problem.kind == "bound broken"
        assert "where bn_vae is meant to keep 0.36" in problem.text


@pytest.mark.parametrize(
    ("method", "weight", "warns"),
    [
        (METHODS["beta_vae"](beta=0.4), 0.4, True),
        (METHODS["beta_vae"](beta=2.0), 2.0, True),
        (METHODS["vae"](warm_up=10.0), 0.9, False),
        (METHODS["vae"](warm_up=10.0), 1.0, True),
        (METHODS["cyclical"](cycle_epochs=2.0, cycles=3), 0.5, False),
        (METHODS["cyclical"](cycle_epochs=2.0, cycles=3), 1.0, True),
    ],
)
def test_collapse_is_a_problem_from_the_methods_full_kl_weight_on(method, weight, warns):
    assert problems.collapsed(line(mi=0.05, kl_weight=float(np.float32(weight))), method) == warns


@pytest.mark.parametrize(
    ("factors", "said", "ends"),
    [
        ([2.0, 60.0, 70.0, 80.0], [60.0, 80.0], []),  # when it begins, and when training ends
        ([2.0, 60.0, 70.0, 2.0], [60.0], [5]),  # it has passed
        ([60.0, 2.0, 70.0, 2.0], [60.0], [3, 5]),  # it comes and goes
        ([2.0, 2.0, 60.0], [60.0], []),  # it begins in the last epoch
    ],
)
def test_a_problem_is_said_when_it_begins_ends_and_when_training_ends(factors, said, ends, capsys):
    settings = settings_for(f_epo=1)
    warnings = problems.Warnings(settings, config.build_method(settings))
    for epoch, factor in enumerate(factors, 2):
        warnings.hear(line(epoch=epoch, factor_max=factor))
    warnings.end()
    lines = capsys.readouterr().out.splitlines()
    ended = [f"epoch {epoch}: the last warning (run away) no longer holds" for epoch in ends]
    assert [text for text in lines if text.startswith("epoch")] == ended
    printed = [text for text in lines if text.startswith("WARNING: ")]
    assert [f"largest {factor:.3g})" in text for factor, text in zip(said, printed, strict=True)] == [True] * len(said)
