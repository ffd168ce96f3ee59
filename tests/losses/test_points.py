"""Points on masks: values against a slow bilinear oracle, and where the uncertain ones lie."""

import math

import pytest
import torch

from kit.bilinear import slow_sample
from ovs_lite.losses.points import sample_points, uncertain_points


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def centres(height, width):
    """(H W, 2) of the pixels, row by row."""
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).view(-1, 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 7), (8, 8)])
def test_values_equal_the_slow_oracle(size):
    masks, points = normal(3, *size), torch.rand(3, 40, 2, generator=generator(1), dtype=torch.float64)
    points[:, :4] = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    points[:, 4:8] = torch.tensor([[0, 0.4], [0.6, 1], [0.01, 0.3], [0.7, 0.99]])  # on and near each border
    found = sample_points(masks, points)
    for m in range(3):
        expected = [slow_sample(masks[m].tolist(), x, y) for x, y in points[m].tolist()]
        assert found[m].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(4, 8), (16, 2), (1, 1), (5, 7)])
def test_pixel_centres_give_the_pixels(size):
    masks = normal(2, *size)
    found = sample_points(masks, centres(*size).expand(2, -1, -1))
    torch.testing.assert_close(found, masks.flatten(1), rtol=0, atol=1e-12)
    if all(side & (side - 1) == 0 for side in size):  # powers of two: centres without rounding
        assert torch.equal(found, masks.flatten(1))


def test_the_first_coordinate_is_across_and_masks_are_0_outside_the_image():
    mask = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    points = torch.tensor([[[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [1.0, 0.25], [1.0, 0.0], [0.25, 1.0]]])
    assert sample_points(mask, points).tolist() == [[2, 3, 2.5, 1, 0.5, 1.5]], "half at a border, a quarter in a corner"


def test_a_border_of_certain_pixels_looks_uncertain():
    """As in the released code: |logit| falls to a half on the border, so all chosen points lie nearest to it."""
    logits = torch.full((1, 8, 8), 9.0)
    found = uncertain_points(logits, 20, oversample=30.0, importance=1.0, generator=generator())
    assert (torch.minimum(found, 1 - found).amin(-1) < 1 / 16).all()


def test_every_mask_has_its_own_points_in_any_order():
    masks, points = normal(4, 3, 5), torch.rand(4, 6, 2, generator=generator(), dtype=torch.float64)
    order, shuffle = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 1, 0, 2, 4])
    expected = sample_points(masks, points)
    torch.testing.assert_close(sample_points(masks[order], points[order][:, shuffle]), expected[order][:, shuffle])
    torch.testing.assert_close(sample_points(masks[1:2], points[1:2]), expected[1:2])


def test_gradients_are_those_of_the_interpolation():
    masks, points = normal(2, 3, 4).requires_grad_(), torch.rand(2, 5, 2, generator=generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sample_points(x, points), masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool])
def test_narrow_masks_are_sampled_where_wide_ones_are(dtype):
    masks = (normal(2, 200, 300) > 0).to(dtype)
    points = torch.rand(2, 50, 2, generator=generator())
    found = sample_points(masks, points)
    assert found.dtype == torch.float32 and torch.equal(found, sample_points(masks.float(), points))
    assert uncertain_points(torch.zeros(2, 4, 4, dtype=dtype), 3).dtype == torch.float32
    assert sample_points(masks.double(), points).dtype == torch.float64


def test_no_masks_and_no_points_give_nothing():
    assert sample_points(torch.zeros(0, 4, 4), torch.zeros(0, 3, 2)).shape == (0, 3)
    assert sample_points(torch.zeros(2, 4, 4), torch.zeros(2, 0, 2)).shape == (2, 0)
    assert uncertain_points(torch.zeros(0, 4, 4), 3).shape == (0, 3, 2)


@pytest.mark.parametrize("num_points, oversample", [(1, 1.0), (1, 5.0), (10, 1.0), (10, 3.0), (7, 2.5)])
def test_importance_1_takes_the_candidates_nearest_to_0(num_points, oversample):
    logits = normal(3, 6, 5)
    found = uncertain_points(logits, num_points, oversample, importance=1.0, generator=generator(7))
    number = int(oversample * num_points)
    candidates = torch.rand(3, number, 2, generator=generator(7)).double()
    for m in range(3):
        by_certainty = sorted(candidates[m].tolist(), key=lambda xy: abs(slow_sample(logits[m].tolist(), *xy)))
        assert sorted(found[m].tolist()) == sorted(by_certainty[:num_points])


def test_importance_0_takes_no_heed_of_the_mask():
    settings = dict(num_points=8, importance=0.0)
    first = uncertain_points(normal(2, 6, 5), **settings, generator=generator())
    second = uncertain_points(100 * normal(2, 6, 5, seed=1), **settings, generator=generator())
    assert first.shape == (2, 8, 2) and torch.equal(first, second)


@pytest.mark.parametrize("importance, sure", [(0.0, 0), (0.3, 3), (0.75, 7), (1.0, 10)])
def test_the_share_of_importance_lies_on_the_edge(importance, sure):
    """A wide field of certain pixels with one column of doubt: of 400 candidates enough hit it."""
    logits = torch.full((2, 10, 10), 50.0)
    logits[:, :, 4] = 0.0
    found = uncertain_points(logits, 10, oversample=40.0, importance=importance, generator=generator(3))
    doubt = (found[..., 0] > 0.4) & (found[..., 0] < 0.5)
    assert doubt[:, :sure].all() and doubt[:, sure:].sum() <= 2


def test_the_sign_of_the_logits_does_not_matter():
    settings = dict(num_points=12, oversample=4.0)
    first = uncertain_points(normal(2, 6, 5), **settings, generator=generator())
    assert torch.equal(first, uncertain_points(-normal(2, 6, 5), **settings, generator=generator()))


def test_a_generator_decides_everything_and_every_mask_draws_its_own():
    logits = normal(1, 6, 5).expand(2, -1, -1).requires_grad_()
    torch.manual_seed(0)
    first = uncertain_points(logits, 9, generator=generator(5))
    torch.manual_seed(1)
    assert torch.equal(first, uncertain_points(logits, 9, generator=generator(5)))
    assert not torch.equal(first, uncertain_points(logits, 9, generator=generator(6)))
    assert not torch.equal(first, uncertain_points(logits, 9)), "without one, torch's own is used"
    assert not torch.equal(first[0], first[1]) and first.shape == (2, 9, 2)
    assert not first.requires_grad and first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(
    "settings",
    [{"num_points": 0}, {"oversample": 0.5}, {"importance": -0.1}, {"importance": 1.1}, {"importance": math.nan}],
)
def test_settings_that_cannot_give_the_points_are_refused(settings):
    with pytest.raises(ValueError, match="expected at least 1, at least 1, and a share in") as error:
        uncertain_points(torch.zeros(1, 4, 4), **{"num_points": 5, **settings})
    name, value = next(iter(settings.items()))
    assert f"{name}={value}" in str(error.value)
