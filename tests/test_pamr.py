"""PAMR against loops over numpy floats; what no image may change, borders, sizes and the inputs that are refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovs_lite.pamr as module
from ovs_lite.pamr import DILATIONS, affinity, neighbour_offsets, neighbour_weights, pamr


def slow_weights(picture, y, x, dilations):
    """Sources (row, column) and weights of one pixel's neighbours. picture: (C, H, W) numpy."""
    channels, height, width = picture.shape
    sources, around = [], []
    for d in dilations:
        for step_y in (-d, 0, d):
            for step_x in (-d, 0, d):
                source = (min(max(y + step_y, 0), height - 1), min(max(x + step_x, 0), width - 1))
                around.append(source)
                sources += [source] if (step_y, step_x) != (0, 0) else []
    exponents = np.zeros(len(sources))
    for c in range(channels):
        spread = np.std([picture[c][at] for at in around], ddof=1)
        for n, at in enumerate(sources):
            exponents[n] -= abs(picture[c][at] - picture[c, y, x]) / (1e-8 + 0.1 * spread) / channels
    weights = np.exp(exponents - exponents.max())
    return sources, weights / weights.sum()


def slow_pamr(image, masks, dilations, iterations):
    """The same for masks that already have the size of the picture, one pixel after the other."""
    result = masks.double().numpy().copy()
    for picture, planes in zip(image.double().numpy(), result, strict=True):
        places = list(np.ndindex(*picture.shape[1:]))
        local = {place: slow_weights(picture, *place, dilations) for place in places}
        for _ in range(iterations):
            old = planes.copy()
            for place, (sources, weights) in local.items():
                planes[(..., *place)] = sum(w * old[(..., *at)] for at, w in zip(sources, weights, strict=True))
    return torch.from_numpy(result)


def inputs(height=11, width=14, classes=3, batch=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64)
    masks = torch.rand(batch, classes, height, width, generator=generator, dtype=torch.float64)
    return image.to(dtype), masks.to(dtype)


@pytest.mark.parametrize("dilations, iterations", [((1,), 1), ((1, 2), 3), ((3, 1), 2), (DILATIONS, 10)])
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_equals_the_slow_oracle(dilations, iterations, dtype, limit):
    image, masks = inputs(batch=2, dtype=dtype)
    found = pamr(image, masks, dilations, iterations)
    assert found.dtype == dtype and found.shape == masks.shape
    assert (found - slow_pamr(image, masks, dilations, iterations)).abs().max() < limit


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4)])
def test_dilations_longer_than_the_image_end_at_its_border(height, width):
    image, masks = inputs(height, width, seed=1)
    found = pamr(image, masks, (1, 3, 24), 3)
    assert (found - slow_pamr(image, masks, (1, 3, 24), 3)).abs().max() < 1e-5
    torch.testing.assert_close(pamr(image, masks, (1, 3, 10**9), 3), found)


def test_defaults_are_those_of_the_released_code():
    image, masks = inputs(30, 28)
    assert torch.equal(pamr(image, masks), pamr(image, masks, (1, 2, 4, 8, 12, 24), 10))


@pytest.mark.parametrize("block, cached", [(1, 1), (4, 200), (20, 500), (2, 800), (2**40, 2**40)])
def test_blocks_and_tiles_change_nothing(monkeypatch, block, cached):
    image, masks = inputs(classes=9, batch=2, dtype=torch.float64)
    expected = pamr(image, masks)
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "CACHED", cached)
    torch.testing.assert_close(pamr(image, masks), expected)


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("classes, at_once", [(1, 80), (9, 80), (9, 4)])
def test_whole_planes_and_gathered_pixels_equal_the_slow_oracle(monkeypatch, gathered, classes, at_once):
    image, masks = inputs(classes=classes, batch=2)
    monkeypatch.setattr(module, "_is_gathered", lambda _: gathered)
    monkeypatch.setattr(module, "GATHERED", at_once)
    found = pamr(image, masks, (1, 3, 24), 4)
    assert (found - slow_pamr(image, masks, (1, 3, 24), 4)).abs().max() < 1e-5


