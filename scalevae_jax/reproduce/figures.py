"""The figures of the paper, and the curves of training, drawn from files alone.

One style, and the colours of Okabe and Ito, which the colour-blind tell apart; points of a class have a shape of their
own too. Each figure is saved as PNG and as SVG.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.rcsetup import cycler

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS, LINES = "os^Dv", ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.dpi": 150,
    "svg.hashsalt": "scalevae_jax",  # the same file from the same numbers
}
GRID = 160  # points a side of a contour plot
LAYERS = 8  # in which the points of a scatter plot are drawn
REGION = 2.0  # Figure 2 shows [-2, 2] on both axes


class Space(NamedTuple):
    """A latent space of two dimensions, rows are sentences; of q, before the factor."""

    title: str
    mean: np.ndarray
    logvar: np.ndarray
    factor: np.ndarray
    labels: np.ndarray
    caption: str = ""

    @classmethod
    def read(cls, title: str, path: Path, caption: str = "") -> "Space":
        """From the space.npz of a run."""
        with np.load(path) as arrays:
            return cls(title, arrays["mean"], arrays["logvar"], arrays["factor"], arrays["labels"], caption)


@contextmanager
def style() -> Generator[None, None, None]:
    """The style of all figures."""
    with matplotlib.rc_context(STYLE):
        yield


def density(mean: np.ndarray, logvar: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The aggregated posterior, the mean of the rows' Gaussians, on a grid: [len(y), len(x)], per unit of area."""
    spread = np.exp(-0.5 * logvar)
    across = np.exp(-0.5 * ((x - mean[:, :1]) * spread[:, :1]) ** 2) * spread[:, :1]
    along = np.exp(-0.5 * ((y - mean[:, 1:]) * spread[:, 1:]) ** 2) * spread[:, 1:]
    return along.T @ across / (2 * np.pi * len(mean))


