"""The pixel decoder and the encoding of places: shapes, loops, what mixes and what does not, every weight learns."""

import math

import pytest
import torch

from ovs_lite.models.pixel_decoder import PixelDecoder
from ovs_lite.models.positions import POSITIONS, PositionEncoding, cell_centres

CHANNELS = (8, 12, 16, 20)


def make(layers, seed=0):
    torch.manual_seed(seed)
    return PixelDecoder(CHANNELS, 16, PositionEncoding(16), layers, heads=2, points=2, feedforward=32)


def maps(height=64, width=96, images=2):
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    return [torch.randn(images, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("size", [(64, 96), (33, 50), (32, 32)])
def test_pixels_at_stride_4_and_three_coarser_levels(layers, size):
    given = maps(*size)
    found = make(layers)(given)
    assert found.pixels.shape == (2, 16, *given[0].shape[-2:])
    assert [level.shape for level in found.levels] == [(2, 16, *level.shape[-2:]) for level in given[:0:-1]]


@pytest.mark.parametrize("layers", [0, 1])
def test_an_image_alone_gives_what_it_gives_in_a_batch(layers):
    decoder, given = make(layers), maps()
    both, alone = decoder(given), decoder([level[1:] for level in given])
    torch.testing.assert_close(alone.pixels[0], both.pixels[1], atol=1e-5, rtol=1e-5)
    for one, two in zip(alone.levels, both.levels, strict=True):
        torch.testing.assert_close(one[0], two[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [0, 1])
def test_only_the_encoder_carries_fine_detail_into_the_coarse_levels(layers):
    decoder, given = make(layers), maps()
    before = decoder(given).levels[0]
    given[1] = given[1] + torch.randn_like(given[1])
    changed = (decoder(given).levels[0] - before).abs().max() > 1e-3
    assert bool(changed) == (layers > 0)


@pytest.mark.parametrize("layers", [0, 2])
def test_every_weight_learns(layers):
    decoder = make(layers)
    for block in decoder.blocks:  # these matrices start as zeros, through which positions learn nothing
        torch.nn.init.normal_(block.attention.offsets.weight)
        torch.nn.init.normal_(block.attention.weights.weight)
    found = decoder(maps())
    (found.pixels.square().sum() + sum(level.square().sum() for level in found.levels)).backward()
    still = [name for name, parameter in decoder.named_parameters() if not (parameter.grad.abs().max() > 0)]
    assert not still


def slow_sine(x, y, channels):
    """Waves number by number: y's half first, sine and cosine in turn, the fastest first."""
    waves = channels // 4
    found = []
    for place in (y, x):
        for wave in range(waves):
            angle = 2 * math.pi * place * 8 * (1 / 16) ** (wave / (waves - 1))
            found += [math.sin(angle), math.cos(angle)]
    return found


def test_sine_equals_the_loops():
    places, encoding = torch.rand(3, 5, 2), PositionEncoding(16)
    expected = [[slow_sine(x, y, 16) for x, y in row] for row in places.tolist()]
    torch.testing.assert_close(encoding(places), torch.tensor(expected), atol=1e-5, rtol=0)


def test_fourier_is_sine_and_cosine_of_directions_that_a_file_keeps():
    encoding, places = PositionEncoding(8, "fourier"), torch.rand(5, 2)
    angles = 2 * math.pi * (2 * places - 1) @ encoding.directions
    torch.testing.assert_close(encoding(places), torch.cat([angles.sin(), angles.cos()], 1), atol=1e-5, rtol=0)
    assert list(encoding.state_dict()) == ["directions"] and not PositionEncoding(8).state_dict()
    assert not list(encoding.parameters())


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_grid_holds_the_centres_of_its_cells(kind):
    torch.manual_seed(0)
    encoding = PositionEncoding(16, kind)
    centres = [((column + 0.5) / 3, (row + 0.5) / 2) for row in range(2) for column in range(3)]
    torch.testing.assert_close(cell_centres(2, 3), torch.tensor(centres))
    torch.testing.assert_close(encoding.grid(2, 3), encoding(torch.tensor(centres)))
    here, near, far = (encoding(torch.tensor(place)) for place in ([0.4, 0.6], [0.41, 0.6], [0.9, 0.1]))
    assert here @ near > here @ far
    half = encoding(torch.tensor(centres).half())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("given", [("waves", 16), ("sine", 6)])
def test_other_encodings_are_refused(given):
    with pytest.raises(ValueError, match="expected one of sine, fourier, and channels that 4 divides"):
        PositionEncoding(given[1], given[0])


def test_the_finest_map_knows_where_its_pixels_lie():
    decoder, given = make(0), [torch.ones_like(level) for level in maps(128, 128)]
    inner = decoder(given).pixels[0, :, 12:20, 12:20]  # beyond the reach of the padding
    assert (inner[:, 0] - inner[:, 4]).abs().max() > 0.1 and (inner[:, :, 0] - inner[:, :, 4]).abs().max() > 0.1
