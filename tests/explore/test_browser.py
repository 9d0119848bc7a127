"""The explorer in a headless Chromium, where Playwright and a browser are installed.

Set SBM_JAX_SCREENSHOTS to a directory to look at the page.
"""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from sbm_jax.explore import serving
from tests.explore.explored import MODALITIES, Work

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def work():
    return Work()


@pytest.fixture(scope="module")
def address(work):
    with serving.served(work) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A page, which may ask nothing of others and report no error."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    _open(page, address)
    yield page
    assert [
        url for url in asked if not url.startswith((address, "data:", "blob:", address.replace("http", "ws")))
    ] == []
    assert errors == []
    page.close()


def _open(page, address):
    page.goto(address)
    page.get_by_role("button", name="Generate").wait_for()
    page.locator(".row figure").first.wait_for()


def _generate(page):
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("[data-done], [role=alert]")


def _group(page, name):
    return page.locator("fieldset", has_text=name)


def test_samples_of_every_kind_are_seen_and_heard(page, work):
    for modality in MODALITIES[1:]:
        _group(page, "To generate").get_by_label(modality.name, exact=True).check()
    _generate(page)
    headings = page.locator("[data-done] h3").all_inner_texts()
    assert headings == ["Given", *(modality.name for modality in MODALITIES[1:])]
    assert "10 evaluations of the network; 0.50 s." in page.locator("[data-done] p").first.inner_text()
    pictures = page.locator("[data-done] img")
    assert pictures.count() == 1 + 3 * 3  # the photo; masks, bars and films, of which one is held out
    assert all(pictures.evaluate_all("all => all.map(one => one.complete && one.naturalWidth > 0)"))
    heard = page.locator("[data-done] audio")
    seconds = heard.evaluate_all(
        "all => Promise.all(all.map(one => one.play().then(() => one.duration, error => String(error))))"
    )
    assert seconds == pytest.approx([0.064] * 3)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if directory := os.environ.get("SBM_JAX_SCREENSHOTS"):
            page.screenshot(path=Path(directory) / f"explorer_{width}.png", full_page=True)


def test_a_link_restores_the_settings(page, work):
    page.get_by_text("Sampler", exact=True).click()
    page.get_by_label("Seed").fill("42")
    page.get_by_label("Guidance strength").fill("2.5")
    _group(page, "Given").get_by_label("caption", exact=True).check()
    page.get_by_label("Held-out row").fill("2")
    _generate(page)
    chosen = work.calls[-1][0]
    assert (chosen.seed, chosen.strength, chosen.row, chosen.given) == (42, 2.5, 2, ("photo", "caption"))
    page.get_by_role("link", name="Link to these settings").click()
    page.wait_for_url("**/?system=*")
    page.get_by_role("button", name="Generate").wait_for()
    playwright.expect(page.get_by_label("Held-out row")).to_have_value("2")
    _generate(page)
    assert work.calls[-1][0] == chosen


def test_a_wrong_link_is_told(page, address):
    page.goto(f"{address}?row=99&seed=<b>1</b>&samples=3")
    page.get_by_text("row is 99; expected 0 to 2.").wait_for()
    page.get_by_text("seed is '<b>1</b>'; expected a number.").wait_for()


def test_files_of_ones_own_are_ticked_and_checked(page, work, tmp_path):
    Image.new("L", (8, 6), 255).save(tmp_path / "own.png")
    Image.new("L", (9, 6), 255).save(tmp_path / "wide.png")
    page.get_by_text("Your own data").click()
    page.locator("input[type=file]").nth(1).set_input_files(tmp_path / "own.png")
    playwright.expect(_group(page, "Given").get_by_label("mask", exact=True)).to_be_checked()
    text = "<img src=x onerror=alert(1)> ${1+1} {{2+2}}"
    page.get_by_label("caption").last.fill(text)
    playwright.expect(_group(page, "Given").get_by_label("caption", exact=True)).to_be_checked()
    _generate(page)
    assert work.calls[-1][1]["mask"].all()
    assert page.locator("[data-done] figure.given .text").inner_text() == text
    page.locator("input[type=file]").first.set_input_files(tmp_path / "wide.png")
    page.get_by_text("wide.png").wait_for()
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("wide.png has 9 x 6 pixels; modality 'photo' takes 8 x 6.").wait_for()
