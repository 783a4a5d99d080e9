"""The figures of the paper and the curves of training, drawn from the files of runs alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scalevae_jax.comparison.pictures import COLOURS, MARKERS, STYLE, curves, save
from scalevae_jax.comparison.trial import ARRAYS, Record
from scalevae_jax.reproduce.trials import Scale, matches, shown

GRID = 160  # points along each side of a contour plot
LAYERS = 8  # in which the points of a scatter plot are drawn
REGION = 2.0  # Figure 2 shows [-2, 2] on both axes


class LatentSpace(NamedTuple):
    """A two-dimensional latent space: q of each sentence, [rows, 2], and what was computed from it."""

    title: str
    mean: np.ndarray
    logvar: np.ndarray
    factor: np.ndarray  # [2]; q_hat has the means mean * factor
    labels: np.ndarray  # [rows]
    numbers: dict[str, Any]  # see latent_space.py


def density(mean: np.ndarray, logvar: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The aggregated posterior, the mean of the rows' Gaussians, on a grid: [len(y), len(x)], per unit of area."""
    # A Gaussian with independent axes is a product of two functions, so that the sum over rows is a matrix product.
    precision = np.exp(-0.5 * logvar)
    across = np.exp(-0.5 * ((x - mean[:, :1]) * precision[:, :1]) ** 2) * precision[:, :1]
    along = np.exp(-0.5 * ((y - mean[:, 1:]) * precision[:, 1:]) ** 2) * precision[:, 1:]
    return along.T @ across / (2 * np.pi * len(mean))


def _square(mean: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two opposite corners of a square that holds two standard deviations of every row."""
    deviation = np.exp(0.5 * logvar)
    low, high = np.min(mean - 2 * deviation, axis=0), np.max(mean + 2 * deviation, axis=0)
    middle, half = (low + high) / 2, np.max(high - low) / 2
    return middle - half, middle + half


def latent_spaces(spaces: Sequence[LatentSpace]) -> Figure:
    """Figure 1: a column a space, the means of q_hat by label above, the aggregated q_hat below."""
    figure = Figure((max(2.5 * len(spaces), 4.5), 5.6), layout="constrained")
    axes = figure.subplots(2, len(spaces), squeeze=False)
    looks = {label: (MARKERS[i % 5], COLOURS[i % 7]) for i, label in enumerate(np.unique(spaces[0].labels))}
    for (above, below), space in zip(axes.T, spaces, strict=True):
        mean = space.mean * space.factor
        for layer in range(LAYERS):  # a label drawn last in one go would hide the others
            for label, (marker, colour) in looks.items():
                points = mean[space.labels == label][layer::LAYERS]
                above.scatter(*points.T, s=6, marker=marker, color=colour, linewidths=0, alpha=0.6)
        above.set(title=space.title, xlabel="$z_1$")
        above.set_aspect("equal", adjustable="datalim")
        low, high = _square(mean, space.logvar)
        x, y = (np.linspace(low[d], high[d], GRID) for d in (0, 1))
        below.contourf(x, y, density(mean, space.logvar, x, y), levels=10, cmap="Blues")
        numbers = space.numbers
        purity = "" if numbers["purity"] is None else f"purity {numbers['purity']:.2f}, "
        caption = f"{purity}KL from prior {numbers['kl_aggregate']:.2f} nats\nMI {numbers['mi']:.2f} nats"
        below.set_title(caption, fontsize=8)
        below.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$", aspect="equal")
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="", markersize=4, label=f"label {label}")
        for label, (marker, colour) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    axes[0, 0].set_ylabel("means of the posterior, $z_2$")
    axes[1, 0].set_ylabel("aggregated posterior, $z_2$")
    return figure


def aggregates(spaces: Sequence[LatentSpace]) -> Figure:
    """Figure 2: the prior N(0, I) and the aggregated q of each space, on one region and one scale of colours."""
    axis = np.linspace(-REGION, REGION, GRID)
    panels = [("prior N(0, I)", density(np.zeros((1, 2)), np.zeros((1, 2)), axis, axis))]
    for space in spaces:
        title = f"{space.title}\nKL from prior {space.numbers['kl_aggregate_q']:.2f} nats"
        panels.append((title, density(space.mean, space.logvar, axis, axis)))
    levels = np.linspace(0, max(values.max() for _, values in panels), 12)
    figure = Figure((2.7 * len(panels) + 0.6, 3.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (title, values) in zip(axes, panels, strict=True):
        ax.contourf(axis, axis, values, levels=levels, cmap="Blues")
        ax.contour(axis, axis, values, levels=levels, colors="black", linewidths=0.3)
        ax.set(title=title, xlabel="$z_1$", aspect="equal")
    axes[0].set_ylabel("$z_2$")
    figure.colorbar(axes[0].collections[0], ax=list(axes), label="density (per unit of area)")
    return figure


def read_spaces(figure: str, scale: Scale, records: Sequence[Record], runs: Path) -> list[LatentSpace]:
    """The space of each row of the figure, from its first seed whose workdir is in `runs`."""
    spaces: list[LatentSpace] = []
    for row in shown(figure, scale):
        for record in records:
            path = runs / record["run"] / ARRAYS
            if matches(record, row, scale) and path.is_file():
                with np.load(path) as file:
                    arrays = {name: file[name] for name in ("mean", "logvar", "factor", "labels")}
                title = f"{row.method}, {row.partition}"
                spaces.append(LatentSpace(title, **arrays, numbers=record["space"]))
                break
    return spaces


def draw(tables: Sequence[str], scale: Scale, records: Sequence[Record], runs: Path, folder: Path) -> list[Path]:
    """Draw all figures that the records allow; returns their PNG files. `runs` holds the workdirs."""
    drawn: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        for name, function in (("figure1", latent_spaces), ("figure2", aggregates)):
            if name in tables and (spaces := read_spaces(name, scale, records, runs)):
                drawn[name] = function(spaces)
        for corpus in dict.fromkeys(record["corpus"] for record in records):
            systems: dict[str, Any] = {}  # the first seed of each
            for record in records:
                if record["corpus"] == corpus:
                    name = record["run"].removeprefix(f"{corpus}-").split("-seed_")[0]
                    systems.setdefault(name, record["training"]["curves"])
            drawn[f"curves_{corpus}"] = curves(systems)
        for name, figure in drawn.items():
            save(figure, folder / name)
    return [folder / f"{name}.png" for name in drawn]
