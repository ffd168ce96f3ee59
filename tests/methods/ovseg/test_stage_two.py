"""Stage two: all proposals at once equal one at a time, duplicates are encoded once, empty and tiny ones never."""

import pytest
import torch
import torch.nn.functional as F

from kit.images import randn, random_masks
from kit.ovseg import make_ovseg
from ovs_lite.clip.crops import mask_boxes
from ovs_lite.methods.ovseg.stage_two import distinct, encode_proposals


@pytest.fixture(scope="module")
def clip():
    return make_ovseg().prompted


def proposals(height=24, width=40):
    """Two images of six: four different, an empty one and a duplicate; then the same, flipped, one pixel left."""
    some = random_masks(6, height, width, seed=3)
    some[2], some[4] = False, some[1]
    other = some.flip(-1)
    other[5] = False
    other[5, 3, 4] = True
    return torch.stack([some, other])


@torch.no_grad()
def one_at_a_time(clip, image, mask, size=16):
    left, top, right, bottom = mask_boxes(mask[None])[0].tolist()
    box = (image * mask)[None, :, top:bottom, left:right]
    inside = mask[None, None, top:bottom, left:right].float()
    crop = F.interpolate(box, (size, size), mode="bicubic", align_corners=False)
    return clip.encode_masked(crop, F.interpolate(inside, (size, size), mode="nearest")[0])[0]


@pytest.mark.parametrize("batch", [1, 4, 256])
def test_equals_one_crop_at_a_time_and_encodes_each_kind_once(clip, batch):
    images, masks = randn(2, 3, 24, 40), proposals()
    regions, valid, encoded = encode_proposals(clip, images, masks, batch=batch)
    assert valid.tolist() == [[True, True, False, True, True, True], [True, True, False, True, True, True]]
    assert encoded == 8, "per image five valid ones, of which two are equal"
    for b in range(2):
        for n in range(6):
            expected = one_at_a_time(clip, images[b], masks[b, n]) if valid[b, n] else torch.zeros(16)
            torch.testing.assert_close(regions[b, n], expected, atol=2e-5, rtol=0)


def test_equal_masks_of_two_images_are_not_the_same_region(clip):
    images, masks = randn(2, 3, 24, 40), proposals()[:1].expand(2, -1, -1, -1)
    regions, _, encoded = encode_proposals(clip, images, masks)
    assert encoded == 8 and not torch.allclose(regions[0, 0], regions[1, 0], atol=1e-3)


def test_tiny_proposals_are_invalid_where_that_is_asked_for(clip):
    images, masks = randn(2, 3, 24, 40), proposals()
    _, valid, encoded = encode_proposals(clip, images, masks, smallest=2)
    assert not valid[1, 5] and valid[0, 5] and encoded == 7


@pytest.mark.parametrize("count", [0, 3])
def test_no_proposal_and_only_empty_ones(clip, count):
    regions, valid, encoded = encode_proposals(clip, randn(2, 3, 24, 40), torch.zeros(2, count, 24, 40).bool())
    assert regions.shape == (2, count, 16) and not regions.any() and not valid.any() and encoded == 0


@pytest.mark.parametrize("seed", range(10))
def test_distinct_keeps_the_first_of_each_kind(seed):
    draw = torch.Generator().manual_seed(seed)
    kinds = random_masks(4, 20, 24, seed=seed)
    which = torch.randint(4, (12,), generator=draw)
    kept = torch.rand(12, generator=draw) > 0.3
    first, equal = distinct(kinds[which], kept)
    numbers = kept.nonzero()[:, 0].tolist()
    expected = sorted(min(n for n in numbers if which[n] == kind) for kind in which[kept].unique())
    assert sorted(first.tolist()) == expected
    assert [which[first[place]].item() for place in equal] == which[kept].tolist()
