"""One embedding per mask: against loops, what cosine makes of scale and of hardness, gradients, empty masks."""

import pytest
import torch
import torch.nn.functional as F

from ovs_lite.regions.pooling import mask_pool


def inputs(images=2, masks=3, size=4, height=5, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, size, height, width, generator=generator, dtype=torch.float64)
    return pixels, torch.rand(images, masks, height, width, generator=generator, dtype=torch.float64)


def slow_pool(pixels, masks, pooling):
    found = torch.zeros(*masks.shape[:2], pixels.shape[1], dtype=pixels.dtype)
    for b, image in enumerate(masks):
        for n, mask in enumerate(image):
            places = [(i, j) for i in range(mask.shape[0]) for j in range(mask.shape[1])]
            if pooling == "hard":
                places = [place for place in places if mask[place] > 0.5]
            for place in places:
                weight = mask[place] if pooling == "sum" else 1 / len(places)
                found[b, n] += weight * pixels[b][(slice(None), *place)]
    return found


@pytest.mark.parametrize("pooling", ["sum", "hard"])
def test_equals_the_loops(pooling):
    pixels, masks = inputs()
    masks[0, 1] *= 0.4  # nowhere above a half
    torch.testing.assert_close(mask_pool(pixels, masks, pooling), slow_pool(pixels, masks, pooling))


def test_to_a_cosine_a_mask_s_scale_means_nothing_and_its_hardness_does():
    pixels, masks = inputs(1, 3, 5, 8, 8)
    text = torch.randn(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft, half, hard = (
        F.cosine_similarity(mask_pool(pixels, m, kind), text, dim=2)
        for m, kind in ((masks, "sum"), (masks / 2, "sum"), (masks, "hard"))
    )
    torch.testing.assert_close(soft, half)
    binary = (masks > 0.5).double()
    both = [F.cosine_similarity(mask_pool(pixels, binary, kind), text, dim=2) for kind in ("sum", "hard")]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(both[0], hard)
    assert (soft - hard).abs().min() > 1e-3


def test_gradients_reach_pixels_and_soft_masks_and_no_hard_ones():
    pixels, masks = (x.requires_grad_() for x in inputs(1, 2, 2, 2, 3))
    assert torch.autograd.gradcheck(mask_pool, (pixels, masks))
    gradients = torch.autograd.grad(mask_pool(pixels, masks, "hard").square().sum(), (pixels, masks), allow_unused=True)
    assert gradients[0].abs().sum() > 0 and gradients[1] is None


def test_no_masks_empty_masks_and_other_poolings():
    pixels, masks = inputs()
    for pooling in ("sum", "hard"):
        assert mask_pool(pixels, masks[:, :0], pooling).shape == (2, 0, 4)
        assert torch.equal(mask_pool(pixels, 0 * masks, pooling), torch.zeros(2, 3, 4, dtype=torch.float64))
    half = mask_pool(pixels.half(), masks.half())
    assert half.dtype == torch.float32, "sums of many pixels"
    with pytest.raises(ValueError, match="got pooling='mean', expected one of sum, hard"):
        mask_pool(pixels, masks, "mean")


@pytest.mark.parametrize("pooling", ["sum", "hard"])
def test_autocast_does_not_round_the_sums(pooling):
    pixels, masks = (part.float() for part in inputs(height=40, width=40))
    expected = mask_pool(pixels, masks, pooling)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_pool(pixels, masks, pooling), expected)
