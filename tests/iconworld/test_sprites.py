"""The shipped sprites: the index fits the sheets, the nouns and the licences; colours and parts are what one sees."""

import colorsys
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from ovs_lite.iconworld import atlas
from ovs_lite.iconworld.atlas import (
    FOLDER,
    GLYPHS,
    STYLES,
    TRAINING_STYLES,
    UNSEEN_STYLES,
    choices,
    drawable,
    load_drawings,
    read_index,
    specimen,
    sprites,
)
from ovs_lite.iconworld.company import PLACES, load_company
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import (
    COLOUR_NAMES,
    MOST,
    NO_COLOUR,
    PIGMENTS,
    TURNS,
    colour_words,
    hue_turns,
    measured_colours,
    turned,
)
from ovs_lite.iconworld.parts import part_map

ROOT = Path(__file__).parents[2]
COUNT = sum(len(style["drawings"]) for style in read_index()["styles"].values())


def test_the_shipped_files_are_small_and_no_other():
    files = sorted(path.name for path in FOLDER.iterdir())
    assert files == sorted([*(f"{style}.webp" for style in STYLES), "index.json"])
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 14e6


@pytest.mark.parametrize("style", STYLES)
def test_the_index_fits_its_sheet(style):
    index, entry = read_index(), read_index()["styles"][style]
    with Image.open(FOLDER / entry["file"]) as sheet:
        assert sheet.size == (96 * index["columns"], 96 * -(-len(entry["drawings"]) // index["columns"]))
    assert entry["training"] == (style in TRAINING_STYLES) and index["side"] == 96
    names = [name for _, name, _ in entry["drawings"]]
    assert len(set(names)) == len(names)
    nouns = {noun.noun: noun for noun in load_nouns()}
    for noun, name, words in entry["drawings"]:
        assert name == getattr(nouns[noun], style) if style in GLYPHS else name in nouns[noun].emoji
        assert len(words) == (0 if style in GLYPHS else TURNS if nouns[noun].made else 1), noun


def test_every_source_stands_in_the_list_of_third_parties():
    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    for entry in read_index()["styles"].values():
        assert entry["package"] in text and entry["licence"] in ("Apache-2.0", "MIT", "CC-BY-4.0")


def test_sprites_fill_their_square_and_are_premultiplied():
    whole, half, quarter = sprites("cpu")
    assert whole.shape == (COUNT, 4, 96, 96) and half.shape[-1] == 48 and quarter.shape[-1] == 24
    shown = whole[:, 3] > 8
    span = torch.maximum(shown.any(1).sum(1), shown.any(2).sum(1))
    assert (span >= 84).all() and shown[:, 0].sum() < 0.02 * shown[:, 48].sum()
    assert (whole[:, :3] <= whole[:, 3:]).all()
    shares = (whole[:, 3] > 127).float().mean((1, 2))
    assert shares.min() > 0.03 and shares.max() < 0.99


def test_every_noun_is_drawn_in_training_and_nearly_every_one_in_an_unseen_style():
    assert drawable(TRAINING_STYLES).all() and drawable(UNSEEN_STYLES).float().mean() > 0.9
    names = {noun.noun: i for i, noun in enumerate(load_nouns())}
    assert not drawable(("noto",))[names["bench"]] and drawable(("mdi",))[names["bench"]]


def test_styles_share_a_nouns_chances_and_glyphs_get_less():
    ids, chances = choices(TRAINING_STYLES)
    drawings, cat = load_drawings(), [noun.noun for noun in load_nouns()].index("cat")
    steps = torch.diff(chances[cat], prepend=torch.zeros(1))
    by_style = {}
    for drawing, chance in zip(ids[cat].tolist(), steps.tolist(), strict=True):
        style = STYLES[drawings.style_ids[drawing]]
        by_style[style] = by_style.get(style, 0.0) + chance * (drawings.noun_ids[drawing] == cat).item()
    assert sum(by_style.values()) == pytest.approx(1, abs=1e-5)
    assert by_style["noto"] == pytest.approx(by_style["firefox"], abs=1e-5)
    assert by_style["mdi"] == pytest.approx(atlas.GLYPH_WEIGHT * by_style["noto"], abs=1e-5)


def test_an_index_that_names_an_unknown_noun_is_refused(monkeypatch):
    index = json.loads(json.dumps(read_index()))
    index["styles"]["noto"]["drawings"][0][0] = "wyvern"
    monkeypatch.setattr(atlas, "read_index", lambda: index)
    with pytest.raises(ValueError, match="wyvern.*make_sprites"):
        load_drawings.__wrapped__()


def test_pigments_are_called_by_their_names():
    colours = torch.tensor(list(PIGMENTS.values()))[:, :, None, None]
    assert [COLOUR_NAMES[i] for i in colour_words(colours).flatten()] == list(PIGMENTS)


@pytest.mark.parametrize(
    "rgb, word",
    [((0.87, 0.18, 0.27), "red"), ((0.33, 0.67, 0.93), "blue"), ((0.47, 0.70, 0.35), "green"), ((0.5, 0.5, 0.5), None),
     ((0.97, 0.87, 0.78), None), ((1.0, 0.80, 0.30), "yellow"), ((0.96, 0.56, 0.05), "orange"),
     ((0.67, 0.56, 0.84), "purple"), ((0.76, 0.41, 0.31), None), ((0.51, 0.68, 0.75), None),
     ((0.92, 0.35, 0.62), "pink"),
     ((0.44, 0.24, 0.15), "brown"), ((0.16, 0.18, 0.20), "black"), ((0.90, 0.91, 0.92), "white")],
)  # fmt: skip
def test_the_words_of_common_emoji_colours(rgb, word):
    found = colour_words(torch.tensor(rgb).view(1, 3, 1, 1)).item()
    assert (None if found == NO_COLOUR else COLOUR_NAMES[found]) == word


def test_a_sprite_is_named_by_the_colour_that_covers_most_of_it():
    picture = torch.zeros(2, 4, 10, 10)
    picture[:, 3, :, :8] = 1
    picture[:, :3] = torch.tensor(PIGMENTS["blue"]).view(3, 1, 1)
    rows = round(10 * (1 - MOST)) - 1, round(10 * (1 - MOST)) + 1
    for sprite, share in zip(picture, rows, strict=True):
        sprite[:3, :share] = torch.tensor(PIGMENTS["yellow"]).view(3, 1, 1)
    assert measured_colours(picture).tolist() == [COLOUR_NAMES.index("blue"), NO_COLOUR]
    assert measured_colours(torch.zeros(1, 4, 5, 5)).tolist() == [NO_COLOUR]


def test_hue_turns_keep_greys_and_go_round():
    turns = hue_turns()
    grey = torch.full((3,), 0.4)
    torch.testing.assert_close(turns @ grey, grey.expand(TURNS, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(turns[0], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.matrix_power(turns[1], TURNS), torch.eye(3), atol=1e-4, rtol=0)
    picture = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned(picture)[0], picture)
    hues = [colorsys.rgb_to_hsv(*(turn @ torch.tensor([0.6, 0.4, 0.4])).tolist())[0] for turn in turns]
    assert len({round(hue * 12) % 12 for hue in hues}) >= 6


def test_the_shipped_colours_are_those_of_the_shipped_sprites():
    drawings = load_drawings()
    plain = (~drawings.glyph).nonzero()[::40, 0]
    whole = sprites("cpu")[0][plain].float() / 255
    whole[:, :3] /= whole[:, 3:].clamp(min=1e-3)
    found = measured_colours(whole.clamp(0, 1))
    assert (found == drawings.colours[plain, 0]).float().mean() > 0.97


def test_parts_are_connected_like_coloured_and_together_the_drawing():
    names = load_drawings().names
    car = part_map(names.index("automobile"))
    assert 3 <= car.max() <= 25
    for drawing in range(0, COUNT, 250):
        parts, shown = part_map(drawing), sprites("cpu")[0][drawing, 3].numpy() > 127
        assert parts.shape == shown.shape and ((parts > 0) == shown).all()
        sizes = np.bincount(parts.ravel())[1:]
        assert len(sizes) >= 1 and ndimage.label(parts == 1)[0].max() >= 1


def test_every_noun_is_at_home_and_every_place_has_ground_and_company():
    company = load_company()
    assert company.nouns.any(0).all() and (company.nouns.sum(1) >= 8).all() and (company.stuff.sum(1) == 2).all()
    assert company.nouns.shape == (len(PLACES), len(load_nouns()))


def test_the_company_table_refuses_strangers(monkeypatch):
    monkeypatch.setitem(PLACES, "sea", ("water sky", "boat, wyvern"))
    with pytest.raises(ValueError, match="wyvern in PLACES"):
        load_company.__wrapped__()
    monkeypatch.setitem(PLACES, "sea", ("water sky", "boat"))
    with pytest.raises(ValueError, match="no place for .*shark"):
        load_company.__wrapped__()


def test_the_script_that_draws_them_knows_every_style(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", sys)  # a build-time extra
    spec = importlib.util.spec_from_file_location("make_sprites", ROOT / "data_scripts" / "make_sprites.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {style: source[3] for style, source in script.SOURCES.items()} == {
        style: style in TRAINING_STYLES for style in STYLES
    }
    with pytest.raises(FileNotFoundError, match="npm pack @iconify-json/noto@"):
        script.Packages(ROOT)
    shape = Image.new("RGBA", (300, 200))
    shape.paste((255, 0, 0, 255), (50, 60, 250, 160))
    fitted = np.asarray(script.fitted(shape))
    assert (
        fitted.shape == (96, 96, 4)
        and (fitted[..., 3] > 0).any(1).sum() == 47
        and tuple(fitted[48, 48]) == (255, 0, 0, 255)
    )


def test_a_specimen_is_the_first_drawing_on_white():
    found = specimen("airplane", "noto")
    assert found.shape == (96, 96, 3) and found.dtype == np.uint8
    assert (found[0, 0] == 255).all() and found.min() < 128, "white paper, and something on it"
    glyph = specimen("airplane", "mdi")
    assert (glyph == glyph[..., :1]).all() and glyph.min() == 0, "a glyph is black"
    for noun, style in (("airplane", "none"), ("no noun", "noto"), ("bench", "noto")):
        with pytest.raises(ValueError, match=f"got {noun!r} in {style!r}"):
            specimen(noun, style)
