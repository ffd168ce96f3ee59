"""The mask-source x classifier grid: fusion against a loop, oracle against the truth, records with holes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite.clip import load_clip
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.grid import CLASSIFIERS, SOURCES, evaluate_grid, label_map, truth_masks
from ovs_lite.regions.classifiers import (
    CLIP_CLASSIFIERS,
    blank_fraction,
    class_counts,
    oracle_probs,
    pooled_features,
    region_scores,
)

NAMES = ("cat", "grass", "sky", "boat")


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return load_clip("ViT-Lite-8", pretrained=None)


@pytest.fixture(autouse=True)
def own_text_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def text(clip):
    return F.normalize(torch.randn(4, clip.embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)


def vocabulary() -> Vocabulary:
    count = len(NAMES)
    return Vocabulary("toy", "test", 255, None, NAMES, ((),) * count, (True,) * count, (None,) * count, (None,) * count)


def record(number: int = 0) -> dict:
    """Grass below, sky above, a cat in the middle, an unlabelled post and a void stripe."""
    segments = np.ones((64, 80), np.int32)
    segments[:30] = 2
    segments[20:50, 30:60] = 3
    segments[:, :4] = 4
    segments[60:] = 0
    image = np.random.default_rng(number).integers(0, 60, (64, 80, 3)).astype(np.uint8)
    image += np.array([(0, 0, 0), (20, 180, 40), (90, 140, 190), (190, 90, 10), (10, 10, 10)], np.uint8)[segments]
    category = {1: 1, 2: 2, 3: 0, 4: -1}
    infos = [describe_segment(segments == i, i, category[i], i == 3, False) for i in (1, 2, 3, 4)]
    return {
        "image_id": f"r{number}", "image": Image.fromarray(image),
        "segments": segments, "segments_info": infos, "captions": [],
    }  # fmt: skip


def random_masks(count: int = 6, height: int = 48, width: int = 72) -> torch.Tensor:
    rng = np.random.default_rng(3)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 12)
        mask[y : y + rng.integers(8, 30), x : x + rng.integers(8, 30)] = True
        mask &= rng.random((height, width)) < 0.8
    return torch.from_numpy(masks)


def test_label_map_equals_a_loop_over_pixels():
    masks = random_masks(5, 14, 15)
    probs = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    probs[2] = 0
    expected = torch.full((14, 15), -1)
    for y in range(14):
        for x in range(15):
            sums = [sum(float(probs[n, k]) for n in range(5) if masks[n, y, x]) for k in range(3)]
            if max(sums) > 0:
                expected[y, x] = int(np.argmax(sums))
    assert (label_map(masks, probs) == expected).all() and (expected == -1).any()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert (label_map(masks[order], probs[order]) == expected).all()
    assert (label_map(masks[:0], probs[:0]) == -1).all()


def test_chunks_of_pixels_change_nothing(monkeypatch):
    masks, probs = random_masks(), torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    whole = label_map(masks, probs)
    monkeypatch.setattr("ovs_lite.evaluation.grid.PIXELS_AT_ONCE", 1000)
    assert (label_map(masks, probs) == whole).all()


def test_the_oracle_takes_the_majority_and_counts_no_void():
    target = np.array([[0, 0, 1, 255], [1, 1, 1, 255]])
    masks = torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0]], [[0, 1, 1, 0], [0, 1, 1, 0]], [[0, 0, 0, 1], [0, 0, 0, 1]]]) > 0
    counts = class_counts(target, masks, 2)
    assert counts.tolist() == [[2, 1], [1, 3], [0, 0]]
    torch.testing.assert_close(oracle_probs(counts), torch.tensor([[2 / 3, 0], [0, 0.75], [0, 0]]))
    assert label_map(masks, oracle_probs(counts)).tolist() == [[0, 1, 1, 0], [-1, 1, 1, -1]]


@pytest.mark.parametrize("classifier", CLIP_CLASSIFIERS)
@torch.no_grad()
def test_region_scores_are_cosines_of_each_region_alone(classifier, clip, text, monkeypatch):
    image, masks = torch.randn(3, 48, 72, generator=torch.Generator().manual_seed(2)), random_masks()
    scores = region_scores(classifier, clip, image, masks, text)
    assert scores.shape == (6, 4) and scores.abs().max() <= 1 + 1e-5
    alone = torch.cat([region_scores(classifier, clip, image, mask[None], text) for mask in masks])
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr("ovs_lite.regions.classifiers.CROPS_AT_ONCE", 4)
    torch.testing.assert_close(region_scores(classifier, clip, image, masks, text), scores, atol=1e-5, rtol=1e-4)
    assert region_scores(classifier, clip, image, masks[:0], text).shape == (0, 4)


@torch.no_grad()
def test_masking_blanks_the_background_and_only_that(clip, text):
    generator = torch.Generator().manual_seed(4)
    image, mask = torch.randn(3, 48, 72, generator=generator), random_masks()[:1]
    outside = torch.where(mask, image, torch.randn(3, 48, 72, generator=generator))
    masked = [region_scores("masked crops", clip, picture, mask, text) for picture in (image, outside)]
    unmasked = [region_scores("unmasked crops", clip, picture, mask, text) for picture in (image, outside)]
    torch.testing.assert_close(*masked, atol=1e-5, rtol=1e-4)
    assert (unmasked[0] - unmasked[1]).abs().max() > 1e-4
    full = torch.ones(1, 48, 72, dtype=torch.bool)
    both = [region_scores(name, clip, image, full, text) for name in ("masked crops", "unmasked crops")]
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pooling_the_whole_picture_is_the_mean_of_the_dense_features(clip):
    image = torch.randn(3, 128, 192, generator=torch.Generator().manual_seed(5))
    mean = F.normalize(clip.dense(image[None])[0].mean((1, 2)), dim=0)
    torch.testing.assert_close(pooled_features(clip, image, torch.ones(1, 128, 192) > 0)[0], mean, atol=1e-5, rtol=1e-4)
    for height, width in ((1, 1), (3, 500)):
        tiny = pooled_features(clip, torch.ones(3, height, width), torch.ones(1, height, width) > 0)
        assert torch.isfinite(tiny).all() and tiny.norm() == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_blank_fraction_counts_patches_without_a_pixel_of_the_region(clip):
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0] = True
    masks[1, :32], masks[1, 63, 63], masks[1, 32:, :8] = True, True, True  # an L: half, a column, and a far corner
    masks[2, 0, 0] = masks[2, 63, 63] = True
    blank = blank_fraction(clip, torch.zeros(3, 64, 64), masks)
    assert blank[0] == 0 and blank[2] == pytest.approx(1 - 2 / 64, abs=2 / 64)
    assert blank[1] == pytest.approx((32 - 5) / 64, abs=5 / 64)


def test_the_grid_on_records_with_void_and_unlabelled_segments(clip):
    grid = evaluate_grid([record(0), record(1)], clip, vocabulary())
    assert set(grid.table) == set(SOURCES) and all(set(row) == set(CLASSIFIERS) for row in grid.table.values())
    assert grid.table["ground truth"]["oracle"] == 1.0 and grid.images == 2
    assert grid.table["grid"]["oracle"] < grid.table["classical proposals"]["oracle"] <= 1
    assert all(matrix.ignored == 2 * (4 * 80 + 60 * 4) for matrix in grid.matrices.values())
    truth = [row for row in grid.regions if row["source"] == "ground truth"]
    assert len(truth) == 2 * 3 * 3 and {row["classifier"] for row in truth} == set(CLIP_CLASSIFIERS)
    for row in grid.regions:
        assert row["correct"] == (row["predicted"] == row["target"]) and 0 <= row["blank"] < 1
        assert 0 < row["purity"] <= 1 and -1 <= row["similarity"] <= 1 and 0 <= row["target"] < 4
    assert all(row["purity"] == 1 for row in truth)


def test_truth_masks_leave_out_void_and_unlabelled():
    masks, ids = truth_masks(record()), record()["segments"]
    assert masks.shape == (3, 64, 80) and (masks.any(0) == np.isin(ids, (1, 2, 3))).all()


def test_a_source_without_masks_finds_nothing_and_one_of_the_wrong_size_is_refused(clip):
    nothing = {"nothing": lambda r: np.zeros((0, 64, 80), bool), "empty": lambda r: np.zeros((2, 64, 80), bool)}
    grid = evaluate_grid([record()], clip, vocabulary(), nothing)
    assert all(value == 0 for row in grid.table.values() for value in row.values()) and grid.regions == []
    with pytest.raises(ValueError, match="'small'"):
        evaluate_grid([record()], clip, vocabulary(), {"small": lambda r: np.ones((1, 4, 4), bool)})
    with pytest.raises(ValueError, match="guess"):
        evaluate_grid([record()], clip, vocabulary(), classifiers=["guess"])
    with pytest.raises(ValueError, match="'r0' has no segments"):
        evaluate_grid([{**record(), "segments": None, "segments_info": None}], clip, vocabulary())
