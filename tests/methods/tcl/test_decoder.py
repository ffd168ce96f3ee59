"""TCL's grounding decoder: absent at first, one gated convolution by loops, and which weights can learn when."""

import copy
import math

import pytest
import torch

from kit.clips import shaken
from kit.images import randn
from ovs_lite.methods.tcl.decoder import GatedConv, GroundingDecoder


def slow_gated_conv(module, x):
    """Pixel by pixel over Python floats: norm over channels, GELU by erf, 3 x 3 sum with zeros outside, gate, sum."""
    (_, channels, height, width), values = x.shape, x[0].tolist()
    scale, shift = module.norm.weight.tolist(), module.norm.bias.tolist()
    kernel, bias, gate = module.conv.weight.tolist(), module.conv.bias.tolist(), math.tanh(module.gate.item())

    def activated(y, x):
        pixel = [values[c][y][x] for c in range(channels)]
        mean = sum(pixel) / channels
        deviation = math.sqrt(sum((value - mean) ** 2 for value in pixel) / channels + 1e-5)
        normed = [(value - mean) / deviation * a + b for value, a, b in zip(pixel, scale, shift, strict=True)]
        return [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in normed]

    hidden = {(y, x): activated(y, x) for y in range(height) for x in range(width)}
    result = torch.empty(1, channels, height, width, dtype=torch.float64)
    for (y, x), out in ((place, out) for place in hidden for out in range(channels)):
        total = bias[out]
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                seen = hidden.get((y + i, x + j), [0.0] * channels)
                total += sum(kernel[out][c][i + 1][j + 1] * seen[c] for c in range(channels))
        result[0, out, y, x] = values[out][y][x] + gate * total
    return result


@torch.no_grad()
def test_untrained_it_is_nearest_neighbour_enlarging_exactly():
    torch.manual_seed(0)
    x = randn(2, 6, 3, 5)
    expected = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(GroundingDecoder(6)(x), expected)
    assert torch.equal(GroundingDecoder(6, stages=1)(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("gate", [0.7, -1.3])
@torch.no_grad()
def test_a_gated_convolution_equals_loops_over_floats(gate):
    module, x = shaken(GatedConv(4).double(), 0.2, gate), 3 * randn(1, 4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), slow_gated_conv(module, x), rtol=1e-12, atol=1e-12)
    assert (module(x) - x).abs().min() > 1e-4


@torch.no_grad()
def test_a_pixel_of_one_value_is_normed_with_its_epsilon():
    module = shaken(GatedConv(4).double(), 0.2)
    x = 1e-3 * randn(1, 4, 2, 2, dtype=torch.float64)
    x[..., 0, 0] = 0.25
    torch.testing.assert_close(module(x), slow_gated_conv(module, x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_two_stages_of_enlarging_and_two_convolutions():
    module, x = shaken(GroundingDecoder(3).double(), 0.2), randn(1, 3, 2, 3, dtype=torch.float64)
    expected = x
    for stage in module.stages:
        expected = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
        convolutions = [part for part in stage if isinstance(part, GatedConv)]
        assert len(convolutions) == 2
        for convolution in convolutions:
            expected = slow_gated_conv(convolution, expected)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (5, 3), (14, 14)])
@torch.no_grad()
def test_shapes_of_odd_grids_and_pictures_alone(height, width):
    module, x = shaken(GroundingDecoder(8), 0.2), randn(3, 8, height, width)
    found = module(x)
    assert found.shape == (3, 8, 4 * height, 4 * width)
    torch.testing.assert_close(torch.cat([module(one[None]) for one in x]), found, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_layout_in_memory_changes_nothing():
    module, x = shaken(GroundingDecoder(8), 0.2), randn(2, 8, 3, 4)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x))
    contiguous = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(contiguous(x), module(x))


def test_four_scalar_gates_that_start_at_zero():
    gates = [value for name, value in GroundingDecoder(4).named_parameters() if name.endswith("gate")]
    assert len(gates) == 4 and all(gate.shape == () and gate.item() == 0 for gate in gates)
    assert len(list(GroundingDecoder(4).parameters())) == 4 * 5, "norm and convolution have weight and bias each"


def gradients(module):
    module.zero_grad()
    value = module(randn(2, 4, 2, 3))
    (value * randn(*value.shape, seed=3)).sum().backward()
    return {name: value.grad.abs().sum().item() for name, value in module.named_parameters()}


def test_at_the_start_only_the_gates_learn_and_the_rest_once_they_moved():
    torch.manual_seed(0)
    module = GroundingDecoder(4)
    found = gradients(module)
    assert all((size > 0) == name.endswith("gate") for name, size in found.items())
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimiser.step()
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.endswith("gate")}
    assert all(size > 0 for size in gradients(module).values())


def test_the_gradient_is_that_of_the_function():
    module = shaken(GroundingDecoder(2, stages=1).double(), 0.2)
    x = randn(1, 2, 2, 3, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def value(x, *weights):
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), x)

    weights = [value.detach().clone().requires_grad_() for value in module.parameters()]
    assert torch.autograd.gradcheck(value, (x, *weights))
