"""TCL's losses against slow oracles: pooling, area, smoothness, Gumbel samples; invariances, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from kit.oracles.tcl import case, released_terms, slow_masks, slow_similarity, slow_tv
from ovs_lite.losses.tcl import (
    area_loss,
    binary_gumbel,
    feature_similarity,
    mask_logits,
    text_grounding_terms,
    tv_loss,
)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_oracle(seed):
    leaves, positives = case(seed=seed)
    masks = slow_masks(*leaves)
    expected = slow_similarity(leaves[0], leaves[1], masks)
    torch.testing.assert_close(feature_similarity(*leaves), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mask_logits(*leaves).sigmoid(), torch.tensor(masks, dtype=torch.float64))
    terms = text_grounding_terms(*leaves, positives, chunk=3)
    torch.testing.assert_close(terms.similarity, expected, rtol=1e-10, atol=1e-10)
    areas = torch.tensor(masks, dtype=torch.float64).mean((2, 3))
    for b, own in enumerate(positives.tolist()):
        others = [float(area) for t, area in enumerate(areas[b]) if t != own]
        assert terms.positive_areas[b].item() == pytest.approx(float(areas[b, own]))
        assert terms.negative_areas[b].tolist() == pytest.approx(others)
    assert terms.mask_tv.item() == pytest.approx(slow_tv([plane for image in masks for plane in image]))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_images_texts_and_pixels_does_not_matter(seed):
    (pixels, texts, scale, bias), _ = case(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    images, words = torch.randperm(3, generator=generator), torch.randperm(4, generator=generator)
    places = torch.randperm(12, generator=generator)
    shuffled = pixels.flatten(2)[:, :, places].view_as(pixels)[images]
    expected = feature_similarity(pixels, texts, scale, bias)[images][:, words]
    torch.testing.assert_close(feature_similarity(shuffled, texts[words], scale, bias, 3), expected)


def test_the_length_of_pixels_weighs_in_the_pooled_embedding_but_not_in_the_mask():
    (pixels, texts, scale, bias), positives = case(images=1, texts=2)
    loud = pixels.detach().clone()
    loud[..., 0, 0] *= 50
    before, after = (text_grounding_terms(x, texts, scale, bias, positives) for x in (pixels, loud))
    torch.testing.assert_close(after.positive_areas, before.positive_areas)
    assert not torch.isclose(after.similarity, before.similarity, rtol=1e-2).any()
    assert (feature_similarity(loud, texts, scale, bias).abs() <= 1).all()


def test_logits_of_own_texts_alone():
    leaves, positives = case()
    own = mask_logits(leaves[0], leaves[1][positives][:, None], *leaves[2:])
    assert own.shape == (3, 1, 3, 4)
    torch.testing.assert_close(own[:, 0], mask_logits(*leaves)[torch.arange(3), positives])


@pytest.mark.parametrize("factor", [1e-4, 1e-9])
def test_logits_of_weak_pixels_are_those_of_their_direction_down_to_a_length_of_one_millionth(factor):
    (pixels, texts, scale, bias), _ = case()
    weak = factor * pixels
    lengths = weak.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    expected = 10 * torch.einsum("bchw,tc->bthw", weak / lengths, texts) - 2.5
    torch.testing.assert_close(mask_logits(weak, texts, scale, bias), expected)


def test_area_is_one_mean_over_the_whole_tensor():
    positive, negative = torch.tensor([[0.1, 0.3], [0.9, 0.7]]), torch.tensor([0.2, 0.0, 0.1])
    assert area_loss(positive, negative).item() == pytest.approx(abs(0.5 - 0.4) + 0.1), "not a mean of |area - 0.4|"
    assert area_loss(positive, negative, 0.6, 0.3).item() == pytest.approx(0.1 + 0.2)
    assert area_loss(torch.full((2, 2), 0.4), torch.zeros(3)).item() == pytest.approx(0)


def test_areas_stand_for_their_masks():
    leaves, positives = case()
    terms = text_grounding_terms(*leaves, positives)
    _, own, others, _ = released_terms(*leaves, positives)
    torch.testing.assert_close(area_loss(terms.positive_areas, terms.negative_areas), area_loss(own, others))


def test_a_single_pair_has_no_negative_area():
    negative = torch.zeros(1, 0, requires_grad=True)
    loss = area_loss(torch.tensor([0.7]), negative)
    loss.backward()
    assert loss.item() == pytest.approx(0.3) and negative.grad.shape == (1, 0)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4, 5), (3, 1, 6), (3, 6, 1), (2, 1, 1)])
def test_tv_equals_the_slow_oracle_and_its_gradient_the_formula(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert tv_loss(x).item() == pytest.approx(slow_tv(x.view(-1, *shape[-2:]).tolist()))
    assert torch.autograd.gradcheck(tv_loss, x)


def test_tv_of_a_flat_map_is_nothing_and_asks_for_nothing():
    x = torch.full((2, 3, 4), 0.7, requires_grad=True)
    loss = tv_loss(x)
    loss.backward()
    assert loss == 0 and (x.grad == 0).all()


def test_gumbel_samples_are_binary_and_as_likely_as_the_sigmoid_says():
    logits = torch.tensor([-3.0, -0.5, 0.0, 2.0])[:, None].expand(4, 20000).clone().requires_grad_()
    sample = binary_gumbel(logits, generator=torch.Generator().manual_seed(0))
    assert set(sample.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(sample.mean(1), logits[:, 0].sigmoid(), atol=0.015, rtol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gumbel_is_the_released_formula_with_the_gradient_of_the_noisy_soft_sample(temperature):
    logits = torch.linspace(-2, 2, 50, dtype=torch.float64).requires_grad_()
    uniform = torch.rand(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft = torch.sigmoid((logits + torch.log(uniform / (1 - uniform))) / temperature)
    for hard in (True, False):
        found = binary_gumbel(logits, temperature, hard, torch.Generator().manual_seed(3))
        torch.testing.assert_close(found, (soft > 0.5).double() if hard else soft)
        gradient = torch.autograd.grad((found * torch.arange(50)).sum(), logits)[0]
        torch.testing.assert_close(gradient, torch.arange(50) * (soft * (1 - soft) / temperature).detach())


def test_gumbel_in_half_precision_is_finite():
    logits = torch.full((2000,), 1.0, dtype=torch.float16, requires_grad=True)
    sample = binary_gumbel(logits, generator=torch.Generator().manual_seed(0))
    sample.sum().backward()
    assert sample.dtype == torch.float16 and logits.grad.isfinite().all() and set(sample.tolist()) == {0.0, 1.0}


def test_descent_grounds_a_text_in_its_pixels():
    """Images that lean to their text everywhere: own masks come to cover 40 %, the others next to nothing."""
    texts = torch.eye(4)
    pixels = 0.1 * torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels += 0.5 * texts[:, :, None, None]
    scale, bias = torch.tensor(10.0), torch.tensor(-2.5)
    pixels.requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=0.05)
    for _ in range(100):
        terms = text_grounding_terms(pixels, texts, scale, bias, torch.arange(4))
        contrast = F.cross_entropy(terms.similarity / 0.07, torch.arange(4))
        loss = contrast + area_loss(terms.positive_areas, terms.negative_areas) + terms.mask_tv
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert terms.positive_areas.mean().item() == pytest.approx(0.4, abs=0.05) and terms.negative_areas.mean() < 0.1


@pytest.mark.parametrize("pixels, texts", [((2, 3, 4), (5, 3)), ((2, 3, 4, 4), (5, 4)), ((2, 3, 4, 4), (3,)),
                                           ((2, 3, 4, 4), (2, 5, 3))])  # fmt: skip
def test_other_shapes_are_refused_by_name(pixels, texts):
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\) and \(T, C\) with the same C") as error:
        feature_similarity(torch.zeros(pixels), torch.zeros(texts), 10.0, -2.5)
    assert str(pixels) in str(error.value) and str(texts) in str(error.value)


@pytest.mark.parametrize("pixels, texts", [((0, 3, 4, 4), (5, 3)), ((2, 3, 0, 4), (5, 3)), ((2, 3, 4, 4), (0, 3))])
def test_nothing_at_all_is_refused(pixels, texts):
    with pytest.raises(ValueError, match="expected none to be empty"):
        feature_similarity(torch.zeros(pixels), torch.zeros(texts), 10.0, -2.5)


def test_other_mistakes_are_refused_by_name():
    leaves, positives = case()
    with pytest.raises(ValueError, match="got chunk 0, expected at least 1 text"):
        feature_similarity(*leaves, chunk=0)
    with pytest.raises(ValueError, match=r"got scale \(2,\) and bias \(\), expected scalars"):
        feature_similarity(*leaves[:2], torch.ones(2), leaves[3])
    with pytest.raises(ValueError, match=r"got positives \(2,\) torch.int64, expected \(3,\) int64"):
        text_grounding_terms(*leaves, positives[:2])
    with pytest.raises(ValueError, match=r"torch.float32, expected \(3,\) int64"):
        text_grounding_terms(*leaves, positives.float())
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=rf"got positives \[0, 1, {wrong}\], expected 0 to 3"):
            text_grounding_terms(*leaves, torch.tensor([0, 1, wrong]))
    for shape in ((5,), (2, 0, 3)):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., H, W\) with at least one element"):
            tv_loss(torch.zeros(shape))
