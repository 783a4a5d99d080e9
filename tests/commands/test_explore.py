"""The page: its pictures, its answers, how it is served, and, in headless Chromium, all that a user does there.

The browser's test is slow. It is skipped where selenium or Chromium is missing. With EXPLORE_RUNS set to folders of
runs, it shows these and writes its screenshots into docs/images; otherwise two untrained models serve.
"""

import json
import os
import re
import shutil
import socket
import time
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from small import SENTENCES, shared_model
from typed import free_port

import scalevae_jax
from scalevae_jax import explore
from scalevae_jax.core.types import InputError

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@pytest.fixture(scope="module")
def views():
    return [explore.view(name, shared_model(name), "test", 15) for name in ("scale_vae", "vae")]


def test_a_view_holds_posteriors_and_kl_of_the_model(views):
    view = views[0]
    assert view.sentences == SENTENCES[:15]
    assert view.labels.tolist() == [i % 2 for i in range(15)]
    np.testing.assert_allclose(view.mean, view.model.encode(view.sentences)[0], rtol=1e-5, atol=1e-6)
    scores = view.model.score(view.sentences, samples=1)
    assert view.kl.sum() == pytest.approx(scores["kl"].mean(), rel=1e-5)
    assert explore.summary(view).endswith("active, factor 2.00 to 3.00")


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


def test_every_sentence_lies_where_the_map_says(views):
    pytest.importorskip("matplotlib")
    image, places = explore.draw_map(views[0])
    assert image.shape == (480, 640, 3)
    for number, (x, y) in enumerate(places, 1):
        around = image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
        assert around.min() < 200, "no ink where a point should be"
        assert explore.nearest(places, (x + 0.1, y)) == number
    assert np.any(explore.draw_map(views[0], 3)[0] != image)
    assert explore.draw_dimensions(views[0]).shape == (480, 640, 3)


def test_what_the_page_answers_is_what_the_models_say(views):
    a, b = SENTENCES[0], SENTENCES[7]
    for view, line in zip(views, explore.between(views, a, b, np.linspace(0, 1, 7)), strict=True):
        assert line == view.model.interpolate(a, b, 7)
    sentences = explore.sample(views, 4, 3, 0.7, "unit")
    assert sentences == ["\n".join(v.model.sample(4, 3, "unit", temperature=0.7)) for v in views]
    image, sentence, reconstruction = explore.choose(views[1], 3)
    assert (sentence, [reconstruction]) == (SENTENCES[2], views[1].model.reconstruct([SENTENCES[2]]))
    assert np.any(image != explore.choose(views[1], None)[0])
    assert explore.choose(views[1], None)[1:] == ("", "")


def test_wrong_fields_are_one_line(views):
    for seed in (-3, 0.5, None):
        with pytest.raises(InputError, match="seed: expected a whole number, 0 or more"):
            explore.sample(views, 1, seed, 1.0, "model")
    for number in (0, 16):
        with pytest.raises(InputError, match="sentence: expected a number from 1 to 15"):
            explore.choose(views[0], number)


def test_a_map_of_one_sentence_and_a_language_model_are_refused(views):
    with pytest.raises(InputError, match="test: expected two sentences or more"):
        explore.view("small", views[0].model, "test", 1)
    with pytest.raises(InputError, match="has no z to look at"):
        explore.view("lm", shared_model("lstm_lm"), "test", 5)


@pytest.mark.parametrize(("arguments", "message"), [([], "FOLDER"), (["nowhere"], "not the folder of a run")])
def test_wrong_folders_are_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(explore, "_gradio", mock.Mock())
    assert explore.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error


