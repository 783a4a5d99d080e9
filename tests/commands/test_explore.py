"""The page: its pictures, its answers, and how it is served."""

import dataclasses
import re
import socket
import urllib.request
from unittest import mock

import numpy as np
import pytest
from process import free_port
from small import SENTENCES, make_run, shared_model

import scalevae_jax
from scalevae_jax import explore
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import views
from scalevae_jax.inference.model import TrainedModel


def test_a_view_holds_posteriors_and_kl_of_the_model(shown):
    view = shown[0]
    assert view.sentences == SENTENCES[:15]
    assert view.labels.tolist() == [i % 2 for i in range(15)]
    np.testing.assert_allclose(view.mean, view.model.encode(view.sentences)[0], rtol=1e-5, atol=1e-6)
    scores = view.model.score(view.sentences, samples=1)
    assert view.kl.sum() == pytest.approx(scores["kl"].mean(), rel=1e-5)
    assert explore.summary(view).endswith("active, factor 2.00 to 3.00")


def test_one_or_two_dimensions_are_shown_as_they_are_and_more_by_principal_components(rng):
    flat = rng.normal(size=(50, 2))
    np.testing.assert_array_equal(views.project(flat)[0], flat)
    axes = np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    points, (first, _) = views.project(flat * [3, 1] @ axes + 7)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (points, flat * [3, 1])]
    np.testing.assert_allclose(*distances, atol=1e-6)
    assert np.var(points[:, 0]) > np.var(points[:, 1])
    assert int(re.search(r"\((\d+)%", first)[1]) > 70
    points, axes = views.project(flat[:, :1])
    assert (points.shape, axes) == ((50, 2), ("dimension 0", ""))


def test_every_sentence_lies_where_the_map_says(shown):
    image, places = explore.draw_map(shown[0])
    assert image.shape == (480, 640, 3)
    for number, (x, y) in enumerate(places, 1):
        around = image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
        assert around.min() < 200, "no ink where a point should be"
        assert explore.nearest(places, (x + 0.1, y)) == number
    assert np.any(explore.draw_map(shown[0], 3)[0] != image)


def test_dimensions_count_from_0_and_runs_side_by_side_have_one_scale(shown, monkeypatch):
    figures, image = [], np.zeros((480, 640, 3), np.uint8)
    monkeypatch.setattr(views, "_pixels", lambda figure: figures.append(figure) or image)
    largest = views.tops(shown)
    assert largest == (max(float(v.kl.max()) for v in shown), 3.0)
    for v in shown:
        explore.draw_dimensions(v, largest)
    (top, bottom), *others = [figure.axes for figure in figures]
    assert [ax.get_ylim() for ax in others[0]] == [top.get_ylim(), bottom.get_ylim()]
    assert bottom.get_xticks().tolist() == [0, 1, 2]
    assert top.get_ylim()[1] >= largest[0]
    explore.draw_map(shown[0]._replace(plane=shown[0].plane * [1, 0], axes=("dimension 0", "")))
    assert figures[-1].axes[0].get_yticks().tolist() == []


def test_what_the_page_answers_is_what_the_models_say(shown):
    a, b = SENTENCES[0], SENTENCES[7]
    for view, line in zip(shown, explore.between(shown, a, b, np.linspace(0, 1, 7)), strict=True):
        assert line == view.model.written(view.model.interpolate(a, b, 7))
    sentences = explore.sample(shown, 4, 3, 0.7, "unit")
    drawn = [v.model.sample(4, 3, "unit", temperature=0.7) for v in shown]
    assert sentences == ["\n".join(v.model.written(texts)) for v, texts in zip(shown, drawn, strict=True)]
    assert " ." not in "".join(sentences)
    image, sentence, reconstruction = explore.choose(shown[1], 3)
    both = [SENTENCES[2], *shown[1].model.reconstruct([SENTENCES[2]])]
    assert [sentence, reconstruction] == shown[1].model.written(both)
    assert np.any(image != explore.choose(shown[1], None)[0])
    assert explore.choose(shown[1], None)[1:] == ("", "")


def test_one_sentence_has_costs_a_posterior_a_reconstruction_and_neighbours(shown):
    v, text = shown[0], SENTENCES[4]
    costs, reconstruction, posterior, near = explore.describe(v, text)
    scores, (mean, scale) = v.model.score([text]), v.model.encode([text])
    assert costs == f"nll {scores['nll'][0]:.2f}, rec {scores['rec'][0]:.2f}, kl {scores['kl'][0]:.2f} nats"
    assert [reconstruction] == v.model.written(v.model.reconstruct([text]))
    assert posterior.startswith(f"0: {mean[0, 0]:.2f} ± {scale[0, 0]:.2f}  1: ")
    assert len(v.training) == len(v.training_mean) == 15
    expected = v.model.nearest(text, v.training, 5)
    numbers = [v.training.index(sentence) + 1 for sentence in expected]
    assert near.splitlines() == [f"{i}: {text}" for i, text in zip(numbers, v.model.written(expected), strict=True)]


