"""The figures: densities are densities, axes have labels with units, what is told apart by colour has a shape too."""

import matplotlib
import numpy as np
import pytest
from runs_by_hand import make_record
from scipy import stats

from scalevae_jax.comparison import pictures
from scalevae_jax.comparison.trial import ARRAYS
from scalevae_jax.reproduce import figures
from scalevae_jax.reproduce.figures import LatentSpace
from scalevae_jax.reproduce.trials import SCALES, shown

NUMBERS = {"purity": 0.75, "mi": 2.0, "kl_aggregate": 1.25, "kl_aggregate_q": 0.5}


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.rc_context(pictures.STYLE):
        yield


def make_space(rng, rows=60):
    labels = np.arange(rows) % 4
    mean = rng.normal(size=(rows, 2)) + labels[:, None]
    return LatentSpace("a model", mean, rng.normal(-1, 0.3, (rows, 2)), np.array([2.0, 3.0]), labels, NUMBERS)


def make_curves(epochs=4):
    keys = ("valid_rec", "valid_kl", "mi", "factor_median")
    return {"epoch": list(range(1, epochs + 1))} | {key: [float(i + 1) for i in range(epochs)] for key in keys}


def test_the_aggregate_is_the_mean_of_the_gaussians(rng):
    mean, logvar = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    x, y = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.1])
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    each = [stats.multivariate_normal(m, np.diag(np.exp(v))).pdf(grid) for m, v in zip(mean, logvar, strict=True)]
    np.testing.assert_allclose(figures.density(mean, logvar, x, y), np.mean(each, axis=0))


def test_figure_1_shows_the_space_of_the_decoder(rng):
    space = make_space(rng)
    figure = figures.latent_spaces([space, space._replace(numbers=NUMBERS | {"purity": None})])
    assert all(ax.get_xlabel() for ax in figure.axes)
    points = np.concatenate([np.asarray(each.get_offsets()) for each in figure.axes[0].collections])
    assert np.sort(points[:, 1]) == pytest.approx(np.sort(3 * space.mean[:, 1]))
    captions = [ax.get_title() for ax in figure.axes[2:]]
    assert captions[0] == "purity 0.75, KL from prior 1.25 nats\nMI 2.00 nats"
    assert captions[1] == "KL from prior 1.25 nats\nMI 2.00 nats"


def test_figure_2_shows_the_space_of_the_encoder_beside_the_prior(rng):
    prior, space, colours = figures.aggregates([make_space(rng)]).axes
    assert [ax.get_xlim() for ax in (prior, space)] == [(-2, 2)] * 2
    np.testing.assert_array_equal(prior.collections[0].levels, space.collections[0].levels)
    assert space.get_title() == "a model\nKL from prior 0.50 nats"
    assert colours.get_ylabel() == "density (per unit of area)"


def test_curves_have_labels_with_units_and_a_model_without_a_factor_has_no_curve_of_it():
    axes = pictures.curves({"vae": make_curves() | {"factor_median": [None] * 4}, "scale_vae": make_curves()}).axes
    assert all(ax.get_xlabel() == "epoch" for ax in axes)
    assert ["nats" in ax.get_ylabel() for ax in axes] == [True, True, True, False]
    assert [line.get_label() for line in axes[3].lines] == ["scale_vae"]


def test_many_runs_in_one_picture_are_told_apart_without_colour_alone():
    figure = pictures.curves({f"run {i}": make_curves() for i in range(28)})
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 28


def test_the_first_seed_of_each_row_is_drawn(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(figures, "GRID", 10)
    monkeypatch.setattr(figures, "LAYERS", 1)
    scale, records = SCALES["smoke"], []
    for row in shown("figure1", scale)[::4]:  # the others were not run
        for seed in (0, 1):
            record = make_record(row, seed, space=NUMBERS | {"mi": float(seed)})
            (tmp_path / record["run"]).mkdir()
            arrays = {"mean": rng.normal(size=(9, 2)), "logvar": rng.normal(size=(9, 2))}
            np.savez(tmp_path / record["run"] / ARRAYS, **arrays, factor=np.ones(2), labels=np.arange(9) % 3)
            records.append(record)
    spaces = figures.read_spaces("figure1", scale, records, tmp_path)
    assert [space.title for space in spaces] == ["bn_vae, fixed", "scale_vae, repartitioned"]
    assert {space.numbers["mi"] for space in spaces} == {0.0}
    (tmp_path / records[0]["run"] / ARRAYS).unlink()
    assert figures.read_spaces("figure1", scale, records, tmp_path)[0].numbers["mi"] == 1.0
    drawn = figures.draw(["figure1", "figure2"], scale, records, tmp_path, tmp_path / "figures")
    assert [path.name for path in drawn] == ["figure1.png", "figure2.png", "curves_synthetic.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn)


def test_both_files_are_written_and_equal_numbers_give_equal_files(tmp_path):
    for name in ("a", "b"):
        pictures.save(figures.latent_spaces([make_space(np.random.default_rng(1))]), tmp_path / "pictures" / name)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]
    assert (tmp_path / "pictures/a.svg").read_text() == (tmp_path / "pictures/b.svg").read_text()
