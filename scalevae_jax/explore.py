"""Serve a page on this machine to look at trained models side by side.

Examples:
  python -m scalevae_jax.explore runs/demo
  python -m scalevae_jax.explore runs/demo runs/demo_vae --port 7861

The page shows one sentence, its NLL terms, its reconstruction and the training sentences nearest to it; two sentences
and a slider between them; draws from the prior; a map of the posterior means of the test split, where a click shows a
sentence and its reconstruction; KL and factor of each dimension, counted from 0. It is served only on 127.0.0.1, and
contacts no other machine. Needs the extra: pip install "scalevae_jax[explore]".
"""

import contextlib
import functools
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import scalevae_jax
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference.decoding import TEMPERATURE
from scalevae_jax.inference.model import PRIORS, TrainedModel
from scalevae_jax.inference.views import BLUE, INK, View, draw_dimensions, draw_map, summary, tops, view
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer

PLACES = 7  # on the line between two sentences
NEAREST = 5  # sentences
WORDS = ", words and punctuation separated by spaces"  # what a model of words reads


def each(views: Sequence[View], answer: Callable[[View], list[str]], texts: int = 1) -> list[list[str]]:
    """The answer of every model, `texts` texts; where a model has none, its message stands in place of the first.

    Raises InputError if no model has an answer.
    """
    answers: list[list[str]] = []
    errors: list[InputError] = []
    for v in views:
        try:
            answers.append(answer(v))
        except InputError as error:
            errors.append(error)
            answers.append([f"({error})"] + [""] * (texts - 1))
    if len(errors) == len(views):
        raise errors[0]
    return answers


def describe(v: View, text: str) -> list[str]:
    """Of one sentence: its costs, its reconstruction, its posterior, and the nearest training sentences, each with its
    number in the split."""
    mean, scale = v.model.encode([text])
    costs = {key: float(x[0]) for key, x in v.model.score([text]).items()}
    costs_line = ", ".join(f"{key} {costs[key]:.2f}" for key in ("nll", "rec", "kl")) + " nats"
    posterior = "  ".join(f"{i}: {m:.2f} ± {s:.2f}" for i, (m, s) in enumerate(zip(mean[0], scale[0], strict=True)))
    rows = np.argsort(np.sum(np.square(v.training_mean - mean), axis=1), kind="stable")[:NEAREST]
    near = "\n".join(f"{row + 1}: {v.model.written([v.training[row]])[0]}" for row in rows)
    return [
        costs_line,
        v.model.written(v.model.decode(mean))[0],
        posterior,
        near or "the training split is not at hand",
    ]


def between(views: Sequence[View], a: str, b: str, places: np.ndarray) -> list[list[str]]:
    """For each model the sentences at `places` on the line from a (0) to b (1)."""

    def line(v: View) -> list[str]:
        z = v.model.encode([a, b])[0]
        return v.model.written(v.model.decode(z[0] + places[:, None] * (z[1] - z[0])))

    return each(views, line, len(places))


def sample(
    views: Sequence[View], num: int | float, seed: int | float | None, temperature: int | float, prior: str
) -> list[str]:
    """For each model `num` sentences from its prior, one a line."""
    if seed is None or seed < 0 or seed != int(seed):
        raise InputError("seed: expected a whole number, 0 or more")
    how = {"seed": int(seed), "prior": prior, "temperature": float(temperature)}
    draw = functools.partial(TrainedModel.sample, num=int(num), **how)
    return ["\n".join(sentences) for sentences in each(views, lambda v: v.model.written(draw(v.model)))]


def choose(v: View, number: int | float | None) -> tuple[np.ndarray, str, str]:
    """The map with sentence `number` (counted from 1) marked, the sentence, and its reconstruction."""
    if number is None:  # the field was emptied
        return draw_map(v)[0], "", ""
    if not 1 <= number <= len(v.sentences):
        raise InputError(f"sentence: expected a number from 1 to {len(v.sentences)}")
    row = int(number) - 1
    sentence, reconstruction = v.model.written([v.sentences[row], *v.model.decode(v.mean[row : row + 1])])
    return draw_map(v, row)[0], sentence, reconstruction


