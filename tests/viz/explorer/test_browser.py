"""The kernel-free page in a real browser, opened from disk: nothing is asked of the network, nothing complains.

Slow, and skipped where no Chromium is installed. `make browser` runs these tests alone.
"""

import base64
import io
import json
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from kit.browser import browser_page
from kit.explorer import HOSTILE, stripes
from ovs_lite.data.rle import decode_rle
from ovs_lite.viz.explorer.page import explorer_html

pytestmark = pytest.mark.slow
PIXELS = """(() => { const c = document.querySelector('canvas');
  return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 37 == 0).join() })()"""
CENTRE = "(() => { const b = document.querySelector('canvas').getBoundingClientRect(); return [b.x + 60, b.y + 80] })()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of results, and checks afterwards that it was quiet."""

    def open_page(results, **look):
        image = next(iter(results.values())).image
        (tmp_path / "page.html").write_text(explorer_html(image, results), encoding="utf-8")
        browser.requests.clear(), browser.complaints.clear()
        browser.open((tmp_path / "page.html").as_uri(), **look)
        browser.until(lambda: browser.evaluate("document.querySelector('canvas') !== null"))
        browser.evaluate("document.querySelector('canvas').focus()")
        return browser

    yield open_page
    assert not browser.requests and not browser.complaints


def two():
    """Two methods of the same words that differ."""
    first = stripes(["cat", "grass", "sky"])
    second = stripes(["sky", "grass", "cat"])
    return {"one": first, "two": second}


def text(page, place):
    return page.evaluate(f"document.querySelector({place!r}).textContent")


@pytest.mark.parametrize("key", ["1", "c", "n", "m", "d", "o", "+"])
def test_a_key_changes_the_pixels_and_its_reverse_restores_them(opened, key):
    page = opened(two())
    before = page.evaluate(PIXELS)
    page.press(key)
    changed = page.evaluate(PIXELS)
    assert changed != before
    page.press({"d": "s", "o": "s", "+": "0"}.get(key, key))
    assert page.evaluate(PIXELS) == before


def test_an_eye_hides_a_class_and_says_so(opened):
    page = opened(two())
    before = page.evaluate(PIXELS)
    page.evaluate("document.querySelector('.eye').click()")
    assert page.evaluate(PIXELS) != before
    assert page.evaluate("document.querySelector('.eye').getAttribute('aria-pressed')") == "false"


def test_the_opacity_slider_changes_the_pixels(opened):
    page, slider = opened(two()), "document.querySelector('input[type=range]')"
    before = page.evaluate(PIXELS)
    page.evaluate(f"{slider}.value = 1; {slider}.dispatchEvent(new Event('input'))")
    assert page.evaluate(PIXELS) != before


def test_hover_names_the_word_of_both_methods(opened):
    page = opened(two())
    page.mouse("mouseMoved", *page.evaluate(CENTRE))
    said = text(page, ".readout")
    assert "one: cat" in said and "two: sky" in said and "around it:" in said
    page.press("Escape")
    assert text(page, ".readout") == ""


def test_the_keyboard_moves_the_cursor_and_every_control_has_a_name(opened):
    page = opened(two())
    page.press("ArrowRight")
    assert "one: " in text(page, ".readout")
    bare = """[...document.querySelectorAll('button, input, select')].filter(
        e =>
            !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())).length"""
    assert page.evaluate(bare) == 0
    assert "cat" in page.evaluate("document.querySelector('canvas').getAttribute('aria-label')")


def test_dark_mode_is_dark(opened):
    ground = "getComputedStyle(document.querySelector('.ovs-explorer')).backgroundColor"
    assert opened(two(), dark=False).evaluate(ground) == "rgb(255, 255, 255)"
    assert opened(two(), dark=True).evaluate(ground) == "rgb(23, 25, 28)"


def test_hostile_words_stay_text(opened):
    page = opened({HOSTILE[0]: stripes(HOSTILE), HOSTILE[2]: stripes(HOSTILE)})
    page.mouse("mouseMoved", *page.evaluate(CENTRE))
    page.press("d")
    events = (
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => /^on/i.test(a.name)).length"
    )
    assert page.evaluate("window.owned") is None and page.evaluate(events) == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img, iframe, svg').length") == 0
    rows = page.evaluate("[...document.querySelectorAll('.layers .name')].map(e => e.textContent)")
    assert sorted(rows) == sorted(HOSTILE)


@pytest.fixture
def saved(browser, tmp_path):
    """Presses a button and gives what it downloads."""

    def press(button, name):
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.evaluate(f"[...document.querySelectorAll('button')].find((b) => b.textContent === {button!r}).click()")
        browser.until(lambda: (tmp_path / name).exists())
        time.sleep(0.2)  # it appears when it is whole; this is for slow disks
        return (tmp_path / name).read_bytes()

    return press


def test_saved_masks_are_the_labels(opened, saved):
    results = {"one": stripes(["cat", "grass", "sky", "never"], background=True), "two": stripes(["sky", "grass"])}
    results["one"].labels[results["one"].labels == 3] = -1
    opened(results)
    labels, names = results["one"].labels, results["one"].queries
    rle = json.loads(saved("Save masks (COCO RLE)", "masks.json"))
    assert [one["category"] for one in rle] == names[:3]
    with zipfile.ZipFile(io.BytesIO(saved("Save masks (PNG)", "masks.zip"))) as masks:
        assert masks.testzip() is None and masks.namelist() == ["00.png", "01.png", "02.png"]
        found = [np.array(Image.open(masks.open(name)).convert("RGB")) for name in masks.namelist()]
    for number, (mask, one) in enumerate(zip(found, rle, strict=True)):
        np.testing.assert_array_equal(mask, np.where(labels[..., None] == number, 255, 0).repeat(3, 2))
        np.testing.assert_array_equal(decode_rle(one["segmentation"]), labels == number)
        assert one["area"] == (labels == number).sum() > 0


def test_the_saved_png_is_what_is_seen(opened, saved):
    page = opened(two())
    seen = base64.b64decode(page.evaluate("document.querySelector('canvas').toDataURL()").partition(",")[2])
    found = Image.open(io.BytesIO(saved("Save PNG", "masks.png")))
    np.testing.assert_array_equal(np.array(found), np.array(Image.open(io.BytesIO(seen))))
    assert len(found.getcolors(10**6)) > 10


def test_control_z_takes_back_one_change_after_the_other(opened):
    page = opened(two())
    seen = [page.evaluate(PIXELS)]
    for key in ("1", "c", "d"):
        page.press(key)
        seen.append(page.evaluate(PIXELS))
    assert len(set(seen)) == 4
    for before in (seen[2], seen[1], seen[0], seen[0]):  # once more than there is to take back
        page.press("z", control=True)
        assert page.evaluate(PIXELS) == before


def test_why_a_pixel_by_mouse_and_by_key(opened):
    page = opened(two())
    for kind in ("mousePressed", "mouseReleased"):
        page.mouse(kind, *page.evaluate(CENTRE), "left")
    said = text(page, ".why")
    assert "Why pixel" in said and "one: cat" in said and "two: sky" in said and text(page, ".why ol") != ""
    assert page.evaluate("document.querySelectorAll('.why ol li').length") == 6, "three words of two methods"
    page.press("ArrowRight")
    page.press("w")
    assert text(page, ".why") != said
    page.press("z", control=True)
    assert text(page, ".why") == said
