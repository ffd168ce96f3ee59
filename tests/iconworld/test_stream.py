"""The caption streams: a batch is a function of (seed, step), its lead nouns differ, and the stages come in order."""

import itertools
import random

import pytest
import torch

from ovs_lite.iconworld import stream as module
from ovs_lite.iconworld.caption_grammar import MIN_STUFF, SceneContent, sentence, short_caption, stuff_caption
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import SceneStyle, sample_scenes
from ovs_lite.iconworld.stream import CaptionPairStream, CaptionStream, Stage, default_stages, polish_stages
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
    captions = CaptionStream(count, 8, stages=(BARE,))(0)[1]
    assert {noun for caption in captions for noun in nouns_in(caption)} == {noun.noun for noun in load_nouns()}


@pytest.mark.parametrize("twins, batch", [(2, 16), (2, 7), (3, 9), (3, 10)])
def test_twins_share_their_noun_and_nobody_else_does(twins, batch):
    stage = Stage(10, (1, 1), (0.7, 1.1), bare=1.0, colour=1.0, twins=twins)
    captions = CaptionStream(batch, 16, stages=(stage,))(1)[1]
    leads = [nouns_in(caption)[-1] for caption in captions]
    groups = [list(group) for _, group in itertools.groupby(leads)]
    assert len({group[0] for group in groups}) == len(groups) == -(-batch // twins)
    assert all(len(group) == twins for group in groups[:-1]) and len(leads) == batch
    assert all(colours_in(caption) for caption in captions), "with colour = 1 every caption names one"


def test_twins_differ_in_colour():
    stage = Stage(10, (1, 1), (0.7, 1.1), bare=1.0, colour=1.0, twins=4)
    for step in range(3):
        words = [colours_in(caption)[0] for caption in CaptionStream(64, 16, stages=(stage,))(step)[1]]
        assert all(len(set(words[i : i + 4])) == 4 for i in range(0, 64, 4))


def test_a_warp_bends_pictures_and_keeps_their_captions():
    plain, bent = (CaptionStream(8, 32, stages=(Stage(9, (1, 1), (0.7, 1.1), 1.0, 0.0, warp=w),)) for w in (0.0, 0.25))
    (before, captions), (after, same) = plain(0), bent(0)
    assert captions == same and before.shape == after.shape and 0 <= after.min() and after.max() <= 1
    assert (before - after).abs().flatten(1).mean(1).min() > 0.01
    assert torch.equal(bent(0)[0], after)


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


def test_the_new_fields_leave_the_default_stages_as_they_were(monkeypatch):
    """Without stuff captions no random number is spent on them: the same captions as before there were any."""
    contents, scenes = [], module.scene_contents
    monkeypatch.setattr(module, "scene_contents", lambda *given: contents.append(scenes(*given)) or contents[-1])
    for change in ("_warp", "_restroke", "_blur", "stuff_caption"):
        monkeypatch.setattr(module, change, None)
    stream = CaptionStream(16, 16, seed=4, stages=default_stages(10))
    for step in (0, 4, 6, 9):
        captions, stage, rng = stream(step)[1], stream.stage(step), random.Random(f"4-{step}")
        expected = [
            (short_caption if rng.random() < stage.bare else sentence)(content, rng, stage.colour)
            for content in contents[-1]
        ]
        assert captions == expected
        assert stage.warp == stage.stroke == stage.blur == stage.stuff == 0


@pytest.mark.parametrize("steps", [2, 7, 1000])
def test_the_polish_is_of_colours_and_then_of_scenes_with_every_jitter(steps):
    colours, scenes = polish_stages(steps)
    assert colours.until == round(steps / 2) and scenes.until == steps
    assert colours.twins > 1 == scenes.twins and colours.colour > 0 and scenes.things == (1, 4)
    jitters = [(s.warp, s.stroke, s.blur, s.stuff, s.variants) for s in (colours, scenes)]
    assert jitters[0] == jitters[1] and all(amount > 0 for amount in jitters[0])
    assert colours.double == 0 < scenes.double < 1
    images, captions = CaptionStream(8, 16, stages=(colours,))(0)
    assert images.shape == (8, 3, 16, 16) and 0 <= images.min() and images.max() <= 1 and len(captions) == 8


@pytest.mark.parametrize("double", [0.0, 0.3, 1.0])
def test_a_share_of_the_steps_has_a_quarter_of_the_pictures_at_twice_the_side(double):
    stream = CaptionStream(9, 8, stages=(Stage(9, (1, 1), (0.7, 1.1), 1.0, 0.0, double=double),))
    shapes = [(tuple(images.shape), len(captions)) for images, captions in map(stream, range(60))]
    assert set(shapes) <= {((9, 3, 8, 8), 9), ((2, 3, 16, 16), 2)}
    assert abs(sum(count == 2 for _, count in shapes) / 60 - double) < 0.15 * (0 < double < 1) + 1e-9
    single = CaptionStream(2, 8, stages=(Stage(9, (1, 1), (0.7, 1.1), 1.0, 0.0, double=1.0),))
    assert single(0)[0].shape == (1, 3, 16, 16)


@pytest.mark.parametrize("stream", [CaptionStream(6, 16, 2), CaptionPairStream(6, 2)], ids=["pictures", "pairs"])
def test_same_step_same_bytes_whatever_came_before(stream):
    fresh = type(stream)(6, 16, 2) if isinstance(stream, CaptionStream) else CaptionPairStream(6, 2)
    for step in (9, 0, 9):
        first, second = stream(step)
        again, also = fresh(step)
        assert second == also
        assert torch.equal(first, again) if isinstance(first, torch.Tensor) else first == again
    assert stream(1)[1] != stream(2)[1]


def test_other_seeds_are_other_batches():
    batches = [CaptionStream(4, 16, seed)(0) for seed in range(5)]
    assert all(not torch.equal(a[0], b[0]) and a[1] != b[1] for a, b in itertools.combinations(batches, 2))
    pairs = [CaptionPairStream(4, seed)(0) for seed in range(5)]
    assert all(a != b for a, b in itertools.combinations(pairs, 2))


def test_stages_follow_each_other_and_the_last_goes_on():
    stages = (Stage(2, (1, 1), (0.7, 1.1), 1.0, 0.0), Stage(5, (1, 2), (0.7, 1.0), 0.5, 0.5))
    stream = CaptionStream(2, 16, stages=stages)
    assert [stream.stage(step) for step in (0, 1, 2, 4, 5, 10**9)] == [stages[0]] * 2 + [stages[1]] * 4
    rich = Stage(5, (4, 4), (0.7, 1.0), 0.0, 1.0)
    captions = CaptionStream(32, 32, stages=(stages[0], rich))
    assert sum(len(nouns_in(c)) for c in captions(2)[1]) > 1.5 * sum(len(nouns_in(c)) for c in captions(1)[1])


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 12_000])
def test_default_stages_grow_and_end_with_the_run(steps):
    stages = default_stages(steps)
    ends = [stage.until for stage in stages]
    assert ends == sorted(ends) and ends[-1] == steps
    assert stages[0].things == (1, 1) and stages[0].colour == 0 and stages[-1].things[1] > 1
    assert [stage.twins for stage in stages].count(2) == 1
    assert all(0 <= stage.bare <= 1 and 0 <= stage.colour <= 1 for stage in stages)


@pytest.mark.parametrize("batch", [0, -1, 10**4])
def test_impossible_batches_are_refused(batch):
    with pytest.raises(ValueError, match=f"got batch_size {batch}"):
        CaptionStream(batch)


def test_pairs_start_with_different_nouns_and_the_first_caption_names_one():
    first, second = CaptionPairStream(100, 1)(4)
    leads = [nouns_in(caption) for caption in first]
    assert len(first) == len(second) == 100
    assert all(len(lead) == 1 for lead in leads) and len({lead[0] for lead in leads}) == 100
    agree = [lead[0] in nouns_in(caption) for lead, caption in zip(leads, second, strict=True)]
    assert 0.6 < sum(agree) / 100 < 1, "half are as short, and a sentence may leave the first thing out"
    assert any(len(set(nouns_in(caption))) > 1 for caption in second)


def test_pairs_are_at_most_as_many_as_nouns():
    assert len(CaptionPairStream(10**4)(0)[0]) == len(load_nouns())