def _limits(mean: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two opposite corners of a square that shows all of the rows' Gaussians."""
    spread = 2 * np.exp(0.5 * logvar)
    low, high = np.min(mean - spread, axis=0), np.max(mean + spread, axis=0)
    middle, half = (low + high) / 2, np.max(high - low) / 2
    return middle - half, middle + half


def latent_spaces(spaces: Sequence[Space]) -> Figure:
    """Figure 1: the means of q_hat by label above, the aggregated q_hat below, a column a space."""
    figure = Figure((max(2.5 * len(spaces), 4.5), 5.6), layout="constrained")
    axes = figure.subplots(2, len(spaces), squeeze=False)
    for (above, below), space in zip(axes.T, spaces, strict=True):
        mean = space.mean * space.factor
        for layer in range(LAYERS):  # so that no label hides another
            for i, label in enumerate(np.unique(space.labels)):
                at = np.flatnonzero(space.labels == label)[layer::LAYERS]
                above.scatter(*mean[at].T, s=6, marker=MARKERS[i % 5], color=COLOURS[i % 7], linewidths=0, alpha=0.6)
        above.set(title=space.title, xlabel="$z_1$")
        above.set_aspect("equal", adjustable="datalim")
        low, high = _limits(mean, space.logvar)
        x, y = (np.linspace(low[d], high[d], GRID) for d in (0, 1))
        below.contourf(x, y, density(mean, space.logvar, x, y), levels=10, cmap="Blues")
        below.set_title(space.caption, fontsize=8)
        below.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$")
        below.set_aspect("equal")
    handles = [
        Line2D([], [], marker=MARKERS[i % 5], color=COLOURS[i % 7], linestyle="", markersize=4, label=f"label {label}")
        for i, label in enumerate(np.unique(spaces[0].labels))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    axes[0, 0].set_ylabel("means of the posterior, $z_2$")
    axes[1, 0].set_ylabel("aggregated posterior, $z_2$")
    return figure


def aggregates(spaces: Sequence[Space]) -> Figure:
    """Figure 2: the prior N(0, I) and the aggregated q of each space, on one region with one scale."""
    axis = np.linspace(-REGION, REGION, GRID)
    prior = density(np.zeros((1, 2)), np.zeros((1, 2)), axis, axis)
    panels = [("prior N(0, I)", prior)]
    panels += [(f"{s.title}\n{s.caption}".strip(), density(s.mean, s.logvar, axis, axis)) for s in spaces]
    levels = np.linspace(0, max(values.max() for _, values in panels), 12)
    figure = Figure((2.7 * len(panels) + 0.6, 3.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    drawn = []
    for ax, (title, values) in zip(axes, panels, strict=True):
        drawn.append(ax.contourf(axis, axis, values, levels=levels, cmap="Blues"))
        ax.contour(axis, axis, values, levels=levels, colors="black", linewidths=0.3)
        ax.set(title=title, xlabel="$z_1$", aspect="equal")
    axes[0].set_ylabel("$z_2$")
    figure.colorbar(drawn[0], ax=list(axes), label="density (per unit of area)")
    return figure


_CURVES = (
    ("valid_rec", "reconstruction (nats a sentence)", False),
    ("valid_kl", "KL(q || N(0, I)) (nats a sentence)", False),
    ("mi", "mutual information (nats)", False),
    ("factor_median", "scale factor, median of dimensions", True),
)


def curves(runs: Mapping[str, Mapping[str, list[Any]]]) -> Figure:
    """Validation of each run by epoch: rec, KL, MI, factor; `runs` has the curves of a record by the run's label."""
    figure = Figure((9.0, 5.4 + 0.1 * len(runs)), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for ax, (key, label, logarithmic) in zip(axes, _CURVES, strict=True):
        for i, (name, run) in enumerate(runs.items()):
            values = [np.nan if value is None else value for value in run[key]]
            if not np.isnan(values).all():
                look = {"color": COLOURS[i % 7], "linestyle": LINES[i // 7 % 4], "marker": MARKERS[i % 5]}
                ax.plot(run["epoch"], values, markersize=3, linewidth=1.2, label=name, **look)
        ax.set(xlabel="epoch", ylabel=label)
        if not ax.lines:
            ax.text(0.5, 0.5, "none of these has one", ha="center", transform=ax.transAxes)
        elif logarithmic:
            ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


READINGS = {
    "nll": "nll (prior as sampled: a bound)",
    "nll_unit_prior": "nll_unit_prior (a bound)",
    "nll_fitted_prior": "nll_fitted_prior (a bound)",
    "nll_paper": "nll_paper (no bound)",
}


def readings(rows: Sequence[Mapping[str, Any]], reported: Mapping[float, float]) -> Figure:
    """-log p(x) in its readings against des_std; `rows` have des_std and the readings, `reported` the paper's NLL."""
    figure = Figure((6.4 + 2.6 * bool(reported), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + bool(reported), squeeze=False, width_ratios=[2, 1][: 1 + bool(reported)])[0]
    rows = sorted(rows, key=lambda row: row["des_std"])
    for i, (key, label) in enumerate(READINGS.items()):
        x, y = [row["des_std"] for row in rows], [row[key] for row in rows]
        axes[0].plot(x, y, color=COLOURS[i], linestyle=LINES[i], marker=MARKERS[i], markersize=4, label=label)
    axes[0].set(xlabel="des_std (units of z)", ylabel="nats a sentence", title="here")
    if max(row["nll"] for row in rows) > 2 * min(row["nll_paper"] for row in rows):
        axes[0].set_yscale("log")
    axes[0].legend()
    if reported:
        axes[1].plot(*zip(*sorted(reported.items()), strict=True), color=COLOURS[6], marker="o", markersize=4)
        axes[1].set(xlabel="des_std (units of z)", ylabel="nats a document", title="the paper's Table 3, NLL")
    return figure


def save(figure: Figure, path: Path) -> None:
    """As path.png and path.svg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
