"""The caption streams: a batch is a function of (seed, step), its lead nouns differ, and the stages come in order."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from ovs_lite.iconworld import stream as module
from ovs_lite.iconworld.atlas import STYLES, drawable, load_drawings
from ovs_lite.iconworld.caption_grammar import MIN_STUFF, SceneContent, listing_caption, stuff_caption
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import SceneStyle, sample_scenes
from ovs_lite.iconworld.stream import CaptionStream, Stage, label_stages, object_stages, scene_stages
from ovs_lite.iconworld.textures import STUFF_NAMES

WORDS = sorted(((word, n.noun) for n in load_nouns() for word in (n.noun, n.plural)), key=lambda w: -len(w[0]))
BARE = Stage(10, (1, 1), (0.7, 1.1), bare=1.0, colour=0.0)


def nouns_in(caption):
    """Nouns that a caption names, in the order of its words; the longest name wins ("teddy bear", no "bear")."""
    rest, found = f" {caption.replace(',', ' ').replace('.', ' ')} ", []
    for word, noun in WORDS:
        while f" {word} " in rest:
            place = rest.index(f" {word} ")
            found.append((place, noun))
            rest = rest[:place] + " " + "#" * len(word) + " " + rest[place + len(word) + 2 :]
    return [noun for _, noun in sorted(found)]


def colours_in(caption):
    return [word for word in caption.split() if word in COLOUR_NAMES]


@pytest.mark.parametrize("step", [0, 3, 10**6])
def test_lead_nouns_of_a_batch_differ(step):
    images, captions = CaptionStream(48, 16, stages=(BARE,))(step)
    leads = [nouns_in(caption) for caption in captions]
    assert all(len(lead) == 1 for lead in leads) and len({lead[0] for lead in leads}) == 48
    assert not any(colours_in(caption) for caption in captions if not caption.endswith("orange"))
    assert images.shape == (48, 3, 16, 16) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.05


def test_every_noun_can_be_in_one_batch():
    count = len(load_nouns())
    captions = CaptionStream(count, 32, stages=(BARE,))(0)[1]
    assert {noun for caption in captions for noun in nouns_in(caption)} == {noun.noun for noun in load_nouns()}


@pytest.mark.parametrize("twins, batch", [(2, 16), (2, 7), (3, 9), (3, 10)])
def test_twins_share_their_noun_and_nobody_else_does(twins, batch):
    stage = Stage(10, (1, 1), (0.7, 1.1), bare=1.0, colour=1.0, twins=twins)
    captions = CaptionStream(batch, 16, stages=(stage,))(1)[1]
    leads = [nouns_in(caption)[-1] for caption in captions]
    groups = [list(group) for _, group in itertools.groupby(leads)]
    assert len({group[0] for group in groups}) == len(groups) == -(-batch // twins)
    assert all(len(group) == twins for group in groups[:-1]) and len(leads) == batch


def test_stuff_captions_name_only_stuff_that_can_be_seen():
    generator = torch.Generator().manual_seed(0)
    scene = sample_scenes(24, SceneStyle(noun_ids=tuple(range(len(load_nouns())))), generator)
    rendering, rng = render(scene, 32, generator), random.Random(0)
    for b, content in enumerate(module.scene_contents(scene, rendering)):
        shares = [(rendering.ids[b] == k + 1).float().mean() for k in range(scene.stuff_ids.shape[1])]
        visible = {STUFF_NAMES[i] for i, share in zip(scene.stuff_ids[b], shares, strict=True) if share >= MIN_STUFF}
        for _ in range(20):
            words = stuff_caption(content, rng).replace(".", "").split()
            named = set(words) & set(STUFF_NAMES)
            assert named <= visible and len(named) == words.count("and") + 1 <= 2
            assert not nouns_in(" ".join(words))
    assert "nothing" in stuff_caption(SceneContent((), ()), rng)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_captions_names_the_background_alone(share):
    stage = Stage(9, (1, 1), (0.7, 1.1), bare=1.0, colour=0.0, stuff=share)
    captions = [caption for step in range(3) for caption in CaptionStream(100, 24, stages=(stage,))(step)[1]]
    alone = [caption for caption in captions if not nouns_in(caption)]
    assert len(alone) == 300 if share == 1 else 0.15 < len(alone) / 300 < 0.35
    assert all(set(caption.replace(".", "").split()) & set(STUFF_NAMES) for caption in alone)


@pytest.mark.parametrize("double", [0.0, 0.3, 1.0])
def test_a_share_of_the_steps_has_a_quarter_of_the_pictures_at_twice_the_side(double):
    stream = CaptionStream(9, 8, stages=(Stage(9, (1, 1), (0.7, 1.1), bare=1.0, colour=0.0, double=double),))
    shapes = [(tuple(images.shape), len(captions)) for images, captions in map(stream, range(60))]
    assert set(shapes) <= {((9, 3, 8, 8), 9), ((2, 3, 16, 16), 2)}
    assert abs(sum(count == 2 for _, count in shapes) / 60 - double) < 0.15 * (0 < double < 1) + 1e-9
    single = CaptionStream(2, 8, stages=(Stage(9, (1, 1), (0.7, 1.1), bare=1.0, colour=0.0, double=1.0),))
    assert single(0)[0].shape == (1, 3, 16, 16)


def test_other_seeds_are_other_batches():
    batches = [CaptionStream(4, 16, seed)(0) for seed in range(5)]
    assert all(not torch.equal(a[0], b[0]) and a[1] != b[1] for a, b in itertools.combinations(batches, 2))


def test_stages_follow_each_other_and_the_last_goes_on():
    stages = (Stage(2, (1, 1), bare=1.0, colour=0.0), Stage(5, (1, 2), bare=0.5))
    stream = CaptionStream(2, 16, stages=stages)
    assert [stream.stage(step) for step in (0, 1, 2, 4, 5, 10**9)] == [stages[0]] * 2 + [stages[1]] * 4
    rich = Stage(5, (4, 4), listing=1.0)
    captions = CaptionStream(32, 32, stages=(stages[0], rich))
    assert sum(len(nouns_in(c)) for c in captions(2)[1]) > 1.5 * sum(len(nouns_in(c)) for c in captions(1)[1])


@pytest.mark.parametrize("batch", [0, -1])
def test_impossible_batches_are_refused(batch):
    with pytest.raises(ValueError, match=f"got batch_size {batch}"):
        CaptionStream(batch)


def test_same_step_same_bytes_whatever_came_before():
    stream = CaptionStream(6, 16, 2)
    for step in (9, 0, 9):
        first, second = stream(step), CaptionStream(6, 16, 2)(step)
        assert torch.equal(first[0], second[0]) and first[1] == second[1]
    assert stream(1)[1] != stream(2)[1]


def test_a_batch_of_more_images_than_nouns_uses_every_noun_before_any_again():
    count = len(load_nouns())
    leads = module._lead_nouns(count + 50, tuple(range(count)), 1, torch.Generator().manual_seed(0)).tolist()
    assert sorted(leads[:count]) == list(range(count)) and len(set(leads[count:])) == 50


def test_a_listing_names_everything_that_can_be_seen():
    generator = torch.Generator().manual_seed(0)
    scene = sample_scenes(24, SceneStyle(noun_ids=tuple(range(len(load_nouns()))), things=(2, 4)), generator)
    rng = random.Random(0)
    for content in module.scene_contents(scene, render(scene, 48, generator)):
        if content.things:
            caption = listing_caption(content, rng)
            assert set(nouns_in(caption)) == {thing.noun.noun for thing in content.things}
            words = set(caption.replace(",", "").replace(".", "").split())
            assert not words & set(STUFF_NAMES) or words >= set(content.stuff)


@pytest.mark.parametrize("alone", [0.0, 0.4, 1.0])
def test_a_share_of_the_steps_shows_one_thing_each(alone):
    stage = Stage(99, (3, 3), size=(0.3, 0.4), alone=alone, listing=1.0)
    stream = CaptionStream(4, 32, stages=(stage,))
    single = [max(len(nouns_in(c)) for c in stream(step)[1]) <= 1 for step in range(30)]
    assert abs(sum(single) / 30 - alone) < 0.25 * (0 < alone < 1) + 1e-9


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 12_000])
def test_the_curricula_start_with_single_things_and_end_with_the_run(steps):
    for stages in (object_stages(steps), scene_stages(steps)):
        assert [stage.until for stage in stages] == sorted(stage.until for stage in stages)
        assert (
            stages[-1].until == steps and stages[0].things == (1, 1) and stages[-1].things == (stages[-1].things[0], 4)
        )
        assert all(0 < stage.bare + stage.listing + stage.stuff <= 1 for stage in stages)
    last = scene_stages(steps)[-1]
    assert last.things == (2, 4) and last.alone < 0.5 < last.listing and last.double == 0


def test_a_stream_of_some_styles_shows_the_nouns_that_they_draw():
    glyphs = CaptionStream(64, 16, stages=(BARE,), styles=("mdi",))
    can = drawable(("mdi",))
    names = [noun.noun for noun, drawn in zip(load_nouns(), can.tolist(), strict=True) if drawn]
    assert 64 < len(names) < len(load_nouns()), "or there is nothing to test"
    leads = {noun for step in range(3) for caption in glyphs(step)[1] for noun in nouns_in(caption)}
    assert len(leads) > 64 and leads <= set(names)
    drawings = sample_scenes(200, glyphs.scene_style(0, (1, 1)), torch.Generator().manual_seed(0)).drawing_ids
    assert {STYLES[i] for i in load_drawings().style_ids[drawings].unique().tolist()} == {"mdi"}


def test_some_steps_are_drawn_in_glyphs_alone_where_there_are_glyphs():
    stage = replace(BARE, only_glyphs=0.25)
    mixed, without = CaptionStream(8, 16, stages=(stage,)), CaptionStream(8, 16, stages=(stage,), styles=("noto",))
    alone = [set(mixed.scene_style(step, (1, 1)).styles) == {"mdi"} for step in range(400)]
    assert abs(sum(alone) / 400 - 0.25) < 0.09 and alone == [
        set(mixed.scene_style(step, (1, 1)).styles) == {"mdi"} for step in range(400)
    ]
    assert all(without.scene_style(step, (1, 1)).styles == ("noto",) for step in range(400))
    plain = CaptionStream(8, 16, stages=(BARE,))
    assert all(len(plain.scene_style(step, (1, 1)).styles) == len(plain.styles) for step in range(50))


def test_an_easy_stage_has_no_glyph_no_turned_hue_and_no_company():
    easy, _, world = scene_stages(100)[1:]
    stream = CaptionStream(8, 16, stages=(replace(easy, until=1), world))
    drawings, scenes = load_drawings(), []
    for step in (0, 1):
        scenes.append(sample_scenes(300, stream.scene_style(step, (2, 4)), torch.Generator().manual_seed(step)))
        glyph, turned = drawings.glyph[scenes[step].drawing_ids], scenes[step].turn_ids > 0
        assert bool(glyph.any()) == bool(turned.any()) == bool((scenes[step].place_ids >= 0).any()) == (step == 1)
    assert scenes[0].blur.max() == 0 < scenes[1].blur.max()


def test_labels_name_the_one_thing_of_an_image_and_nothing_else():
    stream = CaptionStream(32, 16, stages=label_stages(10))
    for step in range(6):
        images, captions = stream(step)
        assert len(images) == 32 and all(len(nouns_in(caption)) == 1 for caption in captions)
        words = {word for caption in captions for word in caption.replace(".", "").split()}
        names = {word for caption in captions for noun in nouns_in(caption) for word in noun.split()}
        assert not (words - names) & {*COLOUR_NAMES, *STUFF_NAMES}, "neither colours nor grounds"
