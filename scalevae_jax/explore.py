"""A page on this machine to look at trained models, one beside the other.

Examples:
  python -m scalevae_jax.explore runs/demo
  python -m scalevae_jax.explore runs/demo runs/vae --port 7861

Two sentences and a slider between them; draws from the prior; a map of the posterior means of the test split, where a
click shows a sentence and its reconstruction; KL and factor of each dimension. The page is served on 127.0.0.1 alone,
and asks nothing of any other machine. Needs the extra: pip install "scalevae_jax[explore]".
"""

import contextlib
import functools
import itertools
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import scalevae_jax
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference import metrics
from scalevae_jax.inference.model import PRIORS, TrainedModel
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer

PLACES = 7  # on the line between two sentences
INK, BLUE, ORANGE = "#1a1a1a", "#0b5394", "#b45309"  # a contrast of 4.5 to 1 or more against white


class View(NamedTuple):
    """What the page shows of a run; rows are sentences of the split, in its order."""

    name: str
    model: TrainedModel
    sentences: list[str]
    labels: np.ndarray
    mean: np.ndarray  # of q_hat, [rows, latent]
    plane: np.ndarray  # the same points in the plane of the map, [rows, 2]
    axes: tuple[str, str]
    kl: np.ndarray  # KL(q || N(0, I)) in nats, mean over the sentences, [latent]
    active: np.ndarray  # [latent]


