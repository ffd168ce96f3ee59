"""How the caption stream changes its pictures: line widths and blur against scipy, sharp pictures, small amounts."""

import math

import pytest
import torch
from scipy import ndimage

from ovs_lite.iconworld.stream import CaptionStream, Stage, _blur, _restroke


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, height=12, width=15, seed=1):
    return torch.rand(count, 3, height, width, generator=seeded(seed))


def slow_restroke(images, amount, seed):
    """Every channel's neighbourhood by scipy; the share and its sign are the stream's own draws."""
    changed = images.clone()
    for image, draw in zip(changed, torch.rand(len(images), generator=seeded(seed)).tolist(), strict=True):
        share = amount * (2 * draw - 1)
        grown = (ndimage.maximum_filter if share > 0 else ndimage.minimum_filter)(image, size=(1, 3, 3), mode="nearest")
        image += abs(share) * (torch.from_numpy(grown) - image)
    return changed


def slow_blur(images, amount, seed):
    """Every picture by scipy, or as it is where the draw is in the lower half."""
    reach, changed = math.ceil(2 * amount), images.clone()
    for image, draw in zip(changed, torch.rand(len(images), generator=seeded(seed)).tolist(), strict=True):
        if draw > 0.51:
            deviation = amount * (2 * draw - 1)
            blurred = ndimage.gaussian_filter(image, (0, deviation, deviation), mode="mirror", radius=(0, reach, reach))
            image.copy_(torch.from_numpy(blurred))
    return changed


@pytest.mark.parametrize(("change", "slow"), [(_restroke, slow_restroke), (_blur, slow_blur)])
@pytest.mark.parametrize("amount", [0.3, 0.8, 1.0, 1.9])
def test_strokes_and_blur_equal_the_slow_oracles_and_follow_the_generator(change, slow, amount):
    amount = min(amount, 1.0) if change is _restroke else amount
    found = change(noise(16), amount, seeded(5))
    torch.testing.assert_close(found, slow(noise(16), amount, 5), rtol=1e-4, atol=1e-5)
    assert torch.equal(change(noise(16), amount, seeded(5)), found)
    assert not torch.equal(change(noise(16), amount, seeded(6)), found)
    assert -1e-6 <= found.min() and found.max() <= 1 + 1e-6
    torch.testing.assert_close(change(noise(4), 1e-6, seeded()), noise(4), rtol=0, atol=1e-5)


def test_strokes_grow_by_one_pixel_at_most_and_both_bright_and_dark_ones():
    images, ring = torch.full((40, 3, 11, 11), 0.5), torch.zeros(11, 11, dtype=torch.bool)
    images[:, :, 4:7, 4:7] = torch.where(torch.arange(40) % 2 == 0, 1.0, 0.0)[:, None, None, None]  # bright, dark, ...
    ring[3:8, 3:8] = True
    moved = _restroke(images, 1.0, seeded()) - images
    assert (moved[..., ~ring] == 0).all() and (moved[..., 5, 5] == 0).all()
    grown = moved[..., 3, 3].mean(1)
    assert grown[::2].max() > 0.2 and grown[1::2].min() < -0.2, "bright squares and dark squares grow"
    shrunk = moved[..., 4, 4].mean(1)
    assert shrunk[::2].min() < -0.2 and shrunk[1::2].max() > 0.2, "or their surroundings do"
    assert ((grown != 0) ^ (shrunk != 0)).all(), "never both in one picture"


def test_half_of_the_pictures_stay_sharp_and_the_others_keep_their_mean():
    images = noise(400, 16, 16)
    blurred = _blur(images, 1.2, seeded(2))
    same = (images == blurred).flatten(1).all(1)
    assert 0.4 < same.float().mean() < 0.6
    assert (images.mean((1, 2, 3)) - blurred.mean((1, 2, 3))).abs().max() < 0.02
    spread = (blurred.flatten(1).std(1) / images.flatten(1).std(1))[~same]
    assert spread.max() < 1.001 and spread.min() < 0.4
    torch.testing.assert_close(_blur(torch.full((9, 3, 8, 8), 0.25), 1.2, seeded()), torch.full((9, 3, 8, 8), 0.25))


@pytest.mark.parametrize("field", ["stroke", "blur"])
def test_changed_pictures_keep_their_captions(field):
    plain, changed = (CaptionStream(8, 32, stages=(Stage(9, (1, 2), (0.7, 1.1), 0.5, 0.5, **{field: amount}),))
                      for amount in (0.0, 0.9))  # fmt: skip
    (before, captions), (after, same) = plain(3), changed(3)
    assert captions == same and before.shape == after.shape and not torch.equal(before, after)
    assert 0 <= after.min() and after.max() <= 1 and torch.equal(changed(3)[0], after)
