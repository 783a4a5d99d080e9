"""The figures: densities are densities, axes have labels with units, what is told apart by colour has a shape too."""

import numpy as np
import pytest
from scipy import stats

from scalevae_jax.reproduce import figures
from scalevae_jax.reproduce.figures import Space


def _space(rng, rows=60):
    labels = np.arange(rows) % 4
    mean = rng.normal(size=(rows, 2)) + labels[:, None]
    return Space("a model", mean, rng.normal(-1, 0.3, (rows, 2)), np.array([2.0, 3.0]), labels, "purity 0.50")


def _curves(epochs=4):
    rising = [float(i) for i in range(1, epochs + 1)]
    keys = ("valid_rec", "valid_kl", "mi", "factor_median")
    return {"epoch": list(range(1, epochs + 1))} | dict.fromkeys(keys, rising)


def _drawn(rng):
    sweep = [
        {"des_std": s, "nll": 40 + s, "nll_unit_prior": 39, "nll_fitted_prior": 39, "nll_paper": 40 - s} for s in (1, 2)
    ]
    with figures.style():
        return {
            "latent": figures.latent_spaces([_space(rng), _space(rng)]),
            "aggregates": figures.aggregates([_space(rng)]),
            "curves": figures.curves({"vae": _curves() | {"factor_median": [None] * 4}, "scale_vae": _curves()}),
            "readings": figures.readings(sweep, {1.0: 325.0, 2.0: 321.0}),
        }


def test_the_aggregate_is_the_mean_of_the_gaussians(rng):
    mean, logvar = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    x, y = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.1])
    found = figures.density(mean, logvar, x, y)
    for i, b in enumerate(y):
        for j, a in enumerate(x):
            each = [
                stats.multivariate_normal(m, np.diag(np.exp(v))).pdf([a, b]) for m, v in zip(mean, logvar, strict=True)
            ]
            assert found[i, j] == pytest.approx(np.mean(each))


def test_every_axis_is_labelled_and_quantities_have_units(rng):
    for name, figure in _drawn(rng).items():
        labels = [text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel()) if text]
        assert all(ax.get_xlabel() or ax.get_label() == "<colorbar>" for ax in figure.axes), name
        if name in ("curves", "readings"):
            assert any("nats" in label for label in labels)
        if name == "curves":
            assert all(ax.get_ylabel() for ax in figure.axes)


def test_a_model_without_a_factor_has_no_curve_of_it(rng):
    factor = _drawn(rng)["curves"].axes[3]
    assert [line.get_label() for line in factor.lines] == ["scale_vae"]


def test_many_runs_in_one_picture_are_told_apart_without_colour_alone():
    with figures.style():
        figure = figures.curves({f"run {i}": _curves() for i in range(28)})
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 28


def test_figure_1_shows_the_decoders_space_and_figure_2_the_encoders(rng):
    space = _space(rng)
    with figures.style():
        above = figures.latent_spaces([space]).axes[0]
        shown = np.concatenate([np.asarray(points.get_offsets()) for points in above.collections])
        assert np.sort(shown[:, 1]) == pytest.approx(np.sort(3 * space.mean[:, 1]))
        panels = figures.aggregates([space]).axes[:2]
    assert [ax.get_xlim() for ax in panels] == [(-2, 2)] * 2
    levels = [ax.collections[0].levels for ax in panels]
    np.testing.assert_array_equal(*levels)


def test_both_files_are_written_and_the_svg_is_the_same_twice(rng, tmp_path):
    with figures.style():
        for name in ("a", "b"):
            figures.save(figures.latent_spaces([_space(np.random.default_rng(1))]), tmp_path / "pictures" / name)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]
    svg = [(tmp_path / "pictures" / f"{name}.svg").read_text() for name in ("a", "b")]
    assert svg[0] == svg[1]
