"""IconWorld: scenes are deterministic, fair to their captions, and annotated exactly."""

import hashlib
import random

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ovs_lite.config import get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.iconworld.annotate import granular_masks, panoptic, segment_names
from ovs_lite.iconworld.atlas import STYLES, TRAINING_STYLES, UNSEEN_STYLES, load_drawings
from ovs_lite.iconworld.build import build_set, iter_records
from ovs_lite.iconworld.caption_grammar import captions_for, scene_contents, with_article
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import MIN_CHOICES, MIN_DISTANCE, NO_COLOUR, allowed_colours, contrast_table
from ovs_lite.iconworld.render import render, visible_areas
from ovs_lite.iconworld.scene import SceneStyle, sample_scenes
from ovs_lite.iconworld.sets import EVALUATION_SETS, SET_NAMES, icon_sets
from ovs_lite.iconworld.stream import CaptionStream
from ovs_lite.iconworld.textures import STUFF, STUFF_NAMES, paint_stuff

STYLE = SceneStyle(noun_ids=tuple(range(len(load_nouns()))), unseen=0.3, new_style=0.3, repeat=0.4)


def drawn(count=32, size=64, seed=0, style=STYLE):
    generator = torch.Generator().manual_seed(seed)
    scene = sample_scenes(count, style, generator)
    return scene, render(scene, size, generator)


def test_same_seed_same_pictures_other_seed_others():
    first, second, third = drawn(seed=3)[1], drawn(seed=3)[1], drawn(seed=4)[1]
    assert torch.equal(first.images, second.images) and torch.equal(first.ids, second.ids)
    assert not torch.equal(first.images, third.images)


def test_textures_stay_in_range_and_differ():
    textures = paint_stuff(torch.arange(len(STUFF)), 64, torch.Generator().manual_seed(0))
    assert textures.shape == (len(STUFF), 3, 64, 64)
    assert textures.min() >= 0 and textures.max() <= 1
    means = textures.mean((2, 3))
    assert torch.pdist(means).min() > 0.02


def test_every_pixel_has_an_owner_and_areas_add_up():
    scene, rendering = drawn()
    areas = visible_areas(scene, rendering)
    assert (areas.sum(1) == 64 * 64).all()
    regions = scene.stuff_ids.shape[1]
    slow = [[int((rendering.ids[b] == k + 1).sum()) for k in range(areas.shape[1])] for b in range(4)]
    assert areas[:4].tolist() == slow
    assert (areas[:, regions:][~scene.thing_valid] == 0).all()


def test_a_large_upright_glyph_lands_where_the_scene_says():
    scene, _ = drawn(1)
    scene.thing_valid[:] = False
    scene.thing_valid[0, 0] = True
    for field, value in (("x", 0.25), ("y", 0.75), ("size", 0.3), ("rotation", 0.0), ("flip", 1.0)):
        getattr(scene, field)[0, 0] = value
    scene.cover[:] = torch.tensor([0.0, 9.0])
    scene.drawing_ids[0, 0] = load_drawings().names.index("soccer-ball")
    rendering = render(scene, 200, torch.Generator().manual_seed(0))
    shape = rendering.ids[0] == scene.stuff_ids.shape[1] + 1
    assert shape.sum() == rendering.own[0, 0]
    rows, columns = shape.any(1).nonzero()[:, 0], shape.any(0).nonzero()[:, 0]
    centre = float(columns.float().mean()) / 200, float(rows.float().mean()) / 200
    assert centre == pytest.approx((0.25, 0.75), abs=0.01)
    assert 52 <= len(columns) <= 61


def test_captions_name_only_what_can_be_seen():
    scene, rendering = drawn(64, 96)
    contents = scene_contents(scene, rendering)
    names = sorted({word for noun in load_nouns() for word in (noun.noun, noun.plural)}, key=len, reverse=True)
    checked = 0
    for content, captions in zip(contents, captions_for(contents, random.Random(0), 5), strict=True):
        present = {word for thing in content.things for word in (thing.noun.noun, thing.noun.plural)}
        for caption in captions:
            rest = f" {caption.replace(',', ' ')} "
            for name in names:  # longest first, so that "teddy bear" is not read as "bear"
                if f" {name} " in rest:
                    assert name in present, (caption, name)
                    rest = rest.replace(f" {name} ", " ")
                    checked += 1
    assert checked > 300