def test_pixels_are_gathered_where_that_is_faster():
    many, few = torch.zeros(1, module.FEW, 70, 70), torch.zeros(1, module.FEW - 1, 70, 70)
    assert module._is_gathered(many) and not module._is_gathered(few) and module._is_gathered(few[..., :20, :20])
    assert not module._is_gathered(many.double()) and not module._is_gathered(many.to("meta"))


def test_weights_are_of_like_colours_and_sum_to_one():
    picture = torch.zeros(3, 9, 12)
    picture[:, :, 6:] = 1.0
    offsets = neighbour_offsets(9, 12, (1, 2))
    weights = affinity(picture, offsets)
    assert weights.shape == (16, 9, 12) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(9, 12))
    across = torch.tensor([x > 0 for _, x in offsets])
    assert weights[across, :, 5].sum(0).max() < 1e-6, "black pixels left of the edge ask no white ones"


def test_a_dot_unlike_all_its_neighbours_is_their_plain_average():
    picture = torch.zeros(3, 61, 61)
    picture[:, 30, 30] = torch.tensor([1e-4, 1.0, 1e4])
    weights = affinity(picture, neighbour_offsets(61, 61, DILATIONS))
    torch.testing.assert_close(weights[:, 30, 30], torch.full((48,), 1 / 48))
    torch.testing.assert_close(weights.sum(0), torch.ones(61, 61))


def test_an_edge_stops_the_masks_and_a_flat_region_mixes_them():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1.0
    masks = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    masks[:, 0, :, :8] += 10
    found = pamr(image, masks)
    assert (found[:, 0, :, :8] > 10).all() and (found[:, 0, :, 8:] < 1).all()
    assert found[:, 1, :, :8].std() < 0.05 * masks[:, 1, :, :8].std()


def test_constant_masks_and_sums_over_classes_stay():
    image, masks = inputs(classes=5)
    constant = torch.full_like(masks, 0.37)
    torch.testing.assert_close(pamr(image, constant), constant)
    sums = pamr(image, masks.softmax(1)).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_classes_images_and_their_order_are_independent():
    image, masks = inputs(classes=6, batch=3)
    found = pamr(image, masks)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    torch.testing.assert_close(pamr(image, masks[:, order]), found[:, order], rtol=0, atol=1e-6)
    for b in range(3):
        torch.testing.assert_close(pamr(image[b : b + 1], masks[b : b + 1, 2:3]), found[b : b + 1, 2:3])
    torch.testing.assert_close(pamr(image.flip(0), masks.flip(0)), found.flip(0))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dims", [(2,), (3,), (2, 3)])
def test_flips_commute(seed, dims):
    image, masks = inputs(seed=seed, dtype=torch.float64)
    torch.testing.assert_close(pamr(image.flip(dims), masks.flip(dims)), pamr(image, masks).flip(dims))


