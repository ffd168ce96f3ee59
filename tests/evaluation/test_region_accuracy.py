"""Accuracy of naming ground-truth regions: against one region and one size at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from kit.images import noise
from kit.records import make_record, scene, toy, without_annotation
from kit.vocabularies import FOUR
from ovs_lite.evaluation.region_accuracy import region_accuracy
from ovs_lite.regions.classifiers import pooled_features

SIZES = (32, 64, 96)


@pytest.fixture(scope="module")
def clip():
    return random_clip()


def records(count=12):
    found = []
    for n in range(count):
        truth = toy(f"p{n}", scene(64, 80), {1: n % 4, 2: (n + 1) % 4, 3: (n + 2) % 4}, crowds=(3,) if n == 2 else ())
        truth["segments_info"][1]["category_id"] = -1 if n == 3 else truth["segments_info"][1]["category_id"]
        found.append(make_record(f"p{n}", noise(64, 80, n), truth["segments"], truth["segments_info"]))
    return found


@pytest.fixture(scope="module")
def report(clip):
    return region_accuracy(clip, records(), FOUR, SIZES, [(32, 96), SIZES])


def test_every_row_equals_one_region_at_a_time(clip, report):
    text = clip.text_embeddings(list(FOUR.names))
    right = {row: 0 for row in report.right}
    for record in records():
        image = clip.normalise(torch.from_numpy(record["image"]).permute(2, 0, 1) / 255)
        for info in record["segments_info"]:
            if info["is_crowd"] or info["category_id"] < 0:
                continue
            mask = torch.from_numpy(record["segments"] == info["id"])
            cosine = {size: (pooled_features(clip, image, mask[None], size) @ text.T)[0] for size in SIZES}
            for row in right:
                right[row] += int(sum(cosine[size] for size in row).argmax()) == info["category_id"]
    assert {row: int(found.sum()) for row, found in report.right.items()} == right
    assert list(right) == [(32,), (64,), (96,), (32, 96), SIZES] and report.regions.sum() == 34
    assert len(set(right.values())) > 1
    for row, count in right.items():
        assert report.accuracy(row).value == pytest.approx(count / 34) and report.accuracy(row).images == 12
    gain = report.difference(SIZES, 32)
    assert gain.value == pytest.approx((right[SIZES] - right[(32,)]) / 34) and gain.low <= gain.value <= gain.high


def test_the_table_names_sizes_and_an_ensemble_takes_the_time_of_its_sizes(report):
    table = report.table()
    assert list(table) == ["32", "64", "96", "32, 96", "32, 64, 96"]
    assert table["32, 96"]["seconds"] == pytest.approx(table["32"]["seconds"] + table["96"]["seconds"])
    assert table["64"] == {"accuracy": report.accuracy(64).value, "seconds": report.seconds[(64,)]}
    assert all(row["seconds"] > 0 for row in table.values())


def test_a_size_is_the_short_side_in_pixels(clip):
    image = clip.normalise(torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)))
    masks = torch.ones(1, 40, 60)
    resized = F.interpolate(image[None], (64, 96), mode="bicubic", antialias=True, align_corners=False)
    expected = F.normalize(clip.dense(resized).mean((2, 3)), dim=1)
    torch.testing.assert_close(pooled_features(clip, image, masks, 64), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(pooled_features(clip, image, masks), pooled_features(clip, image, masks, 2 * clip.image_size))


def test_one_size_has_one_row_and_images_without_regions_count_for_nothing(clip):
    empty = make_record("e", noise(20, 20), np.zeros((20, 20), int), [])
    report = region_accuracy(clip, [*records(2), empty], FOUR, [32])
    assert list(report.right) == [(32,)] and report.regions.tolist() == [3, 3, 0]
    assert report.accuracy(32).value == report.right[(32,)].sum() / 6


def test_what_does_not_fit_is_an_error(clip, report):
    for sizes, ensembles in (([], None), ([0], None), ([32, 32], None), ([32], [(64,)]), ([32], [()])):
        with pytest.raises(ValueError, match="expected different sizes and ensembles of them"):
            region_accuracy(clip, records(1), FOUR, sizes, ensembles)
    with pytest.raises(ValueError, match="got 1 records of 'toy' without a labelled segment"):
        region_accuracy(clip, [without_annotation()], FOUR, [32])
    with pytest.raises(ValueError, match=r"got sizes \(48,\), expected one of \(32,\)"):
        report.accuracy(48)