def nearest(places: np.ndarray, point: Sequence[int | float]) -> int:
    """The number, counted from 1, of the sentence that lies nearest to a point of the picture."""
    return int(np.argmin(np.sum(np.square(places - point), axis=1))) + 1


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
        """One for each model, in a row where there is room; a box grows with a text that is longer."""
        sizes = {"lines": lines, "max_lines": lines + 3, "min_width": 300}
        with gr.Row():
            return [gr.Textbox(label=f"{v.name}: {what}", interactive=False, **sizes) for v in views]

    @shown
    def line(a: str, b: str, t: int | float) -> list[str]:
        results = between(views, a, b, np.append(t, np.linspace(0, 1, PLACES)))
        return [sentences[0] for sentences in results] + ["\n".join(sentences[1:]) for sentences in results]

    @shown
    def sentence(text: str) -> list[str]:
        answers = each(views, lambda v: describe(v, text), 4)
        return [answer[i] for i in range(4) for answer in answers]

    def on_click(places: np.ndarray) -> Callable[..., int]:
        def click(event: gr.SelectData) -> int:  # pyright: ignore (gradio reads the annotation)
            return nearest(places, event.index)

        return click

    words = WORDS if any(v.model.run.settings.data.tokenizer == "words" for v in views) else ""
    plain = {"interactive": False, "show_label": False, "buttons": []}  # nothing may cover a picture
    with gr.Blocks(title="scalevae_jax", analytics_enabled=False) as page:
        gr.Markdown("# " + ", ".join(v.name for v in views))
        with gr.Tab("One sentence"):
            one = gr.Textbox(views[0].sentences[0], label=f"A sentence{words}", elem_id="one")
            ask = gr.Button("Show the sentence", variant="primary", elem_id="ask")
            whats = ("costs", "reconstruction", "mean ± std by dimension", f"{NEAREST} nearest training sentences")
            columns = [boxes(NEAREST if what is whats[-1] else 1, what) for what in whats]
            gr.on([ask.click, one.submit], sentence, one, [box for column in columns for box in column])
        with gr.Tab("Between two sentences"):
            first, last = views[0].sentences[0], views[0].sentences[-1]
            a = gr.Textbox(first, label=f"One sentence{words}", elem_id="a")
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
            temperature = gr.Slider(0.0, 2.0, TEMPERATURE, step=0.1, label="Temperature: 0 takes the likeliest word")
            prior = gr.Radio(list(PRIORS), value="model", label="Prior")
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
            draws = functools.partial(sample, views)
            draw.click(shown(draws), [num, seed, temperature, prior], boxes(10, "sentences"))
        with gr.Tab("Map"):
            gr.Markdown("Click a point, or give the number of a sentence, to see it and its reconstruction.")
            with gr.Row():
                for i, v in enumerate(views):
                    with gr.Column():
                        picture, *texts = choose(v, 1)
                        image = gr.Image(picture, label=f"{v.name}: map", elem_id=f"map{i}", **plain)
                        number = gr.Number(1, label="Sentence", precision=0, elem_id=f"number{i}")
                        outputs = [image] + [
                            gr.Textbox(text, label=f"{v.name}: {what}", interactive=False, elem_id=f"{what}{i}")
                            for what, text in zip(("sentence", "reconstruction"), texts, strict=True)
                        ]
                        image.select(on_click(draw_map(v)[1]), None, number)
                        marked = shown(functools.partial(choose, v))
                        number.change(marked, number, outputs, trigger_mode="always_last")
        largest = tops(views)
        with gr.Tab("Dimensions"), gr.Row():
            for v in views:
                with gr.Column():
                    gr.Image(draw_dimensions(v, largest), label=f"{v.name}: KL and factor of each dimension", **plain)
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
    options = {"theme": theme, "css": ".dark {--color-accent: #60a5fa}"}  # a theme has one accent for light and dark
    options |= {"footer_links": [], "ssr_mode": False, "share": False, "quiet": True}
    try:
        _, url, _ = page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be used ({error}); choose another") from error
    return url


def open_views(folders: Sequence[str], split: str, limit: int) -> list[View]:
    """A view of each folder's model. One that cannot be shown is left out with a warning. Raises InputError if none
    can."""
    views: list[View] = []
    errors: list[InputError] = []
    for folder in folders:
        console.log(f"loading {folder}")
        try:
            views.append(view(Path(folder).resolve().name, scalevae_jax.load(folder), split, limit))
        except InputError as error:
            errors.append(error)
    if not views:
        raise errors[0]
    for error in errors:
        console.warn(f"{error}; this model is left out")
    return views


def parser() -> Parser:
    arguments = Parser("scalevae_jax.explore", __doc__, "FOLDER ... ")
    arguments.add_argument("folders", nargs="+", metavar="FOLDER", help="the folder of a run, or of an exported model")
    arguments.add_argument("--port", type=integer(1, 65535), default=7860, help="port of the page, on 127.0.0.1")
    arguments.add_argument("--split", choices=corpus.SPLITS, default="test", help="whose sentences the map shows")
    arguments.add_argument(
        "--limit",
        type=integer(2),
        default=2000,
        help="take the first LIMIT sentences of it, and of the training split for the nearest ones",
    )
    return arguments


def _command(options: Namespace) -> None:
    _gradio()
    split, limit = options.split, options.limit
    views = open_views(options.folders, split, limit)
    console.log("starting the server")
    page = build(views)
    address = serve(page, options.port)
    with contextlib.suppress(KeyboardInterrupt):  # gradio catches one, but not before it waits
        console.log(f"open {address} (Ctrl-C ends)")
        page.block_thread()


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
