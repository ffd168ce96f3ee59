"""Company: things stand with their kind on their own ground, as often as a style says, and never in an odd scene."""

import pytest
import torch

from ovs_lite.iconworld.company import load_company
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.placement import place, region_at
from ovs_lite.iconworld.render import region_map
from ovs_lite.iconworld.scene import SceneStyle, sample_scenes
from ovs_lite.iconworld.sets import EVALUATION_SETS, icon_sets

NOUNS = tuple(range(len(load_nouns())))


def scenes(count=400, seed=0, **style):
    return sample_scenes(count, SceneStyle(NOUNS, **style), torch.Generator().manual_seed(seed))


def shares(scene):
    """Of scenes at a place: how often the first thing, the others and the stuff are at home there."""
    company, at = load_company(), scene.place_ids >= 0
    home = company.nouns[scene.place_ids[:, None], scene.noun_ids][at]
    stuff = company.stuff[scene.place_ids[:, None], scene.stuff_ids][at]
    others = scene.thing_valid[at].clone()
    others[:, 0] = False
    return home[:, 0].float().mean(), home[others].float().mean(), stuff[scene.stuff_valid[at]].float().mean()


def test_things_stand_where_they_belong_and_with_whom():
    first, others, stuff = shares(scenes(company=1.0, things=(2, 4), repeat=0.0))
    assert first == 1 and others > 0.4 and stuff > 0.95
    alone = scenes(company=0.0, things=(2, 4))
    assert (alone.place_ids == -1).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_scenes_has_company(share):
    found = (scenes(company=share).place_ids >= 0).float().mean().item()
    assert abs(found - share) < 0.08 * (0 < share < 1) + 1e-9


def test_an_odd_scene_is_where_its_first_thing_is_not_at_home():
    first, _, stuff = shares(scenes(company=1.0, odd=True))
    assert first == 0 and stuff > 0.95
    odd, plain = icon_sets("icon-odd")[0].style, icon_sets("icon-context59")[0].style
    assert odd.odd and odd.company == 1 and plain.company > 0 and not plain.odd
    assert all(icon_sets(name)[0].style.company == plain.company for name in EVALUATION_SETS if name != "icon-odd")


def test_the_lead_thing_that_was_asked_for_comes_first():
    lead = torch.arange(50)
    scene = sample_scenes(50, SceneStyle(NOUNS, things=(2, 3)), torch.Generator().manual_seed(0), lead)
    assert torch.equal(scene.noun_ids[:, 0], lead)


def test_region_at_agrees_with_the_map_and_with_a_loop():
    scene = scenes(8)
    drawn = region_map(scene, 16)
    axis = (torch.arange(16) + 0.5) / 16
    for b in range(8):
        for row, column in ((0, 0), (5, 11), (15, 3)):
            angle, amplitude, frequency, phase = scene.layout[b].double()
            u, v = axis[column].double() - 0.5, axis[row].double() - 0.5
            wave = amplitude * torch.sin(2 * torch.pi * ((u * angle.cos() - v * angle.sin()) * frequency + phase))
            along = v * angle.cos() + u * angle.sin() + 0.5 + wave
            ends = [end for end, ok in zip(scene.borders[b], scene.stuff_valid[b, 1:], strict=True) if ok]
            assert drawn[b, row, column] == sum(bool(along > end) for end in ends)
    points = axis[None, :3].expand(8, -1)
    assert torch.equal(
        region_at(scene.layout, scene.borders, scene.stuff_valid, points, points), drawn.diagonal(0, 1, 2)[:, :3]
    )


def test_things_keep_apart_and_prefer_their_ground():
    generator = torch.Generator().manual_seed(0)
    size, valid = torch.full((200, 2), 0.3), torch.ones(200, 2, dtype=torch.bool)
    hard = torch.zeros(200, dtype=torch.bool)
    x, y = place(size, valid, hard, lambda u, v: u < 0.5, generator)
    assert (x >= 0.15).all() and (x <= 0.85).all() and (y >= 0.15).all() and (y <= 0.85).all()
    assert (x < 0.5).float().mean() > 0.95
    x, y = place(size, valid, hard, lambda u, v: torch.zeros_like(u, dtype=torch.bool), generator)
    assert (torch.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]) > 0.3).float().mean() > 0.9
    x, y = place(size, valid, ~hard, lambda u, v: torch.zeros_like(u, dtype=torch.bool), generator)
    assert (x.min() < 0.15 or y.min() < 0.15) and x.min() >= 0.075, "hard things may be cut, never by half"


def test_hard_scenes_are_smaller_blurred_and_hide_things():
    easy, hard = (scenes(300, things=(1, 1), hard=share) for share in (0.0, 1.0))
    assert hard.size.mean() < 0.8 * easy.size.mean()
    assert (easy.blur == 0).all() and 0.5 < (hard.blur > 0).float().mean() < 0.9
    assert (easy.cover[..., 1] > 2).all() and 0.4 < (hard.cover[..., 1] < 1).float().mean() < 0.8
    assert hard.grain.mean() > easy.grain.mean()
