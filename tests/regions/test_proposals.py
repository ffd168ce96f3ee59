"""The mask proposer: both recipes behind one call, what is refused, and the order of proposals against slow loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.images import noise
from kit.oracles.masks import pixels
from kit.proposers import KINDS, TINY, make_proposer, texts
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.proposer import ProposalConfig
from ovs_lite.models.backbone import Backbone
from ovs_lite.regions.ranking import agreement, nms_order

SIZES = [(64, 64), (40, 56), (33, 64), (5, 3), (1, 1)]


def canned(masks, objectness=None):
    """A proposer that always gives these masks, resized to what it sees, and a list of what it was shown.

    With objectness it is a MaskFormer, which ranks by that; without, an OpenSeg, which ranks by agreement.
    """
    proposer, shown = make_proposer("openseg-proposals" if objectness is None else "maskformer"), []

    def forward(images):
        shown.append(images)
        sized = F.interpolate(masks[None], images.shape[-2:])
        return sized, None if objectness is None else objectness[None]

    proposer.forward = forward
    return proposer, shown


def guesses(count, seed=0, height=12, width=10):
    """Soft masks around few different boxes, so that many are duplicates."""
    generator = torch.Generator().manual_seed(seed)
    masks = 0.5 * torch.rand(count, height, width, generator=generator)
    for mask in masks:
        place = int(torch.randint(4, (1,), generator=generator))
        mask[place : place + 7, 2 * (place % 2) : 8] += 0.45
    return masks


def slow_nms_order(masks, overlap=0.7):
    kept, duplicates = [], []
    for index, mask in enumerate(map(pixels, masks)):
        others = [pixels(masks[better]) for better in kept]
        alike = any(mask | other and len(mask & other) / len(mask | other) > overlap for other in others)
        if mask:
            (duplicates if alike else kept).append(index)
    return kept + duplicates + [index for index, mask in enumerate(masks) if not pixels(mask)]


def slow_agreement(masks):
    areas, found = [pixels(mask) for mask in masks], []
    for area in areas:
        overlaps = [len(area & other) / len(area | other) if area | other else 0.0 for other in areas]
        found.append(sum(overlap for overlap in overlaps if overlap > 0.7))
    return found


def slow_order(masks, objectness=None, objects_only=False):
    scores = []
    shares = slow_agreement(masks) if objectness is None else objectness.tolist()
    for mask, share in zip(masks.tolist(), shares, strict=True):
        sure = [value for row in mask for value in row if value > 0.5]
        scores.append(share * sum(sure) / max(1, len(sure)))
    order = sorted(range(len(masks)), key=lambda index: -scores[index])
    order = [index for index in order if not objects_only or objectness[index] > 0.5]
    return [order[place] for place in slow_nms_order([masks[index] for index in order])]


@torch.no_grad()
@pytest.mark.parametrize("recipe", KINDS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_masks_have_the_images_size_and_all_values_are_shares(recipe, height, width):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    masks, objectness = make_proposer(recipe)(images)
    assert masks.shape == (2, 6, height, width) and masks.dtype == torch.float32
    assert 0 <= masks.min() and masks.max() <= 1
    assert (objectness is None) == (recipe == "openseg-proposals"), "OpenSeg's proposals have none"
    if objectness is not None:
        assert objectness.shape == (2, 6) and objectness.dtype == torch.float32
        assert 0 <= objectness.min() and objectness.max() <= 1 and (objectness < 1).any()


@torch.no_grad()
@pytest.mark.parametrize("recipe", KINDS)
def test_masks_are_resized_before_the_sigmoid_and_objectness_is_what_no_object_leaves(recipe):
    proposer, images = make_proposer(recipe), torch.rand(1, 3, 36, 50, generator=torch.Generator().manual_seed(2))
    centred = (images - proposer.mean) / proposer.std
    answer = proposer.network(centred)
    logits = answer if recipe == "openseg-proposals" else answer[-1].mask_logits
    enlarged = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)[..., :36, :50]  # padded to 32
    masks, objectness = proposer(images)
    torch.testing.assert_close(masks, 1 / (1 + torch.exp(-enlarged)))
    if recipe == "maskformer":
        for embedding, found in zip(answer[-1].embeddings[0], objectness[0], strict=True):
            others = [*texts(), F.normalize(proposer.network.no_object, dim=0)]
            powers = [math.exp(100 * float(embedding @ other)) for other in others]
            assert float(found) == pytest.approx(1 - powers[-1] / sum(powers), abs=1e-3)


def test_images_are_normalised_as_the_backbone_was_trained():
    proposer = make_proposer("openseg-proposals")
    backbone = Backbone(TINY["backbone"])
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (backbone.mean, backbone.std))
    torch.testing.assert_close(proposer.normalise(mean.expand(2, -1, 4, 4)), torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(proposer.normalise(mean + std), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("classes", [torch.zeros(0, 12), torch.zeros(12), torch.zeros(1, 5, 12)])
def test_maskformer_needs_classes(classes):
    with pytest.raises(ValueError, match=r"got class embeddings \(.*\), expected \(K, D\) with at least one class"):
        MaskFormerProposer(MaskFormerConfig(**TINY), classes)


@pytest.mark.parametrize("settings", [ProposalConfig, MaskFormerConfig])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"queries": 0}, "got queries=0, expected 1 or more"),
        ({"batch": 0}, "got batch=0, expected 1 or more"),
        ({"channels": 4, "heads": 1}, "got channels=4, expected 8 or more"),
        ({"channels": 20, "heads": 4}, "channels that 8 and the number of heads divide"),
        ({"channels": 16, "heads": 3}, "channels that 8 and the number of heads divide"),
    ],
)
def test_impossible_sizes_are_refused(settings, changes, expected):
    with pytest.raises(ValueError, match=expected):
        settings(**TINY | changes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objects_only", [False, True])
def test_proposals_come_best_first_and_duplicates_after_all_others(seed, objects_only):
    masks, objectness = guesses(14, seed), torch.rand(14, generator=torch.Generator().manual_seed(seed + 50))
    order = slow_order(masks, objectness, objects_only)
    assert len(order) < 14 if objects_only else sorted(order) == list(range(14)) != order
    proposer, _ = canned(masks, objectness)
    for budget in (None, 100, 3, 1, 0):
        found = proposer.propose(noise(12, 10), budget, objects_only)
        torch.testing.assert_close(found, masks[order[:budget]].view(-1, 12, 10))


@pytest.mark.parametrize("seed", range(5))
def test_without_objectness_what_many_found_comes_first(seed):
    masks = guesses(14, seed)
    torch.testing.assert_close(agreement((masks > 0.5).float()), torch.tensor(slow_agreement(masks)))
    order = slow_order(masks)
    found = canned(masks)[0].propose(noise(12, 10))
    torch.testing.assert_close(found, masks[order].view(-1, 12, 10))
    assert slow_agreement(masks)[order[0]] > 2
    assert agreement(torch.zeros(2, 3, 3)).tolist() == [0, 0] and agreement(torch.zeros(0, 3, 3)).shape == (0,)


def test_nothing_that_is_an_object_gives_no_proposals():
    proposer, _ = canned(guesses(4), torch.full((4,), 0.5))
    assert proposer.propose(noise(12, 10), objects_only=True).shape == (0, 12, 10)
    assert canned(torch.zeros(3, 12, 10))[0].propose(noise(12, 10)).shape == (3, 12, 10)
    with pytest.raises(ValueError, match='got objects_only, expected a model that knows "no object"'):
        canned(guesses(4))[0].propose(noise(12, 10), objects_only=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("overlap", [0.0, 0.41, 0.7, 1.0])
def test_the_order_of_suppression_equals_the_greedy_loop(seed, overlap):
    masks = (guesses(12, seed) > 0.5).float()
    masks[3], masks[7] = 0, masks[1]
    assert nms_order(masks, overlap).tolist() == slow_nms_order(masks, overlap)


def test_a_duplicate_of_a_duplicate_is_none_and_empty_masks_come_last():
    strips = torch.zeros(5, 1, 14)
    for strip, start in zip(strips, (0, 2, 4), strict=False):  # neighbours overlap by 8 of 12
        strip[0, start : start + 10] = 1
    assert nms_order(strips, 0.6).tolist() == [0, 2, 1, 3, 4]
    assert nms_order(torch.zeros(0, 4, 4)).shape == (0,) and nms_order(torch.zeros(0, 4, 4)).dtype == torch.int64


@pytest.mark.parametrize(
    ("size", "seen"),
    [((64, 64), (64, 64)), ((40, 30), (40, 30)), ((5, 3), (5, 3)), ((200, 100), (64, 32)), ((2, 1000), (1, 64))],
)
def test_only_images_larger_than_those_of_the_training_run_are_downsized(size, seen):
    proposer, shown = canned(guesses(4))
    assert proposer.propose(noise(*size)).shape == (4, *size)
    assert shown[0].shape == (1, 3, *seen)
    if size == seen:
        assert torch.equal(shown[0][0].permute(1, 2, 0), torch.from_numpy(noise(*size)) / 255)
    for recipe in KINDS:
        found = make_proposer(recipe).propose(noise(*size))
        assert found.shape == (6, *size) and not found.requires_grad and 0 <= found.min() and found.max() <= 1


def test_downsizing_averages_what_it_does_not_show():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::4] = 255  # between those pixels that a plain bilinear grid of 64 would read
    proposer, shown = canned(guesses(4))
    proposer.propose(stripes)
    assert shown[0].shape == (1, 3, 64, 64) and shown[0].std() < 0.05 and shown[0].mean().item() > 0.2
