"""Region classifiers: each region alone, what soft masks mean to each, and the oracle's two ways to vote."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip, random_texts
from kit.images import random_masks
from ovs_lite.regions.classifiers import (
    CLIP_CLASSIFIERS,
    blank_fraction,
    class_counts,
    majority_vote,
    oracle_probs,
    pooled_features,
    region_scores,
)
from ovs_lite.regions.fusion import label_map


@pytest.fixture(scope="module")
def clip():
    return random_clip()


@pytest.fixture(scope="module")
def text(clip):
    return random_texts(4, clip.embed_dim)


def soft(masks, seed=0):
    """Soft masks that exceed 0.5 just in `masks`."""
    noise = torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(masks, 0.501 + 0.499 * noise, 0.5 * noise)


def slow_counts(target, masks, classes):
    rows = [[int(sum(target[y, x] == k for y, x in np.argwhere(mask > 0.5))) for k in range(classes)] for mask in masks]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, classes)


def test_the_oracle_takes_the_majority_and_counts_no_void():
    target = np.array([[0, 0, 1, 255], [1, 1, 1, 255]])
    masks = torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0]], [[0, 1, 1, 0], [0, 1, 1, 0]], [[0, 0, 0, 1], [0, 0, 0, 1]]]) > 0
    counts = class_counts(target, masks, 2)
    assert counts.tolist() == [[2, 1], [1, 3], [0, 0]]
    torch.testing.assert_close(oracle_probs(counts), torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    torch.testing.assert_close(oracle_probs(counts, by_purity=True), torch.tensor([[2 / 3, 0], [0, 0.75], [0, 0]]))
    assert label_map(masks, oracle_probs(counts)).tolist() == [[0, 0, 0, 0], [-1, 1, 1, -1]], "ties: the lower class id"
    assert label_map(masks, oracle_probs(counts, True)).tolist() == [[0, 1, 1, 0], [-1, 1, 1, -1]], "the purer one wins"


@pytest.mark.parametrize("seed", range(4))
def test_the_vote_of_a_map_equals_a_loop_over_pixels(seed):
    draw, masks = np.random.default_rng(seed), random_masks(5, 20, 24, smallest=8)
    labels = draw.choice([-1, 0, 1, 2], (20, 24), p=[0.4, 0.2, 0.2, 0.2])
    found = majority_vote(labels, soft(masks), 3)
    for mask, row in zip(masks.numpy(), found.tolist(), strict=True):
        votes = [0, 0, 0]
        for y, x in np.argwhere(mask):
            if labels[y, x] >= 0:
                votes[labels[y, x]] += 1
        assert row == [float(k == votes.index(max(votes))) for k in range(3)]
    assert torch.equal(majority_vote(labels[:, ::-1], masks.flip(2), 3), found), "it does not matter where a region is"


def test_a_region_without_a_voter_has_no_class():
    masks = torch.tensor([[[1, 1, 0]], [[0, 0, 1]], [[0, 0, 0]]]) > 0
    found = majority_vote(np.array([[1, -1, -1]]), masks, 2)
    assert found.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert label_map(masks, found).tolist() == [[1, 1, -1]]
    assert majority_vote(np.array([[1, 0, 0]]), masks[:0], 2).shape == (0, 2)


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_a_loop_over_pixels_and_the_two_oracles_agree_on_the_class(seed):
    draw, masks = np.random.default_rng(seed), random_masks(5, 20, 24, smallest=8)
    target = draw.choice([-1, 0, 1, 2, 255], (20, 24))
    counts = class_counts(target, masks, 3)
    assert torch.equal(counts, slow_counts(target, masks.numpy(), 3)) and counts.dtype == torch.int64
    assert torch.equal(class_counts(target, soft(masks), 3), counts)
    plain, pure = oracle_probs(counts), oracle_probs(counts, by_purity=True)
    assert torch.equal(plain.argmax(1), pure.argmax(1)) and torch.equal(plain, (pure > 0).float())
    torch.testing.assert_close(pure.sum(1), counts.max(1).values / counts.sum(1))
    assert class_counts(target, masks[:0], 3).shape == oracle_probs(counts[:0]).shape == (0, 3)


def test_where_no_regions_overlap_both_oracles_give_the_same_map():
    target = np.random.default_rng(0).integers(0, 3, (8, 12))
    masks = torch.arange(96).reshape(8, 12) // 13 == torch.arange(8)[:, None, None]
    counts = class_counts(target, masks, 3)
    assert torch.equal(label_map(masks, oracle_probs(counts)), label_map(masks, oracle_probs(counts, by_purity=True)))


@pytest.mark.parametrize("classifier", ["masked crops", "unmasked crops"])
@torch.no_grad()
def test_crops_take_a_soft_mask_where_it_exceeds_one_half(classifier, clip, text):
    image, masks = torch.randn(3, 48, 72, generator=torch.Generator().manual_seed(2)), random_masks(6, smallest=8)
    hard = region_scores(classifier, clip, image, masks, text)
    assert torch.equal(region_scores(classifier, clip, image, soft(masks), text), hard)
    nowhere = region_scores(classifier, clip, image, 0.5 * masks.float(), text)
    assert torch.isfinite(nowhere).all() and nowhere.shape == (6, 4)


@torch.no_grad()
def test_pooling_weights_every_pixel_by_its_soft_mask(clip):
    """At the pooling's own size a patch is an 8 x 8 block of pixels, so the mean can be taken by a loop."""
    image = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(5))
    masks, dense = soft(random_masks(3, 128, 128, smallest=8)), clip.dense(image[None])[0]
    side = 128 // dense.shape[1]
    for mask, found in zip(masks, pooled_features(clip, image, masks), strict=True):
        total = torch.zeros(clip.embed_dim)
        for y in range(dense.shape[1]):
            for x in range(dense.shape[2]):
                total += mask[side * y : side * (y + 1), side * x : side * (x + 1)].mean() * dense[:, y, x]
        torch.testing.assert_close(found, total / total.norm(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pooled_features(clip, image, masks), pooled_features(clip, image, 0.01 * masks))
    hard = masks > 0.5
    torch.testing.assert_close(pooled_features(clip, image, hard), pooled_features(clip, image, hard.float()))
    assert not pooled_features(clip, image, 0 * masks).any()


@pytest.mark.parametrize("classifier", CLIP_CLASSIFIERS)
@torch.no_grad()
def test_region_scores_are_cosines_of_each_region_alone(classifier, clip, text, monkeypatch):
    image, masks = torch.randn(3, 48, 72, generator=torch.Generator().manual_seed(2)), random_masks(6, smallest=8)
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
    image, mask = torch.randn(3, 48, 72, generator=generator), random_masks(6, smallest=8)[:1]
    outside = torch.where(mask, image, torch.randn(3, 48, 72, generator=generator))
    masked = [region_scores("masked crops", clip, picture, mask, text) for picture in (image, outside)]
    unmasked = [region_scores("unmasked crops", clip, picture, mask, text) for picture in (image, outside)]
    torch.testing.assert_close(*masked, atol=1e-5, rtol=1e-4)
    assert (unmasked[0] - unmasked[1]).abs().max() > 1e-4
    full = torch.ones(1, 48, 72, dtype=torch.bool)
    both = [region_scores(name, clip, image, full, text) for name in ("masked crops", "unmasked crops")]
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pooling_the_whole_image_is_the_mean_of_the_dense_features(clip):
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


def test_probabilities_use_clips_own_temperature_up_to_a_factor_of_100(clip):
    cosines = torch.tensor([[0.3, 0.1, -0.2], [0.0, 0.02, 0.01]])
    stored = clip.logit_scale.data.clone()
    for logarithm, factor in ((0.0, 1.0), (np.log(14.3), 14.3), (np.log(250.0), 100.0)):
        clip.logit_scale.data.fill_(logarithm)
        powers = [[np.exp(factor * float(cosine)) for cosine in row] for row in cosines]
        expected = torch.tensor([[power / sum(row) for power in row] for row in powers], dtype=torch.float32)
        torch.testing.assert_close(clip.probabilities(cosines).detach(), expected, atol=1e-6, rtol=1e-4)
    clip.logit_scale.data.copy_(stored)
    assert clip.probabilities(cosines[:0]).shape == (0, 3)
