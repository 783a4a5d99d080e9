"""The page: its pictures, and, in headless Chromium, all that a user does there.

The browser's part is slow, and skipped, saying so, where gradio, selenium or Chromium is missing. With EXPLORE_RUNS set
to folders of runs, it shows these and writes its screenshots into docs/images; otherwise two untrained models serve.
"""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import typed
from small import make_run

import scalevae_jax
from scalevae_jax import explore, export
from scalevae_jax.core.types import InputError
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return explore.view("small", TrainedModel(make_run(folder, labels=True)), "test", 15)


def test_a_view_holds_what_the_model_says(shown):
    assert len(shown.sentences) == len(shown.labels) == 15
    np.testing.assert_allclose(shown.mean, shown.model.encode(shown.sentences)[0], rtol=1e-5, atol=1e-6)
    scores = shown.model.score(shown.sentences, samples=1)
    assert shown.kl.sum() == pytest.approx(scores["kl"].mean(), rel=1e-5)


def test_two_dimensions_are_shown_as_they_are_and_more_by_principal_components(rng):
    flat = rng.normal(size=(50, 2))
    np.testing.assert_array_equal(explore.project(flat)[0], flat)
    axes = np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    points, (first, _) = explore.project(flat * [3, 1] @ axes + 7)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (points, flat * [3, 1])]
    np.testing.assert_allclose(*distances, atol=1e-6)
    assert np.var(points[:, 0]) > np.var(points[:, 1])
    assert int(re.search(r"\((\d+)%", first)[1]) > 70
    assert explore.project(flat[:, :1])[0].shape == (50, 2)


def test_every_sentence_lies_where_the_map_says(shown):
    pytest.importorskip("matplotlib")
    image, places = explore.draw_map(shown)
    assert image.shape == (480, 640, 3)
    for x, y in places:
        around = image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
        assert around.min() < 200, "no ink where a point should be"
    assert np.any(explore.draw_map(shown, 3)[0] != image)
    assert explore.draw_dimensions(shown).shape == (480, 640, 3)


def test_a_map_of_one_sentence_is_refused(shown):
    with pytest.raises(InputError, match="test: two sentences at least"):
        explore.view("small", shown.model, "test", 1)


def test_a_language_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no z to look at"):
        explore.view("lm", TrainedModel(make_run(tmp_path, "lstm_lm")), "test", 5)


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "the folder of a run is wanted"), (["nowhere"], "not the folder")]
)
def test_wrong_folders_are_one_line(arguments, message):
    code, _, error = typed.run("explore", *arguments)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert message in error or "scalevae_jax[explore]" in error


def test_an_interrupt_ends_it_before_gradio_waits_too(monkeypatch, capsys):
    page = mock.Mock(**{"block_thread.side_effect": KeyboardInterrupt})
    stands_in = {"_gradio": None, "view": None, "build": page, "serve": "here"}
    for name, value in stands_in.items():
        monkeypatch.setattr(explore, name, mock.Mock(return_value=value))
    monkeypatch.setattr(explore.trained, "load", mock.Mock())
    assert command.run("explore", explore._command, explore.FLAGS, "", argv=["explore", "a"], positional=True) == 0
    assert capsys.readouterr().out == "open here (Ctrl-C ends)\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address, folders of the models, folder for screenshots."""
    pytest.importorskip("gradio", reason="the page wants gradio")
    pytest.importorskip("matplotlib", reason="the page wants matplotlib")
    folders, images = os.environ.get("EXPLORE_RUNS", "").split(), ROOT / "docs" / "images"
    if not folders:
        images = tmp_path_factory.mktemp("images")
        for name in ("scale_vae", "vae"):
            run = make_run(tmp_path_factory.mktemp("run"), name, labels=True)
            folders.append(str(images / name))
            export.save(run, images / name)
    images.mkdir(exist_ok=True)
    serving = typed.Running("explore", *folders, "--port", str(typed.free_port()), "--limit", "500")
    yield serving.until("open ").split()[1], folders, images
    os.kill(serving.pid, signal.SIGTERM)
    serving.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser's tests want selenium")
    if not CHROMIUM or not DRIVER:
        pytest.skip("the browser's tests want chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --window-size=1200,1000"
    ).split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class User:
    """What one does on the page, by sight of labels."""

    def __init__(self, driver, address, images):
        self.driver, self.images = driver, images
        driver.get(address)
        self.wait(lambda: self.find("#go"))

    def wait(self, condition, seconds=120):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := condition():
                return value
            time.sleep(0.2)
        raise AssertionError("nothing came")

    def find(self, selector):
        found = self.driver.find_elements("css selector", selector)
        return found[0] if found else None

    def field(self, label):
        """The text box, number or slider that a label stands over."""
        path = f"//label[.//span[normalize-space(.)='{label}']]//*[self::textarea or self::input]"
        return next((x for x in self.driver.find_elements("xpath", path) if x.is_displayed()), None)

    def value(self, label):
        field = self.field(label)
        return field.get_attribute("value") if field else ""

    def type(self, selector, text, submit=""):
        field = self.find(f"{selector} textarea, {selector} input")
        self.driver.execute_script("arguments[0].select()", field)
        field.send_keys("\ue017")  # delete
        if len(text) < 500:
            field.send_keys(text + submit)
        else:  # as pasted
            script = (
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
            )
            self.driver.execute_script(script, field, text)
            field.send_keys(submit)

    def tab(self, name):
        next(x for x in self.driver.find_elements("css selector", "button[role=tab]") if x.text == name).click()
        time.sleep(0.5)

    def error(self):
        """The text of the notice, which is then closed."""
        notice = self.wait(lambda: self.find(".toast-body"))
        text = self.wait(lambda: notice.text)
        for button in self.driver.find_elements("css selector", ".toast-close"):
            self.driver.execute_script("arguments[0].click()", button)
        self.wait(lambda: not self.find(".toast-body"))
        return text

    def picture(self, name):
        self.wait(lambda: not self.driver.find_elements("css selector", ".toast-body, .progress-text"))
        time.sleep(0.3)
        self.driver.save_screenshot(str(self.images / f"explore_{name}.png"))


