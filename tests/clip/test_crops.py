"""Region crops against one PyTorch resize per mask; empty and one-pixel masks, chunks, many regions, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.images import randn, random_masks
from ovs_lite.clip import crops, load_clip
from ovs_lite.clip.crops import cropped_masks, encode_regions, mask_boxes, masked_crops


def odd_masks(height=48, width=72, seed=3):
    """Four rectangles with holes, a corner pixel, a whole column, everything."""
    odd = torch.zeros(3, height, width, dtype=torch.bool)
    odd[0, -1, -1], odd[1, :, 5], odd[2] = True, True, True
    return torch.cat([random_masks(4, height, width, seed=seed), odd])


def slow_box(mask):
    """Left, top, right, bottom by numpy; right and bottom exclusive."""
    ys, xs = np.nonzero(mask.numpy())
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]


def slow_crop(image, mask, size, masked):
    """OVSeg's released recipe: fill with the mean colour, cut the tight box, warp to a square by bicubic."""
    left, top, right, bottom = slow_box(mask)
    if right == left:
        return torch.zeros(image.shape[0], size, size)
    filled = torch.where(mask, image, torch.zeros_like(image)) if masked else image
    box = filled[:, top:bottom, left:right]
    return F.interpolate(box[None], (size, size), mode="bicubic", align_corners=False)[0]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [1, 16, 64])
def test_equals_one_resize_per_mask(size, masked):
    image, masks = randn(3, 48, 72), odd_masks()
    expected = torch.stack([slow_crop(image, mask, size, masked) for mask in masks])
    torch.testing.assert_close(masked_crops(image, masks, size, masked), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_are_tight(seed):
    masks = odd_masks(seed=seed)
    assert mask_boxes(masks).tolist() == [[int(side) for side in slow_box(mask)] for mask in masks]
    assert mask_boxes(masks[:0]).shape == (0, 4)
    assert mask_boxes(torch.zeros(2, 5, 6, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]] * 2


def test_masking_changes_only_what_lies_outside():
    image, mask = randn(3, 48, 72), odd_masks()[:1]
    masked, unmasked = (masked_crops(image, mask, 24, flag) for flag in (True, False))
    assert (masked - unmasked).abs().max() > 0.1
    elsewhere = torch.where(mask[0], image, randn(3, 48, 72, seed=9))
    torch.testing.assert_close(masked_crops(elsewhere, mask, 24), masked)
    assert (masked_crops(elsewhere, mask, 24, masked=False) - unmasked).abs().max() > 0.1
    assert (masked_crops(image, mask, 24) == masked).all(), "masked is the default"


def test_an_empty_mask_gives_zeros_and_one_pixel_gives_its_colour():
    image, masks = randn(3, 48, 72), torch.zeros(3, 48, 72, dtype=torch.bool)
    masks[1, 10, 20] = masks[2, 0, 0] = True
    for masked in (True, False):
        found = masked_crops(image, masks, 8, masked)
        assert (found[0] == 0).all()
        torch.testing.assert_close(found[1], image[:, 10, 20, None, None].expand(3, 8, 8))
        torch.testing.assert_close(found[2], image[:, 0, 0, None, None].expand(3, 8, 8))


def test_each_region_alone_any_order_and_any_chunk(monkeypatch):
    image, masks = randn(3, 48, 72), odd_masks()
    together = masked_crops(image, masks, 16)
    alone = torch.cat([masked_crops(image, mask[None], 16) for mask in masks])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked_crops(image, masks.flip(0), 16), together.flip(0), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(crops, "AT_ONCE", 3)
    torch.testing.assert_close(masked_crops(image, masks, 16), together, atol=1e-5, rtol=1e-5)
    assert masked_crops(image, masks[:0], 16).shape == (0, 3, 16, 16)


def test_pictures_of_other_channels_and_precision():
    masks = odd_masks()
    one = masked_crops(randn(1, 48, 72), masks, 8)
    assert one.shape == (7, 1, 8, 8) and one.dtype == torch.float32
    assert masked_crops(randn(3, 48, 72, dtype=torch.float64), masks, 8).dtype == torch.float64


@pytest.mark.parametrize("masked", [True, False])
def test_gradients_are_those_of_the_slow_crop(masked):
    masks, weight = odd_masks(), randn(3, 16, 16, seed=5)
    image = randn(3, 48, 72).requires_grad_()
    (masked_crops(image, masks, 16, masked) * weight).sum().backward()
    slow = randn(3, 48, 72).requires_grad_()
    (torch.stack([slow_crop(slow, mask, 16, masked) for mask in masks]) * weight).sum().backward()
    torch.testing.assert_close(image.grad, slow.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "masks", [torch.ones(48, 72) > 0, torch.ones(2, 72, 48) > 0, torch.ones(2, 48, 72), torch.ones(1, 2, 48, 72) > 0]
)
def test_masks_of_another_size_or_type_are_refused(masks):
    with pytest.raises(ValueError, match=r"expected bool \(N, \(48, 72\)\)"):
        masked_crops(randn(3, 48, 72), masks, 8)


@pytest.mark.parametrize("name", ["ViT-Lite-8", "ConvNeXt-Lite"])
@torch.no_grad()
def test_encoded_regions_are_the_embeddings_of_their_crops(name):
    clip, image, masks = load_clip(name, pretrained=None), randn(3, 48, 72), odd_masks()
    for masked in (True, False):
        expected = clip.encode_image(torch.stack([slow_crop(image, mask, 64, masked) for mask in masks]))
        for batch in (128, 3, 1):
            found = encode_regions(clip, image, masks, masked, batch)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    other = encode_regions(clip, randn(3, 48, 72, seed=7), masks)
    assert (other - encode_regions(clip, image, masks)).abs().max() > 1e-4, "another picture, other regions"
    assert encode_regions(clip, image, masks[:0]).shape == (0, clip.embed_dim)
    assert encode_regions(clip, image, masks[:1]).norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [1, 7, 16, 64])
def test_a_regions_own_pixels_in_its_crop_are_the_nearest_ones(size):
    masks = torch.cat([odd_masks(), torch.zeros(1, 48, 72, dtype=torch.bool)])
    for mask, found in zip(masks, cropped_masks(masks, size), strict=True):
        left, top, right, bottom = slow_box(mask)
        if right == left:
            assert not found.any()
            continue
        box = mask[None, None, top:bottom, left:right].float()
        assert torch.equal(found, F.interpolate(box, (size, size), mode="nearest")[0, 0] > 0)
    assert cropped_masks(masks[:0], size).shape == (0, size, size)
