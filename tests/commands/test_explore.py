"""`ovs-lite explore`: the page, the lines for a notebook, and mistakes that are reported before a model is loaded."""

import json

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from kit.images import noise
from ovs_lite.cli import main


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(noise(40, 56)).save(path)
    return path


def test_the_page_holds_every_method(photo, tmp_path, capsys):
    methods = ["maskclip", "clip-cam"]
    words = ["explore", str(photo), "--queries", "cat|kitten, grass", "--method", *methods]
    assert main([*words, "--html", str(tmp_path / "out.html")]) == 0
    assert "out.html" in capsys.readouterr().out
    page = BeautifulSoup((tmp_path / "out.html").read_text(encoding="utf-8"), "html.parser")
    shown = json.loads(page.find(id="content").string)
    assert [layer["name"] for layer in shown["methods"]] == methods
    assert shown["names"] == ["cat", "grass"] and shown["size"] == [40, 56]
    assert str(photo) in shown["methods"][0]["code"]


def test_without_html_it_says_what_to_type(photo, capsys):
    assert main(["explore", str(photo), "--queries", "cat", "--clip", "ViT-B-16", "--pretrained", "openai"]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "ovs_lite.explore(" in line)
    compile(line.strip(), "cell", "eval")
    assert str(photo) in line and "clip='ViT-B-16', pretrained='openai'" in line and "--html" in said


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere.png", "--queries", "cat"], "no image at nowhere.png"),
        (["{photo}", "--queries", "cat,,"], "empty name"),
        (["{photo}", "--queries", "cat", "--method", "maskclip", "magic"], "magic"),
        (["{photo}", "--queries", "cat", "--method", "maskclip", "maskclip"], "each method once"),
        (["{photo}", "--queries", "cat", "--html", "out.txt"], "ends in .html"),
        (["{photo}", "--queries", "cat", "--html", "absent/out.html"], "create it first"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_a_model_is_loaded(photo, words, message, capsys, monkeypatch):
    monkeypatch.setattr("ovs_lite.segmenter.load", lambda *given, **more: pytest.fail("a model was loaded"))
    assert main(["explore", *(word.format(photo=photo) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