def test_mismatched_captions_are_other_scenes():
    contents = scene_contents(*drawn(16))
    clean = captions_for(contents, random.Random(1), 1)
    noisy = captions_for(contents, random.Random(1), 1, mismatch=1.0)
    assert len(clean) == len(noisy) == 16 and clean != noisy


def test_landscape_captions_name_no_thing():
    contents = scene_contents(*drawn(64))
    things = {word for noun in load_nouns() for word in (noun.noun, noun.plural)}
    captions = [caption for one in captions_for(contents, random.Random(2), 1, stuff=1.0) for caption in one]
    assert not any(set(caption.split()) & things for caption in captions)
    some = [one[0] for one in captions_for(contents, random.Random(2), 1, stuff=0.15)]
    assert 2 <= sum(not any(f" {name}" in f" {caption}" for name in things) for caption in some) <= 24
    assert captions_for(contents, random.Random(2), 2) == captions_for(contents, random.Random(2), 2, stuff=0.0)


@pytest.mark.parametrize(
    "phrase, expected",
    [
        ("cat", "a cat"),
        ("owl", "an owl"),
        ("unicycle", "a unicycle"),
        ("hourglass", "an hourglass"),
        ("red scissors", "red scissors"),
    ],
)
def test_articles(phrase, expected):
    assert with_article(phrase) == expected


def test_panoptic_keeps_the_vocabulary_and_nothing_else():
    vocabulary = load_vocabulary("icon-context60")
    scene, rendering = drawn(8, 64, style=icon_sets("icon-context60")[0].style)
    for index in range(8):
        ids, names = rendering.ids[index].numpy(), segment_names(scene, index)
        segments, info = panoptic(ids, names, vocabulary)
        assert set(np.unique(segments)) == {entry["id"] for entry in info}  # background takes the rest: no void
        for entry in info:
            mask = segments == entry["id"]
            assert entry["area"] == mask.sum()
            x, y, width, height = entry["bbox"]
            assert mask[y : y + height, x : x + width].sum() == entry["area"]
            owners = {names[i] for i in np.unique(ids[mask]).tolist()}
            if entry["category_id"] == vocabulary.background:
                assert all(vocabulary.find(name) is None for name in owners)
            else:
                assert owners == {vocabulary.names[entry["category_id"]]}


def test_granular_masks_hold_objects_their_parts_and_their_groups():
    scene, rendering = drawn(16, 128, style=icon_sets("icon-sa")[0].style)
    nested = 0
    for index in range(16):
        encoded = granular_masks(scene, rendering, index)
        masks = [coco_mask.decode({**rle, "counts": rle["counts"].encode()}) for rle in encoded]
        assert masks and all(mask.sum() >= 12 for mask in masks)
        assert len({mask.tobytes() for mask in masks}) == len(masks)
        nested += sum(
            (a & b).sum() == a.sum() and a.sum() < b.sum()
            for i, a in enumerate(masks)
            for j, b in enumerate(masks)
            if i != j
        )
    assert nested > 10


def test_stream_is_a_function_of_seed_and_step():
    stream = CaptionStream(32, 32, seed=5)
    first, again = stream(7), CaptionStream(32, 32, seed=5)(7)
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert stream(8)[1] != first[1]


@pytest.mark.parametrize("name", SET_NAMES)
def test_every_set_yields_valid_records(name):
    for icon_set in icon_sets(name):
        records = list(iter_records(icon_set, 3, 48, seed=0))
        assert len({record["image_id"] for record in records}) == 3
        for record in records:
            assert (record["segments"] is None) == (icon_set.vocabulary is None)
            assert len(record["captions"]) == icon_set.captions
            for entry in record["segments_info"] or []:
                assert 0 <= entry["category_id"] < len(icon_set.vocabulary)