def test_brightness_and_contrast_of_a_channel_do_not_matter():
    image, masks = inputs(dtype=torch.float64)
    gain = torch.tensor([0.2, 5.0, 30.0], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(pamr(image * gain - 7, masks), pamr(image, masks), rtol=0, atol=1e-5)


def test_a_image_of_one_colour_gives_plain_averages():
    masks = inputs()[1]
    found = pamr(torch.full((1, 3, 11, 14), 0.1), masks, (1, 2), 1)
    padded = F.pad(masks, (2, 2, 2, 2), mode="replicate")
    around = [(d * y, d * x) for d in (1, 2) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    planes = [padded[..., 2 + y : 13 + y, 2 + x : 16 + x] for y, x in around]
    torch.testing.assert_close(found, torch.stack(planes).mean(0))


@pytest.mark.parametrize("size", [(4, 5), (11, 14), (20, 30)])
@pytest.mark.parametrize("iterations", [0, 2])
def test_masks_are_first_resized_corner_to_corner(size, iterations):
    image, masks = inputs()[0], inputs(*size, seed=2)[1]
    resized = F.interpolate(masks, (11, 14), mode="bilinear", align_corners=True)
    expected = slow_pamr(image, resized, (1, 2), iterations)
    torch.testing.assert_close(pamr(image, masks, (1, 2), iterations).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.uint8])
def test_lower_precision_is_computed_in_single(dtype):
    image, masks = (values.mul(3).to(dtype) for values in inputs())
    found = pamr(image, masks)
    assert found.dtype == torch.float32
    assert torch.equal(found, pamr(image.float(), masks.float()))


def test_inputs_and_gradients_are_left_alone():
    image, masks = inputs()
    before = image.clone(), masks.clone()
    found = pamr(image.requires_grad_(), masks.requires_grad_())
    assert not found.requires_grad
    assert torch.equal(image, before[0]) and torch.equal(masks, before[1])
    unchanged = pamr(image, masks, iterations=0)
    assert torch.equal(unchanged, masks) and unchanged.data_ptr() != masks.data_ptr()


@pytest.mark.parametrize("batch, classes", [(1, 0), (3, 0), (0, 2)])
def test_no_class_or_no_image_is_no_result(batch, classes):
    found = pamr(torch.zeros(batch, 3, 6, 7), torch.zeros(batch, classes, 2, 2))
    assert found.shape == (batch, classes, 6, 7) and found.dtype == torch.float32


def test_nothing_is_made_on_another_device():
    image, masks = (values.to("meta") for values in inputs(classes=4, batch=2))
    found = pamr(image, masks)
    assert found.device.type == "meta" and found.shape == (2, 4, 11, 14)


@pytest.mark.parametrize(
    "image, masks, message",
    [
        ((3, 6, 6), (1, 2, 6, 6), "image (3, 6, 6) and masks (1, 2, 6, 6), expected (B, 3, H, W) and (B, K, h, w)"),
        ((1, 3, 6, 6), (2, 6, 6), "image (1, 3, 6, 6) and masks (2, 6, 6), expected (B, 3, H, W)"),
        ((2, 3, 6, 6), (1, 2, 6, 6), "image (2, 3, 6, 6) and masks (1, 2, 6, 6), expected (B, 3, H, W)"),
        ((1, 3, 0, 6), (1, 2, 6, 6), "image (1, 3, 0, 6) and masks (1, 2, 6, 6), expected at least one channel"),
        ((1, 0, 6, 6), (1, 2, 6, 6), "image (1, 0, 6, 6) and masks (1, 2, 6, 6), expected at least one channel"),
        ((1, 3, 6, 6), (1, 2, 6, 0), "image (1, 3, 6, 6) and masks (1, 2, 6, 0), expected at least one channel"),
    ],
)
def test_other_shapes_are_refused_by_name(image, masks, message):
    with pytest.raises(ValueError) as error:
        pamr(torch.zeros(image), torch.zeros(masks))
    assert message in str(error.value)


@pytest.mark.parametrize("dilations, iterations", [((), 10), ((1, 0), 10), ((-2,), 10), ((1, 2), -1)])
def test_senseless_settings_are_refused_by_name(dilations, iterations):
    with pytest.raises(ValueError) as error:
        pamr(*inputs(), dilations, iterations)
    assert f"got dilations {dilations} and {iterations} iterations, expected >= 1 and >= 0" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kept_weights_change_nothing(dtype):
    image, masks = inputs(batch=2, dtype=dtype)
    kept = neighbour_weights(image, (1, 3))
    assert len(kept) == 2
    for chosen in (masks, masks[:, :1]):
        assert torch.equal(pamr(image, chosen, (1, 3), 2, weights=kept), pamr(image, chosen, (1, 3), 2))


def test_kept_weights_of_fewer_images_are_refused():
    image, masks = inputs(batch=2)
    with pytest.raises(ValueError):
        pamr(image, masks, weights=neighbour_weights(image[:1]))
