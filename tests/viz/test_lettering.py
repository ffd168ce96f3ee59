"""Fonts: DejaVu Sans, another where that lacks letters, and numbers where all do."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ovs_lite.viz import contact_sheet, lettering, overlay
from ovs_lite.viz.figures import image_row

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
CYRILLIC = FONTS / "DejaVuSansMono.ttf"


@pytest.fixture
def machine(monkeypatch):
    """Sets which fonts the machine has, DejaVu Sans aside, and which letters DejaVu Sans has."""
    own = lettering._dejavu_letters()

    def set_fonts(*paths, lacks=""):
        lettering.font_file.cache_clear()
        monkeypatch.setattr(lettering, "_fonts_of_the_machine", lambda: list(paths))
        monkeypatch.setattr(lettering, "_dejavu_letters", lambda: own - set(map(ord, lacks)))

    yield set_fonts
    monkeypatch.undo()
    lettering.font_file.cache_clear()


def letters(image, name):
    labels = np.zeros((image.height, image.width), int)
    return overlay(image, labels, [name]).tobytes()


def test_letters_that_no_font_has_become_their_numbers_and_a_warning(machine):
    machine()
    told = r"no font .* can draw all letters: '猫' as U\+732B, '树' as U\+6811; install"
    with pytest.warns(UserWarning, match=told) as got:
        found = lettering.drawable(["猫", "cat", "a 树猫\nc", "Кот é"])
        assert found == ["U+732B", "cat", "a U+6811 U+732B \nc", "Кот é"]
    assert len(got) == 1
    blank = Image.new("RGB", (200, 100), "green")
    with pytest.warns(UserWarning, match="U\\+732B"):
        cat, tree = letters(blank, "猫"), letters(blank, "树")
    assert cat == letters(blank, "U+732B") and tree == letters(blank, "U+6811") and cat != tree


def test_an_image_warns_once_and_only_of_names_that_it_shows(machine):
    machine()
    image, labels = Image.new("RGB", (64, 48)), np.zeros((48, 64), int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay(image, labels, ["cat", "猫"])
        lettering.drawable(["a\u200db", "cat\ufe0f", "two\nlines", "…"])
    for draw in (lambda: overlay(image, labels, ["猫", "树"]), lambda: contact_sheet([image], ["猫 猫"]),
                 lambda: image_row([image], ["猫"])):  # fmt: skip
        with pytest.warns(UserWarning, match="猫") as got:
            draw()
        assert len(got) == 1


def test_another_font_of_the_machine_draws_what_dejavu_lacks(machine):
    machine(FONTS / "cmr10.ttf", CYRILLIC, lacks="Кот")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lettering.drawable(["Кот", "cat"]) == ["Кот", "cat"]
    assert lettering.font_file("Кот") == CYRILLIC and lettering.font_file("cat") == lettering.DEJAVU
    assert Path(lettering.font(20, "Кот").path) == CYRILLIC and Path(lettering.font(20).path) == lettering.DEJAVU
    assert lettering.width("КотКот", 20) == int(lettering.font(20, "К").getlength("КотКот")) + 1
    blank = Image.new("RGB", (200, 100), "green")
    drawn = letters(blank, "Кот")
    machine()
    assert drawn != letters(blank, "Кот"), "each in its font"


def test_files_that_are_no_fonts_are_passed_over(machine, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    machine(tmp_path / "broken.ttf", tmp_path / "absent.ttf", CYRILLIC, lacks="К")
    assert lettering.font_file("К") == CYRILLIC


def test_fonts_are_looked_for_without_those_of_equal_glyphs(monkeypatch):
    names = ["b/Noto-Bold.ttf", "a/Noto-Regular.ttc", "c/LastResort.otf", "c/NotoColorEmoji.ttf", "c/AdobeBlank.otf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: names)
    lettering._fonts_of_the_machine.cache_clear()
    assert lettering._fonts_of_the_machine() == [Path("a/Noto-Regular.ttc"), Path("b/Noto-Bold.ttf")]
    lettering._fonts_of_the_machine.cache_clear()