def test_without_the_training_split_the_page_says_so(tmp_path):
    run = make_run(tmp_path / "run", "vae")
    (run.workdir / "data" / "train.txt").unlink()
    v = explore.view("vae", TrainedModel(run), "test", 5)
    assert explore.describe(v, SENTENCES[4])[3] == "the training split is not at hand"


def test_a_model_that_fails_leaves_the_answers_of_the_others(shown):
    run = shown[1].model.run
    data = dataclasses.replace(run.settings.data, max_words=3)
    few = run._replace(settings=dataclasses.replace(run.settings, data=data))
    failing = shown[1]._replace(model=TrainedModel(few))
    a, b = SENTENCES[0], SENTENCES[7]
    places = np.linspace(0, 1, 3)
    good, bad = explore.between([shown[0], failing], a, b, places)
    assert good == explore.between(shown[:1], a, b, places)[0]
    assert bad == ["(sentence 1: 4 words; this model reads 3 at most)", "", ""]
    with pytest.raises(InputError, match="4 words"):
        explore.between([failing], a, b, places)


def test_a_folder_that_cannot_be_shown_leaves_the_others(shown, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scalevae_jax, "load", lambda folder: shared_model("lstm_lm" if folder == "lm" else "vae"))
    (only,) = explore.open_views(["lm", str(tmp_path / "vae")], "test", 5)
    assert only.name == "vae"
    assert "has no z to look at; this model is left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="no z to look at"):
        explore.open_views(["lm"], "test", 5)


def test_wrong_fields_are_one_line(shown):
    for seed in (-3, 0.5, None):
        with pytest.raises(InputError, match="seed: expected a whole number, 0 or more"):
            explore.sample(shown, 1, seed, 1.0, "model")
    for number in (0, 16):
        with pytest.raises(InputError, match="sentence: expected a number from 1 to 15"):
            explore.choose(shown[0], number)


def test_a_map_of_one_sentence_and_a_language_model_are_refused(shown):
    with pytest.raises(InputError, match="test: expected two sentences or more"):
        explore.view("small", shown[0].model, "test", 1)
    with pytest.raises(InputError, match="has no z to look at"):
        explore.view("lm", shared_model("lstm_lm"), "test", 5)


@pytest.mark.parametrize(("arguments", "message"), [([], "FOLDER"), (["nowhere"], "not the folder of a run")])
def test_wrong_folders_are_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(explore, "_gradio", mock.Mock())
    assert explore.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error


def test_the_page_is_served_on_this_machine_and_shows_errors_as_notices(shown):
    gradio = pytest.importorskip("gradio")
    page = explore.build(shown)
    functions = {block.fn.__name__: block.fn for block in page.fns.values()}
    with pytest.raises(gradio.Error, match="sentence 1: empty"):
        functions["line"](" ", SENTENCES[0], 0.5)
    whole = functions["sentence"](SENTENCES[0])
    assert whole[::2] == explore.describe(shown[0], SENTENCES[0])
    assert whole[1::2] == explore.describe(shown[1], SENTENCES[0])
    answer = functions["line"](SENTENCES[0], SENTENCES[7], 1.0)
    assert answer[0] == answer[2].split("\n")[-1] == shown[0].model.reconstruct([SENTENCES[7]])[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"--port .*: cannot be used"):
            explore.serve(page, taken.getsockname()[1])
    port = free_port()
    try:
        assert explore.serve(page, port) == f"http://127.0.0.1:{port}/"
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}").read().decode()
        assert "fonts.googleapis.com" not in text
    finally:
        page.close()


def test_an_interrupt_ends_it_before_gradio_waits_too(monkeypatch, capsys):
    page = mock.Mock(**{"block_thread.side_effect": KeyboardInterrupt})
    for name, value in {"_gradio": None, "open_views": [], "build": page, "serve": "here"}.items():
        monkeypatch.setattr(explore, name, mock.Mock(return_value=value))
    assert explore.main(["a"]) == 0
    assert capsys.readouterr().out.splitlines() == ["starting the server", "open here (Ctrl-C ends)"]
