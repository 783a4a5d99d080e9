"""What the page of `explore` shows of a model: the posteriors of a split, and pictures of them."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.data.corpus import Split
from scalevae_jax.inference import metrics
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods import penalty

TICKS = 16  # dimensions that have a number under them, at most
INK, BLUE, ORANGE = "#1a1a1a", "#0b5394", "#b45309"  # a contrast of 4.5 to 1 or more against white


class View(NamedTuple):
    """What the page shows of a run; rows are sentences of the split, in its order."""

    name: str
    model: TrainedModel
    sentences: list[str]
    labels: np.ndarray
    names: dict[int, str]  # of the labels
    mean: np.ndarray  # of q_hat, [rows, latent]
    plane: np.ndarray  # the same points in the plane of the map, [rows, 2]
    axes: tuple[str, str]
    kl: np.ndarray  # KL(q || N(0, I)) in nats, mean over the sentences, [latent]
    active: np.ndarray  # [latent]
    training: list[str]  # sentences of the training split, in its order; none where it is not at hand
    training_mean: np.ndarray  # of q_hat, [their number, latent]


def project(mean: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Points in a plane and the names of its axes: two dimensions as they are, more by principal components."""
    if mean.shape[1] <= 2:
        axes = ("dimension 0", "dimension 1" if mean.shape[1] == 2 else "")
        return np.pad(mean, ((0, 0), (0, 2 - mean.shape[1]))), axes
    centred = np.float64(mean - mean.mean(0))
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    share = sizes**2 / max(np.sum(sizes**2), 1e-300)
    first, second = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in (0, 1))
    return centred @ axes[:2].T, (first, second)


def view(name: str, model: TrainedModel, split: str, limit: int) -> View:
    """Infer the first sentences of a split, and of the training split. Raises InputError for a language model, or for
    fewer than two sentences."""
    data, words = model.run.settings.data, model.run.words
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no z to look at")
    opened = corpus.open(data)

    def first(split: str) -> tuple[Split, list[str]]:
        tokens = itertools.islice(opened.sentences(split, words), limit)
        return opened.split(split, words).first(limit), [words.join(sentence) for sentence in tokens]

    rows, sentences = first(split)
    if len(sentences) < 2:
        raise InputError(f"{data.path}: {split}: expected two sentences or more for a map")
    posteriors = model.infer(model.batches(rows)).posteriors
    mean = np.asarray(posteriors.q_hat.mean)
    plane, axes = project(mean)
    labels = np.zeros(len(mean), int) if rows.labels is None else rows.labels
    names = {int(label): rows.label_name(label) for label in np.unique(labels)}
    kl = np.asarray(penalty.unit_rate(posteriors)).mean(0)
    active = metrics.active(posteriors.q.mean)
    training, training_mean = sentences, mean
    if split != "train":
        try:
            training_rows, training = first("train")
            training_mean = np.asarray(model.infer(model.batches(training_rows)).posteriors.q_hat.mean)
        except InputError:  # beside an exported model there may be no training split: the page says so
            training, training_mean = [], mean[:0]
    return View(name, model, sentences, labels, names, mean, plane, axes, kl, active, training, training_mean)


def _figure() -> Figure:
    figure = Figure((6.4, 4.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def draw_map(v: View, chosen: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The map as an image [height, width, 3], and the place of each sentence in it, [rows, 2] in pixels from the top
    left."""
    figure = _figure()
    ax = figure.add_subplot()
    labels = np.unique(v.labels)
    for i, label in enumerate(labels):
        points = v.plane[v.labels == label]
        ax.scatter(
            *points.T,
            s=9,
            color=f"C{i % 10}",
            marker="os^Dv"[i % 5],
            label=f"label {v.names[int(label)]}",
            linewidths=0,
        )
    if len(labels) > 1:
        ax.legend(loc="upper right")
    if chosen is not None:
        ax.scatter(*v.plane[chosen], s=160, facecolors="none", edgecolors=INK, linewidths=2)
    if not v.axes[1]:
        ax.set_yticks([])  # there is no second dimension
    ax.set(xlabel=v.axes[0], ylabel=v.axes[1], title=f"{v.name}: posterior means, {len(v.mean)} sentences")
    image = _pixels(figure)
    places = ax.transData.transform(v.plane)  # matplotlib counts from the bottom
    return image, np.column_stack([places[:, 0], image.shape[0] - places[:, 1]])


def tops(views: Sequence[View]) -> tuple[float, float]:
    """The largest KL and the largest factor of a dimension in any of the models."""
    return max(float(v.kl.max()) for v in views), max(float(np.max(v.model.run.factor)) for v in views)


def draw_dimensions(v: View, largest: tuple[float, float]) -> np.ndarray:
    """KL of each dimension, active ones filled, and the factor of each, as an image; both scales end a little above
    `largest` (see `tops`), so that the pictures of several models can be compared."""
    figure = _figure()
    top, bottom = figure.subplots(2, sharex=True)
    dimensions = np.arange(len(v.kl))
    for active, fill, label in ((True, BLUE, "active"), (False, "white", "not active")):
        some = v.active == active
        top.bar(dimensions[some], v.kl[some], color=fill, edgecolor=BLUE, label=label if some.any() else None)
    top.legend()
    top.set(ylabel="KL (nats a sentence)", title=f"{v.name}: {summary(v)}")
    bottom.bar(dimensions, np.asarray(v.model.run.factor), color=ORANGE)
    ticks = dimensions[:: -(-len(dimensions) // TICKS)]
    bottom.set(ylabel="factor", xlabel="dimension of z (the first is 0)", xticks=ticks)
    for ax, end in zip((top, bottom), largest, strict=True):
        ax.set_ylim(0, 1.05 * max(end, 1e-6))
    return _pixels(figure)


def summary(v: View) -> str:
    """KL, active dimensions and factors in words."""
    factor = np.asarray(v.model.run.factor)
    active = f"{v.active.sum()} of {len(v.kl)} active"
    return f"KL {v.kl.sum():.2f} nats, {active}, factor {factor.min():.2f} to {factor.max():.2f}"
