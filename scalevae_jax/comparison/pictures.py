"""Pictures of several runs, drawn from their records: curves of training, and the rate-distortion plane.

The colours are those of Okabe and Ito, which colour-blind readers tell apart; marks and lines differ in shape too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
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
    "svg.hashsalt": "scalevae_jax",  # equal numbers give equal files
}
SUMS = 8  # lines of equal rate + distortion, about so many


def curves(runs: Mapping[str, Mapping[str, list[Any]]]) -> Figure:
    """Validation by epoch; `runs` maps a name to the curves of a record. A run without a factor has no such curve."""
    figure = Figure((9.0, 5.4 + 0.1 * len(runs)), layout="constrained")
    panels = {
        "valid_rec": "reconstruction (nats a sentence)",
        "valid_kl": "KL(q || N(0, I)) (nats a sentence)",
        "mi": "mutual information (nats)",
        "factor_median": "scale factor, median of dimensions",
    }
    handles: dict[str, Any] = {}
    for ax, (key, label) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for i, (name, run) in enumerate(runs.items()):
            values = np.array(run[key], float)  # None becomes nan
            if not np.isnan(values).all():
                look = {"color": COLOURS[i % 7], "linestyle": LINES[i // 7 % 4], "marker": MARKERS[i % 5]}
                (handles[name],) = ax.plot(run["epoch"], values, markersize=3, linewidth=1.2, label=name, **look)
        ax.set(xlabel="epoch", ylabel=label)
        if not ax.lines:
            ax.text(0.5, 0.5, "none of these has one", ha="center", transform=ax.transAxes)
        elif key == "factor_median":
            ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


class Point(NamedTuple):
    """A run in the rate-distortion plane; nats a sentence."""

    method: str
    system: str
    seed: int
    prior: str  # of the bound
    rate: float  # KL(q_hat || prior)
    distortion: float  # rec
    bound: float  # -log p(x) under that prior
    paid: float | None  # the KL that Eq. 7 pays in place of the rate, where the method scales


def plane(points: Sequence[Point]) -> Figure:
    """The rate-distortion plane (Alemi et al. 2018): each run by what z costs and what it leaves to say.

    Small marks are runs, large ones the means of a system's seeds; a line joins the systems of a method in the order
    given. On a grey line the sum, -ELBO, is equal. A hollow mark stands where the KL that Eq. 7 pays would put the run.
    """
    figure = Figure((7.0, 5.2), layout="constrained")
    ax = figure.add_subplot()
    for i, method in enumerate(dict.fromkeys(point.method for point in points)):
        look: dict[str, Any] = {"color": COLOURS[i % 7], "marker": MARKERS[i % 5]}
        own = [point for point in points if point.method == method]
        systems = list(dict.fromkeys(point.system for point in own))
        means = np.array(
            [np.mean([(p.rate, p.distortion) for p in own if p.system == system], axis=0) for system in systems]
        )
        ax.plot(*means.T, linewidth=1, markersize=7, label=method, **look)
        if len(own) > len(systems):
            ax.scatter([p.rate for p in own], [p.distortion for p in own], s=10, alpha=0.6, **look)
        for system, (rate, distortion) in zip(systems, means, strict=True):
            if label := system.removeprefix(method).strip():
                ax.annotate(label, (rate, distortion), (4, 4), textcoords="offset points", fontsize=6)
        scaled = [(p.paid, p.distortion) for p in own if p.paid is not None]
        hollow: dict[str, Any] = {"s": 30, "facecolors": "none", "edgecolors": look["color"], "marker": look["marker"]}
        ax.scatter([x for x, _ in scaled], [y for _, y in scaled], **hollow)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for total in _round_steps(left + low, right + high):
        ax.plot((left, right), (total - left, total - right), color="0.8", linewidth=0.8, zorder=0)
        enters = max(left, total - high)  # at the left edge, or at the top
        if enters < min(right, total - low):
            where = (enters, total - enters)
            ax.annotate(f"{total:g}", where, (3, -8), textcoords="offset points", fontsize=7, color="0.4")
    ax.set(xlim=(left, right), ylim=(low, high))
    ax.set(xlabel="rate, KL(q_hat || prior) (nats a sentence)", ylabel="distortion, rec (nats a sentence)")
    ax.set_title("grey: equal -ELBO; hollow: with the KL that Eq. 7 pays, which is no rate")
    ax.legend(loc="best")
    return figure


def _round_steps(low: float, high: float) -> np.ndarray:
    """Round numbers between the two, about SUMS of them."""
    width = (high - low) / SUMS
    step = next(s * 10.0**e for e in range(-4, 300) for s in (1, 2, 5) if s * 10.0**e >= width)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def save(figure: Figure, path: Path) -> None:
    """Write path.png and path.svg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
