"""Adapters that start as nothing, masks on coarse maps pixel by pixel, region embeddings at several sizes."""

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip, shaken, tiny_clip
from kit.images import normal_images, randn
from ovs_lite.clip import load_clip
from ovs_lite.methods.uniovseg.adapter import LowRankAdapter, MultiScaleAdapter
from ovs_lite.methods.uniovseg.regions import (
    AlignedRegions,
    mask_weights,
    pooled_regions,
    region_embeddings,
    scaled_maps,
    scaled_sizes,
)


def boxes(height=64, width=64):
    """(1, 3, H, W) bool: a half, a small block, nothing."""
    masks = torch.zeros(1, 3, height, width, dtype=torch.bool)
    masks[0, 0, : height // 2] = True
    masks[0, 1, 3:8, 10:15] = True
    return masks


@pytest.mark.parametrize("settings", [{}, {"activation": "none", "alpha": 1.0}, {"bias": True}])
def test_an_adapter_starts_as_nothing_and_learns(settings):
    adapter, x = LowRankAdapter(6, 2, **settings), randn(4, 5, 6)
    assert torch.equal(adapter(x), x)
    adapter(x).square().sum().backward()
    assert adapter.up.weight.grad.abs().max() > 0, "B alone has a gradient at first"
    assert adapter.down.weight.grad.abs().max() == 0


def test_an_adapter_is_x_plus_b_of_the_activation_of_a_x():
    for activation, function in (("gelu", F.gelu), ("relu", F.relu), ("none", lambda x: x)):
        adapter, x = shaken(LowRankAdapter(6, 2, activation, alpha=3.0)), randn(5, 6)
        for row, found in zip(x, adapter(x), strict=True):
            hidden = torch.stack([function((adapter.down.weight[r] * row).sum()) for r in range(2)])
            expected = row + 3 / 2 * torch.stack([(adapter.up.weight[d] * hidden).sum() for d in range(6)])
            torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="got activation='tanh', rank=2, expected one of gelu, relu, none"):
        LowRankAdapter(6, 2, "tanh")


def test_each_scale_has_its_own_adapter_pixel_by_pixel():
    adapter = shaken(MultiScaleAdapter(2, 6, 2))
    maps = [randn(2, 6, 3, 4), randn(2, 6, 5, 5)]
    for one, seen, found in zip(adapter, maps, adapter(maps), strict=True):
        torch.testing.assert_close(found[1, :, 2, 3], one(seen[1, :, 2, 3]))
    assert not torch.allclose(adapter[0](maps[0].movedim(1, -1)), adapter[1](maps[0].movedim(1, -1)))
    with pytest.raises(ValueError, match="got 1 maps, expected one for each of 2 scales"):
        adapter(maps[:1])


def test_weights_are_halves_of_the_resized_mask_and_what_vanishes_counts_by_its_share():
    found = mask_weights(boxes(), (4, 4))[0]
    expected = torch.zeros(4, 4)
    expected[:2] = 1 / 8
    torch.testing.assert_close(found[0], expected)
    small = torch.zeros(4, 4)
    small[0, 0] = 1  # 5 x 5 of 16 x 16 pixels, all in one place
    torch.testing.assert_close(found[1], small)
    assert found[2].abs().max() == 0
    soft = torch.full((1, 1, 8, 8), 0.4)
    soft[..., :4] = 0.6
    torch.testing.assert_close(mask_weights(soft, (8, 8))[0, 0, :, :4], torch.full((8, 4), 1 / 32))
    assert mask_weights(torch.zeros(2, 0, 8, 8), (4, 4)).shape == (2, 0, 4, 4)


def test_weights_equal_a_slow_bilinear_resize():
    masks = randn(1, 3, 12, 20) > 0.3
    weights = mask_weights(masks, (6, 5))[0]
    for mask, found in zip(masks[0].double(), weights, strict=True):
        value = torch.zeros(6, 5)
        for i in range(6):
            for j in range(5):
                y, x = (i + 0.5) * 2 - 0.5, (j + 0.5) * 4 - 0.5
                top, left = int(y), int(x)
                dy, dx = y - top, x - left
                rows = mask[top : top + 2, left : left + 2]
                value[i, j] = (1 - dy) * ((1 - dx) * rows[0, 0] + dx * rows[0, 1]) + dy * (
                    (1 - dx) * rows[1, 0] + dx * rows[1, 1]
                )
        inside = (value > 0.5).float()
        torch.testing.assert_close(found, inside / inside.sum())


def test_sizes_keep_the_shape_in_whole_patches():
    clip = tiny_clip()  # patches of 8
    assert scaled_sizes(clip, 100, 200, (16, 33)) == [(16, 32), (32, 64)]
    assert scaled_sizes(clip, 30, 30, (1,)) == [(8, 8)]
    maps = scaled_maps(clip, normal_images(100, 200), (16, 33), "value")
    assert [tuple(one.shape) for one in maps] == [(2, 16, 2, 4), (2, 16, 4, 8)]
    native = normal_images(32, 64)
    torch.testing.assert_close(scaled_maps(clip, native, (32,), "value")[0], clip.dense(native, "value"))


@torch.no_grad()
def test_regions_are_means_of_their_pixels_averaged_over_scales():
    maps = [randn(1, 6, 4, 4), randn(1, 6, 8, 8, seed=1)]
    weights = [mask_weights(boxes(), one.shape[-2:]) for one in maps]
    expected = torch.zeros(3, 6)
    for seen, some in zip(maps, weights, strict=True):
        for n in range(3):
            total = sum(
                some[0, n, i, j] * seen[0, :, i, j] for i in range(len(seen[0, 0])) for j in range(len(seen[0, 0]))
            )
            expected[n] += F.normalize(total, dim=0) / 2
    torch.testing.assert_close(region_embeddings(maps, weights)[0], expected)
    text = F.normalize(randn(6), dim=0)
    cosines = sum(one @ text for one in pooled_regions(maps, weights)) / 2
    torch.testing.assert_close(region_embeddings(maps, weights) @ text, cosines)


@torch.no_grad()
@pytest.mark.parametrize("name, mode", [("ConvNeXt-Lite", "last"), ("ViT-Lite-8", "value")])
def test_before_training_it_is_the_plain_clip(name, mode):
    clip = random_clip(name)
    model = AlignedRegions(clip, MultiScaleAdapter(2, clip.embed_dim), (64, 96), mode, "bare")
    images, masks = normal_images(64, 64, 1), boxes()
    plain = model(images, masks, adapted=False)
    assert torch.equal(model(images, masks), plain) and plain.shape == (1, 3, clip.embed_dim)
    shaken(model.adapter)
    assert not torch.allclose(model(images, masks)[:, :2], plain[:, :2])
    assert torch.equal(model(images, masks, adapted=False), plain)
    assert not any(value.requires_grad for value in clip.parameters())
    with pytest.raises(ValueError, match="got 1 sizes for an adapter of 2 scales"):
        AlignedRegions(clip, MultiScaleAdapter(2, clip.embed_dim), (64,), mode, "bare")


@torch.no_grad()
def test_a_mask_of_the_whole_image_is_near_the_image_s_embedding():
    clip = load_clip("ConvNeXt-Lite")  # whose image embedding is the mean of its map
    images = normal_images(64, 64, 2) * 0.3
    model = AlignedRegions(clip, MultiScaleAdapter(1, clip.embed_dim), (64,), "last", "bare")
    found = model(images, torch.ones(2, 1, 64, 64))[:, 0]
    torch.testing.assert_close(found, clip.encode_image(images), atol=1e-4, rtol=1e-4)
