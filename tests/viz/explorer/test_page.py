"""The kernel-free page: what is inlined is what was found, and hostile words stay text."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from kit.explorer import HOSTILE, stripes
from ovs_lite.viz.explorer.content import Origin, cells, content, runs
from ovs_lite.viz.explorer.page import explorer_html, inline_json


def decoded(found, shape):
    pairs = np.array(found).reshape(-1, 2)
    return np.repeat(pairs[:, 0], pairs[:, 1]).reshape(shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23)])
def test_runs_give_the_labels_back(shape):
    labels = np.random.default_rng(0).integers(-1, 3, shape)
    np.testing.assert_array_equal(decoded(runs(labels), shape), labels)


def test_runs_of_one_label_are_one_pair():
    assert runs(np.full((4, 5), -1)) == [-1, 20]


def test_labels_of_methods_with_other_queries_index_one_list_of_names():
    first, second = stripes(["cat", "grass"]), stripes(["grass", "sky", "cat"])
    shown = content(first.image, {"one": first, "two": second})
    assert shown["names"] == ["cat", "grass", "sky"]
    for layer, result in zip(shown["methods"], (first, second), strict=True):
        labels = decoded(layer["runs"], shown["size"])
        named = np.array([*shown["names"], "?"])[labels]
        np.testing.assert_array_equal(named, np.array([*result.queries, "?"])[result.labels])


def test_the_words_of_a_cell_are_those_of_a_slow_mean():
    result = stripes(["a", "b", "c", "d", "e", "f"], (56, 84))
    found = content(result.image, {"m": result})["methods"][0]["cells"]
    assert found["size"] == [19, 28] and found["each"] == 5
    rows, columns = found["size"]
    for row, column in [(0, 0), (7, 13), (18, 27)]:
        top, bottom = row * 56 // rows, -(-(row + 1) * 56 // rows)
        left, right = column * 84 // columns, -(-(column + 1) * 84 // columns)
        means = [float(plane[top:bottom, left:right].mean()) for plane in result.logits]
        best = sorted(range(6), key=lambda k: -means[k])[:5]
        start = 5 * (row * columns + column)
        words, steps = (
            np.frombuffer(base64.b64decode(found[key]), "<u2")[start : start + 5] for key in ("words", "scores")
        )
        assert words.tolist() == best
        low, high = found["range"]
        np.testing.assert_allclose(low + (high - low) * steps / 65535, [means[k] for k in best], atol=1e-4)


def test_a_score_that_is_no_number_goes_to_an_end_of_the_range():
    logits = np.array([[[0.25, -np.inf]], [[0.5, 0.75]]], np.float32)
    found = cells(logits, np.arange(2))
    steps = np.frombuffer(base64.b64decode(found["scores"]), "<u2").tolist()
    assert found["range"] == [0.25, 0.75] and steps == [32768, 0, 65535, 0]


def test_a_score_is_the_mean_over_the_pixels_that_a_word_won():
    result = stripes(["cat", "grass", "sky"], background=True)
    (layer,) = content(result.image, {"m": result})["methods"]
    for k, score in enumerate(layer["scores"]):
        won = result.logits[k][result.labels == k]
        assert score == (pytest.approx(float(won.mean()), rel=6e-3) if len(won) else None)
    assert "unlabelled" in layer["alt"] and layer["alt"].startswith("m: ")


def test_one_pixel_and_one_word_are_enough():
    result = stripes(["cat"], (1, 1))
    assert content(result.image, {"m": result})["methods"][0]["cells"]["words"] == "AAA="
    assert "cat" in explorer_html(result.image, {"m": result})


def test_nothing_to_show_and_another_size_are_refused():
    result = stripes(["cat"])
    with pytest.raises(ValueError, match="at least one method"):
        content(result.image, {})
    with pytest.raises(ValueError, match="expected .H, W."):
        content(Image.new("RGB", (3, 3)), {"m": result})


def test_hostile_words_add_no_script_and_no_event_attribute():
    plain, hostile = stripes(["cat"] + [f"word {n}" for n in range(len(HOSTILE) - 1)]), stripes(HOSTILE)
    assert len(set(HOSTILE)) == 20
    pages = [
        BeautifulSoup(explorer_html(result.image, {name: result}, title=title, origin=Origin(title)), "html.parser")
        for result, name, title in [(plain, "m", "photo.jpg"), (hostile, HOSTILE[0], HOSTILE[1])]
    ]
    counts = [{tag: len(page.find_all(tag)) for tag in {one.name for one in page.find_all(True)}} for page in pages]
    assert counts[0] == counts[1] and counts[1]["script"] == 2
    assert not [attribute for tag in pages[1].find_all(True) for attribute in tag.attrs if attribute.startswith("on")]
    assert json.loads(pages[1].find(id="content").string)["names"] == HOSTILE


def test_inlined_json_cannot_end_its_element():
    text = inline_json({"words": [*HOSTILE, "\ud800"]})
    assert not re.search("[<>&\u2028\u2029]", text) and json.loads(text)["words"][:-1] == HOSTILE


def test_without_scripts_there_is_a_png_with_its_alt_text():
    result = stripes(["cat", "grass"])
    page = BeautifulSoup(explorer_html(result.image, {"m": result}), "html.parser")
    still = page.find("noscript").find("img")
    assert still["src"].startswith("data:image/png;base64,") and "grass" in still["alt"] and "%" in still["alt"]


def test_the_page_names_no_other_place():
    result = stripes(["cat"])
    page = explorer_html(result.image, {"m": result})
    assert not re.search(r"https?://|\bimport\s*[({'\"*]|@import|url\(", page)
    policy = BeautifulSoup(page, "html.parser").find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    module = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(module.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
