"""Deformable attention against grid_sample and loops, its gradients, places outside, precision; the module's start."""

import math

import pytest
import torch

from kit.oracles.deformable import sampled_attention, slow_attention
from ovs_lite.models.deformable_attention import MultiScaleDeformableAttention, deformable_attention

SHAPES = [[(3, 4)], [(5, 3), (2, 2)], [(1, 1), (1, 7), (4, 1)]]


def inputs(shapes, images=2, queries=3, heads=2, size=4, points=2, spread=1.6, dtype=torch.float64, seed=0):
    """Places in [-0.3, 1.3] with spread 1.6: many lie outside."""
    generator = torch.Generator().manual_seed(seed)
    pixels = sum(height * width for height, width in shapes)
    value = torch.randn(images, pixels, heads, size, generator=generator, dtype=dtype)
    places = torch.rand(images, queries, heads, len(shapes), points, 2, generator=generator, dtype=dtype)
    weights = torch.randn(images, queries, heads, len(shapes), points, generator=generator, dtype=dtype)
    return value, shapes, spread * (places - 0.5) + 0.5, weights


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("spread", [0.9, 1.6, 9.0])
def test_it_equals_the_loops_and_the_reference_formulation(shapes, spread):
    given = inputs(shapes, spread=spread)
    found = deformable_attention(*given)
    assert found.shape == (2, 3, 8) and found.dtype == torch.float64
    torch.testing.assert_close(found, slow_attention(*given), atol=1e-12, rtol=0)
    torch.testing.assert_close(found, sampled_attention(*given), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shapes", SHAPES)
def test_the_gradients_of_value_places_and_weights_are_those_of_the_reference(shapes):
    value, shapes, places, weights = inputs(shapes)
    tensors = [tensor.requires_grad_() for tensor in (value, places, weights)]
    direction = torch.randn(2, 3, 8, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((attention(value, shapes, places, weights) * direction).sum(), tensors)
        for attention in (deformable_attention, sampled_attention)
    ]
    for ours, reference in zip(*gradients, strict=True):
        assert reference.abs().max() > 0.1
        torch.testing.assert_close(ours, reference, atol=1e-8, rtol=0)
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, shapes, p, w), tensors)


def test_the_centre_of_a_pixel_reads_that_pixel_alone():
    value, shapes, places, weights = inputs([(3, 4)], images=1, queries=12, heads=1, points=1)
    y, x = torch.meshgrid(torch.arange(3).double(), torch.arange(4).double(), indexing="ij")
    centres = torch.stack([(x + 0.5) / 4, (y + 0.5) / 3], -1).view(1, 12, 1, 1, 1, 2)
    found = deformable_attention(value, shapes, centres, torch.ones_like(weights))
    torch.testing.assert_close(found[0], value[0, :, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("place", [(-0.2, 0.5), (0.5, 1.2), (-40.0, 70.0), (math.inf, 0.5)])
def test_places_outside_are_zero_and_give_no_gradient(place):
    value, shapes, places, weights = inputs([(3, 4)])
    places = torch.tensor(place, dtype=torch.float64).expand_as(places).clone().requires_grad_(math.isfinite(place[0]))
    value.requires_grad_()
    found = deformable_attention(value, shapes, places, weights)
    found.sum().backward()
    assert (found == 0).all() and (value.grad == 0).all() and (places.grad is None or (places.grad == 0).all())


def test_a_place_that_is_no_number_makes_the_result_none_and_not_a_crash():
    value, shapes, places, weights = inputs([(3, 4)])
    places[0, 0, 0, 0, 0, 0] = math.nan
    found = deformable_attention(value, shapes, places, weights)
    assert found[0, 0, :4].isnan().all() and found[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_as_float32(dtype):
    value, shapes, places, weights = inputs(SHAPES[1], dtype=torch.float32)
    value = value.to(dtype)
    expected = deformable_attention(value.float(), shapes, places, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = deformable_attention(value, shapes, places, weights)
    assert found.dtype == dtype and torch.equal(found, expected.to(dtype))


def test_images_and_queries_do_not_mix():
    value, shapes, places, weights = inputs(SHAPES[1])
    whole = deformable_attention(value, shapes, places, weights)
    for b in range(2):
        for q in range(3):
            some = (slice(b, b + 1), slice(q, q + 1))
            alone = deformable_attention(value[b : b + 1], shapes, places[some], weights[some])
            torch.testing.assert_close(alone[0, 0], whole[b, q], atol=1e-12, rtol=0)


def test_no_queries_give_no_rows():
    value, shapes, places, weights = inputs(SHAPES[0], queries=0)
    assert deformable_attention(value, shapes, places, weights).shape == (2, 0, 8)


@pytest.mark.parametrize("wrong", ["pixels", "levels", "weights", "heads", "images"])
def test_shapes_that_do_not_fit_are_refused(wrong):
    value, shapes, places, weights = inputs([(3, 4)])
    changed = {
        "pixels": (value, [(3, 5)], places, weights),
        "levels": (value, [(3, 2), (3, 2)], places, weights),
        "weights": (value, shapes, places, weights[..., :1]),
        "heads": (value, shapes, places[:, :, :1], weights[:, :, :1]),
        "images": (value, shapes, places[:1], weights[:1]),
    }
    with pytest.raises(ValueError, match=r"expected \(B, S, heads, d\)"):
        deformable_attention(*changed[wrong])


def test_the_module_starts_looking_in_as_many_directions_as_heads_with_equal_weights():
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(16, heads=4, levels=2, points=3).double()
    queries, tokens, shapes = torch.randn(2, 5, 16).double(), torch.randn(2, 13, 16).double(), [(3, 3), (2, 2)]
    references = torch.rand(5, 2).double()
    places = torch.empty(2, 5, 4, 2, 3, 2).double()
    directions = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    for head, (x, y) in enumerate(directions):
        for level, (height, width) in enumerate(shapes):
            for point in range(3):
                places[:, :, head, level, point, 0] = references[:, 0] + x * (point + 1) / width
                places[:, :, head, level, point, 1] = references[:, 1] + y * (point + 1) / height
    weights = torch.full((2, 5, 4, 2, 3), 1 / 6).double()
    value = (tokens @ module.value.weight.T).unflatten(-1, (4, 4))
    expected = module.output(slow_attention(value, shapes, places, weights))
    torch.testing.assert_close(module(queries, references, tokens, shapes), expected, atol=1e-6, rtol=0)


def test_every_weight_of_the_module_learns():
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(16, heads=4, levels=2, points=3)
    module(torch.randn(2, 5, 16), torch.rand(5, 2), torch.randn(2, 13, 16), [(3, 3), (2, 2)]).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
