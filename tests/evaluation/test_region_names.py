"""Names of ground-truth regions by any embedding, and how alike regions of different classes are, against loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.records import scene, toy, without_annotation
from ovs_lite.evaluation.metrics.intervals import ratio_interval
from ovs_lite.evaluation.region_names import name_regions

RECORDS = [toy(f"p{n}", scene(40 + 2 * n, 50), {1: n % 3, 2: (n + 1) % 3, 3: 2}) for n in range(9)]
TEXT = 5 * torch.eye(3) + 0.5  # not of length 1


def mean_colours(image, masks):
    """The mean colour of each region."""
    weights = masks[0].flatten(1).float()
    return (weights @ image[0].flatten(1).T / weights.sum(1, keepdim=True))[None]


def test_shares_and_cosines_are_those_of_one_region_at_a_time():
    report = name_regions(mean_colours, RECORDS, TEXT)
    right, rows = [], []
    for record in RECORDS:
        right.append(0)
        for info in record["segments_info"]:
            z = F.normalize(torch.from_numpy(record["image"][record["segments"] == info["id"]]).float().mean(0), dim=0)
            right[-1] += int((F.normalize(TEXT, dim=1) @ z).argmax()) == info["category_id"]
            rows.append((z, info["category_id"]))
    assert report.right.tolist() == right and report.regions.tolist() == [3] * 9 and 0 < sum(right) < 27
    cosines = [float(a @ b) for a, first in rows for b, second in rows if first != second]
    assert report.apart == pytest.approx(np.mean(cosines), abs=1e-5)
    with_itself = np.mean([float(a @ b) for a, _ in rows for b, _ in rows])
    assert report.apart < with_itself - 0.04, "a region and itself, and two of one class, are left out"
    assert report.accuracy() == ratio_interval(right, [3] * 9)


def test_a_collapse_is_seen():
    report = name_regions(lambda image, masks: torch.ones(1, masks.shape[1], 3), RECORDS, TEXT)
    assert report.apart == pytest.approx(1)
    same = [toy("a", scene(), dict.fromkeys((1, 2, 3), 1))]
    assert np.isnan(name_regions(mean_colours, same, TEXT).apart), "nothing to compare"


def test_a_difference_is_paired():
    named, other = (name_regions(one, RECORDS, TEXT) for one in (mean_colours, lambda x, m: 1 - mean_colours(x, m)))
    found = named.difference(other)
    assert found == ratio_interval(named.right - other.right, [3] * 9) and found.value != 0
    with pytest.raises(ValueError, match="got 6 regions in 2 images, expected the same 27 in 9"):
        named.difference(name_regions(mean_colours, RECORDS[:2], TEXT))


def test_images_without_a_labelled_segment_are_not_asked_about():
    report = name_regions(mean_colours, [without_annotation(), *RECORDS[:2]], TEXT)
    assert report.regions.tolist() == [0, 3, 3] and report.right[0] == 0
    with pytest.raises(ValueError, match="got 1 records without a labelled segment"):
        name_regions(mean_colours, [toy("a", scene(), dict.fromkeys((1, 2, 3), -1))], TEXT)
    with pytest.raises(ValueError, match="record 'bare' has masks without labels"):
        name_regions(mean_colours, [without_annotation(masks=[np.ones((8, 8), bool)])], TEXT)