def test_the_page_is_served_on_this_machine_and_shows_errors_as_notices(views):
    gradio = pytest.importorskip("gradio")
    page = explore.build(views)
    functions = {block.fn.__name__: block.fn for block in page.fns.values()}
    with pytest.raises(gradio.Error, match="sentence 1 is empty"):
        functions["line"](" ", SENTENCES[0], 0.5)
    answer = functions["line"](SENTENCES[0], SENTENCES[7], 1.0)
    assert answer[0] == answer[2].split("\n")[-1] == views[0].model.reconstruct([SENTENCES[7]])[0]
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
    for name, value in {"_gradio": None, "view": None, "build": page, "serve": "here"}.items():
        monkeypatch.setattr(explore, name, mock.Mock(return_value=value))
    monkeypatch.setattr(scalevae_jax, "load", mock.Mock())
    assert explore.main(["a"]) == 0
    assert capsys.readouterr().out == "open here (Ctrl-C ends)\n"


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser's test needs selenium")
    if not CHROMIUM or not DRIVER:
        pytest.skip("the browser's test needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --window-size=1200,1000"
    ).split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class User:
    """What a user does on the page, by the labels that stand there."""

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
        elements = self.driver.find_elements("css selector", selector)
        return elements[0] if elements else None

    def value(self, label):
        """Of the text box under this label."""
        path = f"//label[.//span[normalize-space(.)='{label}']]//*[self::textarea or self::input]"
        field = next((x for x in self.driver.find_elements("xpath", path) if x.is_displayed()), None)
        return field.get_attribute("value") if field else ""

    def text(self, selector):
        """Of a text box, as soon as it has some."""
        return self.wait(lambda: self.find(f"{selector} textarea").get_attribute("value"))

    def type(self, selector, text, submit=""):
        field = self.find(f"{selector} textarea, {selector} input")
        self.driver.execute_script("arguments[0].select()", field)
        field.send_keys("\ue017" + text + submit)  # delete

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

    def requests(self):
        """The addresses that the browser asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


ENTER, HOME, END, TAB = "\ue007", "\ue011", "\ue010", "\ue004"
CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('label span, button, textarea, input:not([type=radio]), h1, p')]
    .filter(e => e.offsetParent && (e.innerText || e.value))
    .map(e => { const a = light(getComputedStyle(e).color), b = light(ground(e));
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
"""


def _between(user, views):
    a, b = user.text("#a"), user.text("#b")
    user.type("#a", b)
    user.type("#b", a, ENTER)
    for view in views:
        lines = user.wait(lambda view=view: user.value(f"{view.name}: 7 places, ends included")).split("\n")
        assert lines == view.model.interpolate(b, a, 7)
    user.picture("between")
    slider = user.find("#t input[type=range]")
    for key, end in ((HOME, b), (END, a)):
        slider.send_keys(key)
        for view in views:
            expected = view.model.reconstruct([end])[0]
            user.wait(lambda view=view, expected=expected: user.value(f"{view.name}: at this place") == expected)
    user.type("#a", "qqq zzz", ENTER)
    assert "none of its words is in the model's vocabulary" in user.error()
    user.find("#a textarea").click()
    reached = []
    for _ in range(12):
        user.driver.switch_to.active_element.send_keys(TAB)
        inside = "return document.activeElement.closest('#a, #b, #t, #go')?.id"
        reached.append(user.driver.execute_script(inside))
    assert [name for name in dict.fromkeys(reached) if name][:3] == ["b", "t", "go"]  # by the keyboard alone


def _draws(user, views):
    user.tab("Draws from the prior")
    user.find("#draw").click()
    for view in views:
        sentences = user.wait(lambda view=view: user.value(f"{view.name}: sentences"))
        assert sentences == "\n".join(view.model.sample(10, temperature=0.7))
    user.picture("draws")
    user.type("#seed", "-3")
    user.find("#draw").click()
    assert "seed: expected a whole number, 0 or more" in user.error()


def _map(user, views):
    from selenium.webdriver import ActionChains

    user.tab("Map")
    for i, view in enumerate(views):
        image = user.wait(lambda i=i: user.find(f"#map{i} img"))
        ActionChains(user.driver).move_to_element(image).click().perform()
        assert view.model.reconstruct([user.text(f"#sentence{i}")]) == [user.text(f"#reconstruction{i}")]
    user.picture("map")
    user.type("#number0", "3" + TAB)
    user.wait(lambda: user.text("#sentence0") == views[0].sentences[2])
    user.type("#number0", "99999" + TAB)
    assert "sentence: expected a number from 1 to" in user.error()
    user.tab("Dimensions")
    user.picture("dimensions")
    for view in views:
        assert f"of {view.model.latent} active" in user.driver.page_source


@pytest.mark.slow
def test_what_a_user_does_in_a_browser(views, browser, tmp_path):
    folders, images = os.environ.get("EXPLORE_RUNS", "").split(), tmp_path
    if folders:
        views = [explore.view(Path(folder).name, scalevae_jax.load(folder), "test", 500) for folder in folders]
        images = ROOT / "docs" / "images"
    page = explore.build(views)
    address = explore.serve(page, free_port())
    try:
        user = User(browser, address, images)
        _between(user, views)
        _draws(user, views)
        _map(user, views)
        for name in ("Between two sentences", "Draws from the prior", "Map", "Dimensions"):
            user.tab(name)
            user.wait(lambda: min(browser.execute_script(CONTRAST)) >= 4.5, 10)  # texts fade in
        asked = user.requests()
        assert any(url.startswith(address) for url in asked)
        assert not [url for url in asked if not url.startswith((address.rstrip("/"), "data:", "blob:", "chrome:"))]
    finally:
        page.close()
