"""Other drawings of a noun: glyphs of the first font only, drawn where a style asks for them; nothing else moves."""

from dataclasses import replace

import torch

from ovs_lite.iconworld.atlas import draw_glyph, glyph_atlas, variant_atlas, variant_names
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import SceneStyle, sample_scenes
from ovs_lite.iconworld.sets import SET_NAMES, icon_sets

STYLE = SceneStyle(tuple(range(len(load_nouns()))), things=(1, 3), second_font=0.3)


def scenes(variants, count=64):
    generator = torch.Generator().manual_seed(5)
    return sample_scenes(count, replace(STYLE, variants=variants), generator)


def test_variants_are_other_glyphs_of_the_same_font_and_noun():
    used = {noun.mdi for noun in load_nouns()}
    names = [name for some in variant_names() for name in some]
    assert len(names) == len(set(names)) > 100 and not used & set(names)
    for noun, some in zip(load_nouns(), variant_names(), strict=True):
        assert all(name.startswith(f"{noun.mdi}_") for name in some)


def test_the_atlas_holds_each_nouns_variants_in_a_row():
    alpha, begin, number = variant_atlas()
    assert len(alpha) == number.sum() and (begin[1:] == (begin + number)[:-1]).all() and begin[0] == 0
    index = int(number.argmax())
    for place, name in enumerate(variant_names()[index]):
        assert torch.equal(alpha[begin[index] + place], torch.from_numpy(draw_glyph("mdi", name)))


def test_only_nouns_that_have_variants_get_one_and_about_as_often_as_asked():
    drawn, number = scenes(0.5, 512), variant_atlas()[2]
    assert (drawn.drawing <= number[drawn.noun_ids]).all() and (drawn.drawing >= 0).all()
    able = number[drawn.noun_ids] > 0
    assert 0.4 < float((drawn.drawing[able] > 0).float().mean()) < 0.6
    assert set(drawn.drawing[number[drawn.noun_ids] == 2].tolist()) == {0, 1, 2}


def test_without_variants_nothing_changes_and_no_data_set_asks_for_them():
    assert (scenes(0.0).drawing == 0).all()
    assert all(icon_set.style.variants == 0 for name in SET_NAMES for icon_set in icon_sets(name))


def one_thing(noun, drawing, second_font=False):
    scene = scenes(0.0, 1)
    scene.noun_ids[:], scene.drawing[:], scene.second_font[:] = noun, drawing, second_font
    scene.thing_valid[:] = torch.arange(scene.thing_valid.shape[1]) == 0
    scene.size[:, 0], scene.x[:, 0], scene.y[:, 0] = 0.8, 0.5, 0.5
    scene.rotation[:], scene.flip[:] = 0.0, 1.0
    return render(scene, 64, torch.Generator().manual_seed(0)).shapes[0, 0]


def overlap(shape, glyph):
    """IoU of a rendered shape with a glyph that fills 80 % of the picture."""
    wanted = torch.nn.functional.interpolate(glyph[None, None], (51, 51), mode="bilinear")[0, 0] > 0.5
    placed = torch.zeros(64, 64, dtype=torch.bool)
    placed[6:57, 6:57] = wanted
    return float((shape & placed).sum() / (shape | placed).sum())


def test_what_is_rendered_is_the_drawing_that_was_chosen_and_the_second_font_has_only_its_own():
    alpha, begin, number = variant_atlas()
    fonts = glyph_atlas("mdi")[0], glyph_atlas("fa")[0]
    noun = next(i for i in range(len(number)) if number[i] > 0 and glyph_atlas("fa")[1][i])
    glyphs = {"usual": fonts[0][noun], "variant": alpha[begin[noun]], "second": fonts[1][noun]}
    drawn = {"usual": one_thing(noun, 0), "variant": one_thing(noun, 1), "second": one_thing(noun, 1, True)}
    for name, shape in drawn.items():
        scores = {other: overlap(shape, glyph) for other, glyph in glyphs.items()}
        assert max(scores, key=scores.get) == name and scores[name] > 0.8, (name, scores)
