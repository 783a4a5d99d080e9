"""What a user does on the page of `explore`, in headless Chromium.

The test is slow. It is skipped where selenium or Chromium is missing. With EXPLORE_RUNS set to folders of runs, it
shows these and writes its screenshots into docs/images; otherwise two untrained models serve.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from process import free_port

import scalevae_jax
from scalevae_jax import explore

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


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
        self.wait(lambda: self.find("#ask"))

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
        field.send_keys(CONTROL + "a" + NULL + text + submit)

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
        path = self.images / f"explore_{name}.png"
        self.find(".contain").screenshot(str(path))
        image = Image.open(path)
        image.crop(ImageOps.invert(image.convert("L")).getbbox()).save(path)  # without the white around it

    def requests(self):
        """The addresses that the browser asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


NULL, TAB, ENTER, CONTROL, END, HOME = "\ue000", "\ue004", "\ue007", "\ue009", "\ue010", "\ue011"
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


def _one(user, views):
    user.type("#one", views[0].sentences[1], ENTER)
    for view in views:
        costs = explore.describe(view, views[0].sentences[1])[0]
        user.wait(lambda view=view, costs=costs: user.value(f"{view.name}: costs") == costs)
    user.picture("one")
    user.tab("Between two sentences")


def _between(user, views):
    a, b = user.text("#a"), user.text("#b")
    user.type("#a", b)
    user.type("#b", a, ENTER)
    for view in views:
        lines = user.wait(lambda view=view: user.value(f"{view.name}: 7 places, ends included")).split("\n")
        assert lines == view.model.written(view.model.interpolate(b, a, 7))
    user.picture("between")
    slider = user.find("#t input[type=range]")
    for key, end in ((HOME, b), (END, a)):
        slider.send_keys(key)
        for view in views:
            expected = view.model.written(view.model.reconstruct([end]))[0]
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
        assert sentences == "\n".join(view.model.written(view.model.sample(10)))
    user.picture("draws")
    user.type("#seed", "-3")
    user.find("#draw").click()
    assert "seed: expected a whole number, 0 or more" in user.error()


def _map(user, views):
    from selenium.webdriver import ActionChains

    user.tab("Map")
    for i, view in enumerate(views):
        image = user.wait(lambda i=i: user.find(f"#map{i} img"))
        assert user.text(f"#sentence{i}") == view.model.written(view.sentences[:1])[0]
        ActionChains(user.driver).move_to_element(image).click().perform()
        user.wait(lambda i=i: user.find(f"#number{i} input").get_attribute("value") != "1")
        user.wait(lambda i=i, view=view: user.text(f"#sentence{i}") != view.model.written(view.sentences[:1])[0])
        sentence = next(x for x in view.sentences if view.model.written([x])[0] == user.text(f"#sentence{i}"))
        assert view.model.written(view.model.reconstruct([sentence])) == [user.text(f"#reconstruction{i}")]
    user.picture("map")
    user.type("#number0", "3" + TAB)
    user.wait(lambda: [user.text("#sentence0")] == views[0].model.written(views[0].sentences[2:3]))
    user.type("#number0", "99999" + TAB)
    assert "sentence: expected a number from 1 to" in user.error()
    user.tab("Dimensions")
    user.picture("dimensions")
    for view in views:
        assert f"of {view.model.latent} active" in user.driver.page_source


@pytest.mark.slow
def test_what_a_user_does_in_a_browser(shown, browser, tmp_path):
    folders, images = os.environ.get("EXPLORE_RUNS", "").split(), tmp_path
    if folders:
        shown = [explore.view(Path(folder).name, scalevae_jax.load(folder), "test", 500) for folder in folders]
        images = ROOT / "docs" / "images"
    page = explore.build(shown)
    address = explore.serve(page, free_port())
    try:
        user = User(browser, address, images)
        _one(user, shown)
        _between(user, shown)
        _draws(user, shown)
        _map(user, shown)
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            browser.refresh()
            user.wait(lambda: user.find("#ask"))
            for name in ("One sentence", "Between two sentences", "Draws from the prior", "Map", "Dimensions"):
                user.tab(name)
                user.wait(lambda: min(browser.execute_script(CONTRAST)) >= 4.5, 10)  # texts fade in
        asked = [url for url in user.requests() if url.startswith(("http", "ws"))]
        assert asked
        assert all(url.startswith(address) for url in asked), asked
    finally:
        page.close()


WIDER = """
return [...document.querySelectorAll('.md-typeset__table table')]
    .filter(table => table.offsetWidth > table.closest('.md-typeset__scrollwrap').clientWidth).map(t => t.innerText);
"""


@pytest.mark.slow
def test_every_table_of_the_site_fits_a_window_of_1300_pixels(browser, tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("mkdocs.yml", "scalevae_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    subprocess.run(build, cwd=tmp_path, check=True)
    browser.set_window_size(1300, 1000)
    for page in sorted((tmp_path / "site").glob("*.html")):
        browser.get(page.as_uri())
        assert browser.execute_script(WIDER) == [], page.name