@pytest.fixture
def user(browser, page):
    return User(browser, page[0], page[2])


ENTER, HOME, END, TAB = "\ue007", "\ue011", "\ue010", "\ue004"


@pytest.mark.slow
def test_typing_and_sliding_show_sentences_between_two_others(user, page):
    models = [(Path(folder).name, scalevae_jax.load(folder)) for folder in page[1]]
    a, b = user.find("#a textarea").get_attribute("value"), user.find("#b textarea").get_attribute("value")
    user.type("#a", b)
    user.type("#b", a, ENTER)
    for name, model in models:
        ends = model.reconstruct([b, a])
        lines = user.wait(lambda name=name: user.value(f"{name}: 7 places, ends included")).split("\n")
        assert len(lines) == 7
        assert [lines[0], lines[-1]] == ends
    user.picture("between")
    slider = user.find("#t input[type=range]")
    for key, end in ((HOME, 0), (END, 1)):
        slider.send_keys(key)
        for name, model in models:
            wanted = model.reconstruct([b, a])[end]
            user.wait(lambda name=name, wanted=wanted: user.value(f"{name}: at this place") == wanted)


@pytest.mark.slow
def test_errors_are_shown_and_the_page_goes_on(user, page):
    good = user.find("#a textarea").get_attribute("value")
    for text, message in ((" ", "sentence 1: it is empty"), ("a " * 10_000, "10,000 words; this model reads"),
                          ("qqq zzz", "no word of it is in the model's vocabulary")):  # fmt: skip
        user.type("#a", text)
        user.find("#go").click()
        assert message in user.error()
    user.type("#a", good, ENTER)
    assert user.wait(lambda: user.value(f"{Path(page[1][0]).name}: 7 places, ends included"))


@pytest.mark.slow
def test_draws_from_the_prior(user, page):
    user.tab("Draws from the prior")
    user.find("#draw").click()
    for folder in page[1]:
        sentences = user.wait(lambda folder=folder: user.value(f"{Path(folder).name}: sentences"))
        assert sentences == "\n".join(scalevae_jax.load(folder).sample(10, temperature=0.7))
    user.picture("draws")
    user.type("#seed", "-3")
    user.find("#draw").click()
    assert "seed: a whole number, 0 or more" in user.error()


@pytest.mark.slow
def test_a_click_on_the_map_shows_a_sentence_and_its_reconstruction(user, page):
    from selenium.webdriver import ActionChains

    user.tab("Map")
    models = [scalevae_jax.load(folder) for folder in page[1]]
    for i, model in enumerate(models):
        image = user.wait(lambda i=i: user.find(f"#map{i} img"))
        ActionChains(user.driver).move_to_element(image).click().perform()
        text = user.wait(lambda i=i: user.find(f"#sentence{i} textarea").get_attribute("value"))
        back = user.wait(lambda i=i: user.find(f"#reconstruction{i} textarea").get_attribute("value"))
        assert model.reconstruct([text]) == [back]
    user.picture("map")
    user.type("#number0", "3" + TAB)
    third = explore.view("", models[0], "test", 500).sentences[2]
    user.wait(lambda: user.find("#sentence0 textarea").get_attribute("value") == third)
    user.type("#number0", "99999" + TAB)
    assert "sentence: a number from 1 to" in user.error()
    user.tab("Dimensions")
    user.picture("dimensions")
    for model in models:
        assert f"of {model.latent} active" in user.driver.page_source


@pytest.mark.slow
def test_the_keyboard_alone_reaches_everything(user):
    user.find("#a textarea").click()
    reached = []
    for _ in range(12):
        user.driver.switch_to.active_element.send_keys(TAB)
        inside = "const e = document.activeElement; return [e.id, e.closest('#a, #b, #t, #go')?.id, e.tagName]"
        reached.append(user.driver.execute_script(inside))
    places = [place for _, place, _ in reached]
    assert [place for place in dict.fromkeys(places) if place][:3] == ["b", "t", "go"]


CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('label span, button, textarea, input:not([type=radio]), h1, p')]
    .filter(e => e.offsetParent && (e.innerText || e.value))
    .map(e => { const a = light(getComputedStyle(e).color), b = light(ground(e));
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.innerText || e.value]; });
"""


@pytest.mark.slow
def test_text_stands_out_from_its_ground(user):
    for name in ("Between two sentences", "Draws from the prior", "Map", "Dimensions"):
        user.tab(name)
        user.wait(lambda: all(ratio >= 4.5 for ratio, _ in user.driver.execute_script(CONTRAST)), 10)  # they fade in


@pytest.mark.slow
def test_no_request_leaves_the_machine(user, page):
    user.find("#go").click()
    user.wait(lambda: user.value(f"{Path(page[1][0]).name}: 7 places, ends included"))
    messages = [json.loads(entry["message"])["message"] for entry in user.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(page[0]) for url in asked)
    assert not [url for url in asked if not url.startswith((page[0].rstrip("/"), "data:", "blob:", "chrome:"))]