def test_build_gives_the_same_bytes_and_skips_what_is_there(tmp_path):
    config = get_profile("smoke").data

    def digests(root):
        return {p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}

    folders = [build_set("icon-voc21", config, tmp_path / side, seed=0, progress=False)[0] for side in "ab"]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    before = folders[0].stat().st_mtime_ns
    build_set("icon-voc21", config, tmp_path / "a", seed=0, progress=False)
    assert folders[0].stat().st_mtime_ns == before
    build_set("icon-voc21", config, tmp_path / "a", seed=1, progress=False)
    assert digests(tmp_path / "a") != digests(tmp_path / "b")
    split = load_split(folders[1])
    assert len(split) == config.val_scenes and split[0]["image"].size == (config.image_size, config.image_size)


def test_vocabularies_name_only_what_can_be_drawn_or_says_so():
    drawable = {noun.noun for noun in load_nouns()} | set(STUFF_NAMES) | {"background"}
    counts = {"icon-voc20": 20, "icon-voc21": 21, "icon-context59": 59, "icon-context60": 60, "icon-ade150": 150}
    for name, count in counts.items():
        vocabulary = load_vocabulary(name)
        assert len(vocabulary) == count and set(vocabulary.names) <= drawable
        assert any(vocabulary.seen) and not all(vocabulary.seen)
    assert len(load_vocabulary("icon-ade847")) == 847 and len(load_vocabulary("icon-stuff")) == 171


def test_a_thing_covers_what_it_would_cover_alone_where_nothing_lies_on_it():
    scene, rendering = drawn()
    visible = visible_areas(scene, rendering)[:, scene.stuff_ids.shape[1] :]
    assert (visible <= rendering.own).all() and (rendering.own[~scene.thing_valid] == 0).all()
    alone = drawn(style=SceneStyle(STYLE.noun_ids, things=(1, 1), hard=0.0))
    assert (
        torch.equal(visible_areas(*alone)[:, alone[0].stuff_ids.shape[1] :], alone[1].own) and (alone[1].own > 40).all()
    )


def test_glyphs_stay_apart_from_the_stuff_below():
    scene, _ = drawn(64, style=SceneStyle(STYLE.noun_ids, unseen=0.3))
    allowed = allowed_colours(scene.stuff_ids, scene.stuff_valid)
    assert (allowed.sum(1) >= MIN_CHOICES).all()
    glyph = load_drawings().glyph[scene.drawing_ids]
    rows = glyph.nonzero()[:, 0]
    assert len(rows) > 20 and allowed[rows, scene.colour_ids[glyph]].all()
    nearest = contrast_table()[scene.stuff_ids].masked_fill(~scene.stuff_valid[..., None], torch.inf).amin(1)
    assert (nearest[allowed] >= MIN_DISTANCE).float().mean() > 0.9


def test_a_thing_is_drawn_as_its_noun_in_a_style_of_its_scene_and_called_by_its_colour():
    scene, _ = drawn(64)
    drawings = load_drawings()
    assert torch.equal(drawings.noun_ids[scene.drawing_ids], scene.noun_ids)
    styles = [{STYLES[i] for i in row.tolist()} for row in drawings.style_ids[scene.drawing_ids]]
    for found, unseen in zip(styles, scene.unseen.tolist(), strict=True):
        assert found <= set(UNSEEN_STYLES if unseen else TRAINING_STYLES)
    drawn_so = drawings.colours[scene.drawing_ids, scene.turn_ids]
    sprite = ~drawings.glyph[scene.drawing_ids]
    assert torch.equal(scene.colour_ids[sprite], drawn_so[sprite]) and (scene.colour_ids[~sprite] >= 0).all()
    assert (scene.colour_ids == NO_COLOUR).any() and (scene.turn_ids[~drawings.made[scene.drawing_ids]] == 0).all()


def test_unseen_styles_appear_in_validation_only():
    assert all(icon_sets(name)[0].style.unseen > 0 for name in EVALUATION_SETS)
    for name in ("icon-coco", "icon-caption", "icon-sa"):
        assert all(s.style.unseen == 0 and set(s.style.styles) == set(TRAINING_STYLES) for s in icon_sets(name))


def test_a_crowd_is_large_and_full():
    (crowd,) = icon_sets("icon-crowd")
    record = next(iter_records(crowd, 1, 128, seed=0))
    scene, _ = drawn(16, 32, style=crowd.style)
    number = scene.thing_valid.sum(1)
    assert record["image"].shape == (192, 192, 3) and number.min() >= 8 and number.max() <= 15
