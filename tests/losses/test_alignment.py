"""Eq. 8 and the contrast against slow sums; lengths do not matter; gradients by differences; no pairs."""

import math

import pytest
import torch

from ovs_lite.losses.alignment import contrastive_alignment_loss, cosine_alignment_loss


def pairs(count=4, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dim, generator=generator, dtype=torch.float64) for _ in range(2)]


def slow_loss(regions, texts):
    total = 0.0
    for region, text in zip(regions.tolist(), texts.tolist(), strict=True):
        product = sum(a * b for a, b in zip(region, text, strict=True))
        total += 1 - product / math.sqrt(sum(a * a for a in region) * sum(b * b for b in text))
    return total / len(regions)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_slow_oracle(seed):
    regions, texts = pairs(seed=seed)
    assert cosine_alignment_loss(regions, texts).item() == pytest.approx(slow_loss(regions, texts), abs=1e-12)
    assert cosine_alignment_loss(regions, texts, 8).item() == pytest.approx(slow_loss(regions, texts) / 2, abs=1e-12)


def test_its_ends_are_0_and_2_and_lengths_do_not_matter():
    regions, texts = pairs()
    assert cosine_alignment_loss(regions, 3 * regions).item() == pytest.approx(0, abs=1e-12)
    assert cosine_alignment_loss(regions, -regions).item() == pytest.approx(2)
    scaled = cosine_alignment_loss(regions * torch.tensor([[5.0], [0.1], [1], [2]]), texts)
    assert scaled.item() == pytest.approx(cosine_alignment_loss(regions, texts).item())


def test_the_order_of_the_pairs_does_not_matter_but_who_is_paired_does():
    regions, texts = pairs()
    loss = cosine_alignment_loss(regions, texts).item()
    order = [2, 0, 3, 1]
    assert cosine_alignment_loss(regions[order], texts[order]).item() == pytest.approx(loss)
    assert abs(cosine_alignment_loss(regions, texts[order]).item() - loss) > 1e-3


def test_gradients_are_those_of_differences():
    regions, texts = pairs(3, 4)
    assert torch.autograd.gradcheck(cosine_alignment_loss, (regions.requires_grad_(), texts.requires_grad_()))


def test_no_pairs_are_0_with_a_graph():
    regions = torch.zeros(0, 5, requires_grad=True)
    loss = cosine_alignment_loss(regions, torch.zeros(0, 5), count=0)
    loss.backward()
    assert loss.item() == 0 and regions.grad.shape == (0, 5)


def test_half_precision_is_widened_and_a_region_of_zeros_is_no_nan():
    regions, texts = (tensor.bfloat16() for tensor in pairs(2, 300))
    found = cosine_alignment_loss(regions, texts)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(slow_loss(regions.double(), texts.double()), abs=1e-5)
    zeros = torch.zeros(1, 3, requires_grad=True)
    loss = cosine_alignment_loss(zeros, torch.ones(1, 3))
    loss.backward()
    assert loss.item() == 1 and torch.isfinite(zeros.grad).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got regions and texts of shapes \(2, 3\) and \(1, 3\)"):
        cosine_alignment_loss(torch.zeros(2, 3), torch.zeros(1, 3))


def slow_contrast(regions, texts, which, scale):
    total = 0.0
    for region, own in zip(regions.tolist(), which.tolist(), strict=True):
        logits = []
        for text in texts.tolist():
            product = sum(a * b for a, b in zip(region, text, strict=True))
            logits.append(scale * product / math.sqrt(sum(a * a for a in region) * sum(b * b for b in text)))
        total += math.log(sum(math.exp(value) for value in logits)) - logits[own]
    return total / len(regions)


@pytest.mark.parametrize("seed", range(3))
def test_the_contrast_equals_the_slow_oracle(seed):
    regions, texts = pairs(5, seed=seed)
    which = torch.tensor([2, 0, 2, 1, 2])
    found = contrastive_alignment_loss(regions, texts[:3], which, 7.0).item()
    assert found == pytest.approx(slow_contrast(regions, texts[:3], which, 7.0), abs=1e-10)
    assert contrastive_alignment_loss(regions, texts[:3], which, 7.0, 10).item() == pytest.approx(found / 2)
    order = [2, 0, 1]
    moved = contrastive_alignment_loss(3 * regions, texts[order], torch.tensor([0, 1, 0, 2, 0]), 7.0)
    assert moved.item() == pytest.approx(found), "neither the order of texts nor a length matters"


def test_what_all_regions_share_lowers_eq_8_and_not_the_contrast():
    """Regions that all move to the mean of the texts, from which nobody is told any more."""
    texts = torch.eye(4, dtype=torch.float64) + 1.5  # a common part, as real text embeddings have
    regions, which = torch.eye(4, dtype=torch.float64), torch.arange(4)
    collapsed = texts.mean(0).expand(4, -1)
    assert cosine_alignment_loss(collapsed, texts) < cosine_alignment_loss(regions, texts)
    contrast = [contrastive_alignment_loss(seen, texts, which, 20.0).item() for seen in (regions, collapsed)]
    assert contrast[0] < contrast[1] == pytest.approx(math.log(4))


def test_gradients_of_the_contrast_are_those_of_differences():
    regions, texts = pairs(3, 4)
    which = torch.tensor([0, 2, 1])
    inputs = regions.requires_grad_(), texts.requires_grad_(), which, 5.0
    assert torch.autograd.gradcheck(contrastive_alignment_loss, inputs)


def test_no_pairs_have_no_contrast():
    regions = torch.zeros(0, 5, requires_grad=True)
    loss = contrastive_alignment_loss(regions, torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), 5.0, 1)
    loss.backward()
    assert loss.item() == 0 and regions.grad is not None
    with pytest.raises(ValueError, match=r"got regions, texts and which of shapes \(2, 5\), \(3, 4\) and \(2,\)"):
        contrastive_alignment_loss(torch.zeros(2, 5), torch.zeros(3, 4), torch.zeros(2), 1.0)


def test_autocast_does_not_round_the_contrast():
    regions, texts = (part.float() for part in pairs(6, 16))
    expected = contrastive_alignment_loss(regions, texts, torch.arange(6), 100.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert (regions @ texts.T).dtype == torch.bfloat16
        assert torch.equal(contrastive_alignment_loss(regions, texts, torch.arange(6), 100.0), expected)