def project(mean: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Points in a plane and the names of its axes: two dimensions as they are, more by principal components."""
    if mean.shape[1] == 1:
        return np.column_stack([mean, np.zeros(len(mean))]), ("dimension 0", "")
    if mean.shape[1] == 2:
        return mean, ("dimension 0", "dimension 1")
    centred = np.float64(mean - mean.mean(0))
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    share = sizes**2 / max(np.sum(sizes**2), 1e-300)
    first, second = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in (0, 1))
    return centred @ axes[:2].T, (first, second)


def view(name: str, model: TrainedModel, split: str, limit: int) -> View:
    """Infer the first sentences of a split. Raises InputError for a language model, or for fewer than two sentences."""
    data = model.run.settings.data
    text = corpus.open(data)
    rows = text.split(split, model.run.words).first(limit)
    sentences = [" ".join(words) for words in itertools.islice(text.sentences(split), limit)]
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no z to look at")
    if len(sentences) < 2:
        raise InputError(f"{data.path}: {split}: expected two sentences or more for a map")
    posteriors = model.infer(model.batches(rows)).posteriors
    mean = np.asarray(posteriors.q_hat.mean)
    plane, axes = project(mean)
    labels = np.zeros(len(mean), int) if rows.labels is None else rows.labels
    kl = np.asarray(penalty.unit_rate(posteriors)).mean(0)
    active = metrics.active(posteriors.q.mean)
    return View(name, model, sentences, labels, mean, plane, axes, kl, active)


def between(views: Sequence[View], a: str, b: str, places: np.ndarray) -> list[list[str]]:
    """For each model the sentences at `places` on the line from a (0) to b (1)."""
    ends = [v.model.encode([a, b])[0] for v in views]
    return [v.model.decode(z[0] + places[:, None] * (z[1] - z[0])) for v, z in zip(views, ends, strict=True)]


def sample(
    views: Sequence[View], num: int | float, seed: int | float | None, temperature: float, prior: str
) -> list[str]:
    """For each model `num` sentences from its prior, one a line."""
    if seed is None or seed < 0 or seed != int(seed):
        raise InputError("seed: expected a whole number, 0 or more")
    return ["\n".join(v.model.sample(int(num), int(seed), prior, temperature=temperature)) for v in views]


def choose(v: View, number: int | float | None) -> tuple[np.ndarray, str, str]:
    """The map with sentence `number` (counted from 1) marked, the sentence, and its reconstruction."""
    if number is None:  # the field was emptied
        return draw_map(v)[0], "", ""
    if not 1 <= number <= len(v.sentences):
        raise InputError(f"sentence: expected a number from 1 to {len(v.sentences)}")
    row = int(number) - 1
    return draw_map(v, row)[0], v.sentences[row], v.model.decode(v.mean[row : row + 1])[0]


def nearest(places: np.ndarray, point: Sequence[float]) -> int:
    """The number, counted from 1, of the sentence that lies nearest to a point of the picture."""
    return int(np.argmin(np.sum(np.square(places - point), axis=1))) + 1


def _figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, since matplotlib is an extra
    from matplotlib.figure import Figure

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
        ax.scatter(*points.T, s=9, color=f"C{i % 10}", marker="os^Dv"[i % 5], label=f"label {label}", linewidths=0)
    if len(labels) > 1:
        ax.legend(loc="upper right")
    if chosen is not None:
        ax.scatter(*v.plane[chosen], s=160, facecolors="none", edgecolors=INK, linewidths=2)
    ax.set(xlabel=v.axes[0], ylabel=v.axes[1], title=f"{v.name}: posterior means, {len(v.mean)} sentences")
    image = _pixels(figure)
    places = ax.transData.transform(v.plane)  # matplotlib counts from the bottom
    return image, np.column_stack([places[:, 0], image.shape[0] - places[:, 1]])


def draw_dimensions(v: View) -> np.ndarray:
    """KL of each dimension, active ones filled, and the factor of each, as an image."""
    figure = _figure()
    top, bottom = figure.subplots(2, sharex=True)
    dimensions = np.arange(len(v.kl))
    for active, fill, label in ((True, BLUE, "active"), (False, "white", "not active")):
        some = v.active == active
        top.bar(dimensions[some], v.kl[some], color=fill, edgecolor=BLUE, label=label if some.any() else None)
    top.legend()
    top.set(ylabel="KL (nats a sentence)", title=f"{v.name}: {summary(v)}")
    bottom.bar(dimensions, np.asarray(v.model.run.factor), color=ORANGE)
    bottom.set(ylabel="factor", xlabel="dimension of z")
    return _pixels(figure)


def summary(v: View) -> str:
    """KL, active dimensions and factors in words."""
    factor = np.asarray(v.model.run.factor)
    active = f"{v.active.sum()} of {len(v.kl)} active"
    return f"KL {v.kl.sum():.2f} nats, {active}, factor {factor.min():.2f} to {factor.max():.2f}"


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # else it calls home when it is imported
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio  # here, since it is an extra
    except ImportError as error:
        raise InputError(f'{error}; the page needs pip install "scalevae_jax[explore]"') from error
    return gradio


def build(views: list[View]) -> Any:
    """The page, a gradio.Blocks."""
    gr = _gradio()

    def shown(function: Callable[..., Any]) -> Callable[..., Any]:
        """Shows an InputError as a notice on the page."""

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except InputError as error:
                raise gr.Error(str(error), title="Please correct", print_exception=False) from error

        return call

    def boxes(lines: int, what: str) -> list[Any]:
        with gr.Row():
            return [
                gr.Textbox(label=f"{v.name}: {what}", lines=lines, max_lines=lines, interactive=False) for v in views
            ]

    @shown
    def line(a: str, b: str, t: float) -> list[str]:
        results = between(views, a, b, np.append(t, np.linspace(0, 1, PLACES)))
        return [sentences[0] for sentences in results] + ["\n".join(sentences[1:]) for sentences in results]

    def on_click(places: np.ndarray) -> Callable[..., int]:
        def click(event: gr.SelectData) -> int:  # pyright: ignore (gradio reads the annotation)
            return nearest(places, event.index)

        return click

    plain = {"interactive": False, "show_label": False, "buttons": []}  # nothing may cover a picture
    with gr.Blocks(title="scalevae_jax", analytics_enabled=False) as page:
        gr.Markdown("# " + ", ".join(v.name for v in views))
        with gr.Tab("Between two sentences"):
            first, last = views[0].sentences[0], views[0].sentences[-1]
            a = gr.Textbox(first, label="One sentence (words and punctuation separated by spaces)", elem_id="a")
            b = gr.Textbox(last, label="Another sentence", elem_id="b")
            t = gr.Slider(
                0.0, 1.0, 0.5, step=0.05, label="Place on the line, from the one (0) to the other (1)", elem_id="t"
            )
            go = gr.Button("Show the line", variant="primary", elem_id="go")
            here, whole = boxes(1, "at this place"), boxes(PLACES, f"{PLACES} places, ends included")
            changes = [go.click, a.submit, b.submit, t.change]
            gr.on(changes, line, [a, b, t], here + whole, trigger_mode="always_last")
        with gr.Tab("Draws from the prior"):
            num = gr.Slider(1, 50, 10, step=1, label="Sentences")
            seed = gr.Number(0, label="Seed", precision=0, elem_id="seed")
            temperature = gr.Slider(0.0, 2.0, 0.7, step=0.1, label="Temperature: 0 takes the likeliest word")
            prior = gr.Radio(list(PRIORS), value="model", label="Prior")
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
            draws = functools.partial(sample, views)
            draw.click(shown(draws), [num, seed, temperature, prior], boxes(10, "sentences"))
        with gr.Tab("Map"):
            gr.Markdown("Click a point, or give the number of a sentence, to see it and its reconstruction.")
            with gr.Row():
                for i, v in enumerate(views):
                    with gr.Column():
                        picture, places = draw_map(v)
                        image = gr.Image(picture, label=f"{v.name}: map", elem_id=f"map{i}", **plain)
                        number = gr.Number(label="Sentence", precision=0, elem_id=f"number{i}")
                        outputs = [image] + [
                            gr.Textbox(label=f"{v.name}: {what}", interactive=False, elem_id=f"{what}{i}")
                            for what in ("sentence", "reconstruction")
                        ]
                        image.select(on_click(places), None, number)
                        marked = shown(functools.partial(choose, v))
                        number.change(marked, number, outputs, trigger_mode="always_last")
        with gr.Tab("Dimensions"), gr.Row():
            for v in views:
                with gr.Column():
                    gr.Image(draw_dimensions(v), label=f"{v.name}: KL and factor of each dimension", **plain)
                    gr.Markdown(summary(v))
    return page


def serve(page: Any, port: int) -> str:
    """Serve the page on 127.0.0.1 in a thread and return its address. Raises InputError if the port is taken."""
    gr = _gradio()
    # gradio's own theme loads fonts from the network and has text too pale to read.
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    colours = {f"{part}_text_color": INK for part in ("block_label", "block_title")}
    colours |= {"body_text_color_subdued": INK, "color_accent": BLUE, "button_primary_background_fill": BLUE}
    colours |= {"checkbox_label_background_fill_selected": BLUE, "checkbox_label_text_color_selected": "white"}
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(**colours, button_primary_text_color="white")
    options = {"theme": theme, "footer_links": [], "ssr_mode": False, "share": False, "quiet": True}
    try:
        _, url, _ = page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be used ({error}); choose another") from error
    return url


def parser() -> Parser:
    """The arguments of this command."""
    arguments = Parser("scalevae_jax.explore", __doc__, "FOLDER ... ")
    arguments.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run, or of an exported model")
    arguments.add_argument("--port", type=integer(1, 65535), default=7860, help="of the page, on 127.0.0.1")
    arguments.add_argument("--split", choices=corpus.SPLITS, default="test", help="whose sentences the map shows")
    arguments.add_argument("--limit", type=integer(2), default=2000, help="first so many sentences of it")
    return arguments


def _command(options: Namespace) -> None:
    _gradio()
    split, limit = options.split, options.limit
    views = [view(Path(folder).name, scalevae_jax.load(folder), split, limit) for folder in options.folders]
    page = build(views)
    address = serve(page, options.port)
    with contextlib.suppress(KeyboardInterrupt):  # gradio catches one, but not before it waits
        console.log(f"open {address} (Ctrl-C ends)")
        page.block_thread()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.run(_command, parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
