"""Many classes' maps, enlarged and compared, against PyTorch's own functions on plain memory and against loops."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs_lite.inference import PartedScores, best_classes
from ovs_lite.regions.score_maps import FEW, as_planes, at_stride, best_of, enlarged, masks_at_stride


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("classes", [1, 3, 20])
@pytest.mark.parametrize("size", [(8, 12), (5, 31), (3, 4)])
def test_enlarged_as_by_pytorch(classes, size):
    maps = noise(2, classes, 3, 4)
    found = enlarged(maps, size)
    assert found.shape == (2, classes, *size)
    plain = F.interpolate(maps.double(), size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.double(), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize", [at_stride, masks_at_stride])
@pytest.mark.parametrize("classes", [1, FEW])
def test_values_of_cells_stay_where_their_pixels_are(resize, classes):
    """Cells that hold their own place, of an image of 37 x 50 that was padded to 64 x 64."""
    centres = 4 * (torch.arange(16) + 0.5)
    for places in (centres.expand(16, 16), centres[:, None].expand(16, 16)):
        found = resize(places.expand(2, classes, 16, 16), (37, 50))
        pixels = torch.arange(64) + 0.5
        expected = (pixels.expand(64, 64) if places.stride(1) else pixels[:, None].expand(64, 64))[2:37, 2:50]
        torch.testing.assert_close(found[..., 2:, 2:], expected.expand(2, classes, -1, -1))


@pytest.mark.parametrize("classes", [1, 2, FEW - 1, FEW, 30])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_few_classes_and_many_have_the_same_best_one(classes, layout):
    maps = noise(2, classes, 6, 7)
    maps[:, classes // 2] = maps[:, 0]  # of equals, the first
    maps = maps.contiguous(memory_format=layout)
    found = enlarged(maps, (15, 20))
    assert (found.stride(1) == 1) == (classes >= FEW)
    plain = F.interpolate(maps.double(), (15, 20), mode="bilinear", align_corners=False)
    best, labels = best_classes(maps, (15, 20))
    torch.testing.assert_close(best.double(), plain.amax(1), atol=1e-5, rtol=0)
    assert torch.equal(labels.long(), plain.max(1).indices)


def test_gradients_pass():
    maps = noise(1, 5, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: enlarged(given, (6, 7)), maps)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_best_of_equals_a_loop(layout, dtype):
    maps = noise(2, 7, 5, 6, dtype=dtype)
    maps[:, 4] = maps[:, 2]  # of equals, the first
    maps = maps.contiguous(memory_format=layout)[..., 1:5]  # cut, as padding is
    best, places = best_of(maps)
    for b, y, x in itertools.product(range(2), range(5), range(4)):
        scores = maps[b, :, y, x].tolist()
        assert (int(places[b, y, x]), float(best[b, y, x])) == (scores.index(max(scores)), max(scores))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nan_wins(layout):
    maps = noise(1, 6, 2, 2)
    maps[0, 3, 0, 1] = torch.nan
    best, places = best_of(maps.contiguous(memory_format=layout))
    assert best.isnan().tolist() == [[[False, True], [False, False]]] and int(places[0, 0, 1]) == 3


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("cut", [slice(None), slice(1, 5)])
def test_planes_are_the_same_in_one_piece_each(batch, cut):
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = noise(batch, 7, 64, 66).contiguous(memory_format=layout)[..., cut]
        found = as_planes(maps)
        assert torch.equal(found, maps) and found.is_contiguous()


class Asked:
    """Features that remember which texts were scored. Scores of a class: its number, everywhere."""

    def __init__(self):
        self.numbers = []

    def scores(self, text):
        self.numbers += text[:, 0].tolist()
        return text[:, 0].view(1, -1, 1, 1).expand(2, -1, 3, 4)


def test_classes_that_compete_in_no_image_are_not_scored():
    features, text = Asked(), torch.arange(50.0)[:, None]
    present = np.zeros((2, 50), bool)
    present[0, [3, 30]], present[1, [30, 7]] = True, True
    best, labels = best_classes(PartedScores(features, text, 2, {}), (3, 4), present)
    assert features.numbers == [3, 7, 30]
    assert (best == 30).all() and (labels == 30).all()
    _, labels = best_classes(PartedScores(features, text, 2, {}), (3, 4), present & (np.arange(50) < 30))
    assert (labels[0] == 3).all() and (labels[1] == 7).all()


def test_no_class_competes():
    best, labels = best_classes(noise(2, 5, 3, 4), (3, 4), np.zeros((2, 5), bool))
    assert (best == -torch.inf).all() and labels.shape == (2, 3, 4)
