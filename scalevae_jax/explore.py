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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference import metrics
from scalevae_jax.inference.model import PRIORS, TrainedModel, load
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.flags import Flags

PLACES = 7  # shown of a line
INK, BLUE, ORANGE = "#1a1a1a", "#0b5394", "#b45309"  # 4.5 to 1 against white, or more


class View(NamedTuple):
    """What the page shows of a run; rows are sentences of the split, in its order."""

    name: str
    model: TrainedModel
    sentences: list[str]
    labels: np.ndarray
    mean: np.ndarray  # of q_hat
    plane: np.ndarray  # [rows, 2]
    axes: tuple[str, str]
    kl: np.ndarray  # [latent], KL(q || N(0, I)) in nats, mean of the sentences
    active: np.ndarray


def project(mean: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Points in a plane and what its axes are: two dimensions as they are, more by principal components."""
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
    """Infer the first sentences of a split. Raises InputError for a language model."""
    data = model.run.settings.data
    text = corpus.open(data)
    rows = text.split(split, model.run.words).first(limit)
    sentences = [" ".join(words) for words in itertools.islice(text.sentences(split), limit)]
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no z to look at")
    if len(sentences) < 2:
        raise InputError(f"{data.path}: {split}: two sentences at least are wanted for a map")
    posteriors = model.infer(model.batches(rows)).posteriors
    mean = np.asarray(posteriors.q_hat.mean)
    plane, axes = project(mean)
    labels = np.zeros(len(mean), int) if rows.labels is None else rows.labels
    kl = np.asarray(penalty.unit_rate(posteriors)).mean(0)
    active = metrics.active(posteriors.q.mean)
    return View(name, model, sentences, labels, mean, plane, axes, kl, active)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def draw_map(v: View, chosen: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The map as an image [height, width, 3], and where in it each sentence lies, [rows, 2] in pixels from top left."""
    figure = _figure(6.4, 4.8)
    ax = figure.add_subplot()
    for i, label in enumerate(np.unique(v.labels)):
        at = v.labels == label
        ax.scatter(*v.plane[at].T, s=9, color=f"C{i % 10}", marker="os^Dv"[i % 5], label=f"label {label}", linewidths=0)
    if len(np.unique(v.labels)) > 1:
        ax.legend(loc="upper right")
    if chosen is not None:
        ax.scatter(*v.plane[chosen], s=160, facecolors="none", edgecolors=INK, linewidths=2)
    ax.set(xlabel=v.axes[0], ylabel=v.axes[1], title=f"{v.name}: posterior means, {len(v.mean)} sentences")
    image = _pixels(figure)
    at = ax.transData.transform(v.plane)
    return image, np.column_stack([at[:, 0], image.shape[0] - at[:, 1]])


def draw_dimensions(v: View) -> np.ndarray:
    """KL of each dimension, active ones filled, and the factor of each, as an image."""
    figure = _figure(6.4, 4.8)
    top, bottom = figure.subplots(2, sharex=True)
    where = np.arange(len(v.kl))
    for active, fill, label in ((True, BLUE, "active"), (False, "white", "not active")):
        at = v.active == active
        top.bar(where[at], v.kl[at], color=fill, edgecolor=BLUE, label=label if at.any() else None)
    top.legend()
    top.set(ylabel="KL (nats a sentence)", title=f"{v.name}: {summary(v)}")
    bottom.bar(where, np.asarray(v.model.run.factor), color=ORANGE)
    bottom.set(ylabel="factor", xlabel="dimension of z")
    return _pixels(figure)


def summary(v: View) -> str:
    """The dimensions in words."""
    factor = np.asarray(v.model.run.factor)
    active = f"{v.active.sum()} of {len(v.kl)} active"
    return f"KL {v.kl.sum():.2f} nats, {active}, factor {factor.min():.2f} to {factor.max():.2f}"


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise InputError(f'{error}; the page wants pip install "scalevae_jax[explore]"') from error
    return gradio


def build(views: list[View]) -> Any:
    """The page, a gradio.Blocks."""
    gr = _gradio()

    def shown(function: Callable[..., Any]) -> Callable[..., Any]:
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

    def decoded(a: str, b: str, places: np.ndarray) -> list[list[str]]:
        ends = [v.model.encode([a, b])[0] for v in views]
        return [v.model.decode(z[0] + places[:, None] * (z[1] - z[0])) for v, z in zip(views, ends, strict=True)]

    @shown
    def between(a: str, b: str, t: float) -> list[str]:
        return [sentences[0] for sentences in decoded(a, b, np.array([t]))]

    @shown
    def line(a: str, b: str, t: float) -> list[str]:
        results = decoded(a, b, np.append(t, np.linspace(0, 1, PLACES)))
        return [here for here, *_ in results] + ["\n".join(whole) for _, *whole in results]

    @shown
    def draws(num: float, seed: float | None, temperature: float, prior: str) -> list[str]:
        if seed is None or seed < 0 or seed != int(seed):
            raise InputError("seed: a whole number, 0 or more")
        return ["\n".join(v.model.sample(int(num), int(seed), prior, temperature=temperature)) for v in views]

    @shown
    def choose(v: View, number: float | None) -> tuple[np.ndarray, str, str]:
        if number is None:  # the field was emptied
            return draw_map(v)[0], "", ""
        if not 1 <= number <= len(v.sentences):
            raise InputError(f"sentence: a number from 1 to {len(v.sentences)}")
        row = int(number) - 1
        return draw_map(v, row)[0], v.sentences[row], v.model.decode(v.mean[row : row + 1])[0]

    def on_click(places: np.ndarray) -> Callable[..., int]:
        def click(event: gr.SelectData) -> int:  # pyright: ignore (gradio reads it)
            return int(np.argmin(np.sum(np.square(places - event.index), axis=1))) + 1

        return click

    plain = {"interactive": False, "show_label": False, "buttons": []}  # of a picture: nothing that covers it
    with gr.Blocks(title="scalevae_jax", analytics_enabled=False) as page:
        gr.Markdown("# " + ", ".join(v.name for v in views))
        with gr.Tab("Between two sentences"):
            first, last = views[0].sentences[0], views[0].sentences[-1]
            a = gr.Textbox(first, label="One sentence (words and punctuation separated by spaces)", elem_id="a")
            b = gr.Textbox(last, label="Another sentence", elem_id="b")
            t = gr.Slider(0.0, 1.0, 0.5, step=0.05, label="Place on the line: 0 is the one, 1 the other", elem_id="t")
            go = gr.Button("Show the line", variant="primary", elem_id="go")
            here, whole = boxes(1, "at this place"), boxes(PLACES, f"{PLACES} places, ends included")
            t.change(between, [a, b, t], here, trigger_mode="always_last")
            gr.on([go.click, a.submit, b.submit], line, [a, b, t], here + whole)
        with gr.Tab("Draws from the prior"):
            num = gr.Slider(1, 50, 10, step=1, label="Sentences")
            seed = gr.Number(0, label="Seed", precision=0, elem_id="seed")
            temperature = gr.Slider(0.0, 2.0, 0.7, step=0.1, label="Temperature: 0 takes the likeliest word")
            prior = gr.Radio(list(PRIORS), value="model", label="Prior")
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
            draw.click(draws, [num, seed, temperature, prior], boxes(10, "sentences"))
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
                        number.change(functools.partial(choose, v), number, outputs, trigger_mode="always_last")
        with gr.Tab("Dimensions"), gr.Row():
            for v in views:
                with gr.Column():
                    gr.Image(draw_dimensions(v), label=f"{v.name}: KL and factor of each dimension", **plain)
                    gr.Markdown(summary(v))
    return page


def serve(page: Any, port: int) -> str:
    """Serve the page on 127.0.0.1 in a thread; its address. Raises InputError where the port is taken.

    The theme has fonts of this machine alone, and colours that stand out from their ground.
    """
    gr = _gradio()
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    colours = {f"{part}_text_color": INK for part in ("block_label", "block_title")}
    colours |= {"body_text_color_subdued": INK, "color_accent": BLUE, "button_primary_background_fill": BLUE}
    colours |= {"checkbox_label_background_fill_selected": BLUE, "checkbox_label_text_color_selected": "white"}
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(**colours, button_primary_text_color="white")
    options = {"theme": theme, "footer_links": [], "ssr_mode": False, "share": False, "quiet": True}
    try:
        _, url, _ = page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise InputError(f"--port {port}: can not be used ({error}); choose another") from error
    return url


FLAGS = Flags()
PORT = FLAGS.integer("port", 7860, "of the page, on 127.0.0.1", 1, 65535)
SPLIT = FLAGS.choice("split", "test", corpus.SPLITS, "whose sentences the map shows")
LIMIT = FLAGS.integer("limit", 2000, "first so many sentences of it", 2)


def _command(folders: list[str]) -> None:
    if not folders:
        raise InputError("the folder of a run is wanted, or of several: explore runs/demo (see --help)")
    _gradio()
    views = [view(Path(folder).name, load(folder), SPLIT.value, LIMIT.value) for folder in folders]
    page = build(views)
    address = serve(page, PORT.value)
    with contextlib.suppress(KeyboardInterrupt):  # gradio catches one, but not before it waits
        console.log(f"open {address} (Ctrl-C ends)")
        page.block_thread()


main = functools.partial(command.run, "scalevae_jax.explore", _command, FLAGS, __doc__, positional=True)

if __name__ == "__main__":
    sys.exit(main())
