"""OpenSeg's grounding loss against a slow oracle; invariances, gradients, blocks, and pairs without words."""

import pytest
import torch
import torch.nn.functional as F

from kit.oracles.grounding import slow_grounding_loss, slow_score
from ovs_lite.losses import grounding
from ovs_lite.losses.grounding import grounding_loss, grounding_scores

TAU = torch.tensor(0.2, dtype=torch.float64)


def inputs(images=4, regions=5, words=3, size=6, seed=0, dtype=torch.float64):
    """Regions, words and a mask with between one and all words valid, at any place."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, regions, size, generator=generator, dtype=dtype)
    w = torch.randn(images, words, size, generator=generator, dtype=dtype)
    valid = torch.rand(images, words, generator=generator) < 0.5
    valid[torch.arange(images), torch.randint(words, (images,), generator=generator)] = True
    return z, w, valid


@pytest.mark.parametrize("tau", [0.01, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 3), (3, 7, 1), (4, 5, 3), (6, 2, 5)])
def test_equals_the_slow_oracle(sizes, tau):
    z, w, valid = inputs(*sizes)
    found = grounding_loss(z, w, valid, tau)
    assert found.shape == () and found.dtype == torch.float64
    assert float(found) == pytest.approx(slow_grounding_loss(z, w, valid, tau), rel=1e-10, abs=1e-12)


def test_scores_are_those_of_each_image_and_each_caption():
    z, (_, w, valid) = inputs(3)[0], inputs(5, seed=1)
    found = grounding_scores(z, w, valid, TAU)
    assert found.shape == (3, 5)
    expected = [
        [slow_score(image.tolist(), c[v].tolist(), float(TAU)) for c, v in zip(w, valid, strict=True)] for image in z
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_order_length_and_padding_do_not_matter(seed):
    z, w, valid = inputs(seed=seed)
    expected, dice = grounding_loss(z, w, valid, TAU), torch.Generator().manual_seed(seed)
    pairs, regions, words = (torch.randperm(n, generator=dice) for n in (len(z), z.shape[1], w.shape[1]))
    torch.testing.assert_close(grounding_loss(z[pairs], w[pairs], valid[pairs], TAU), expected)
    torch.testing.assert_close(grounding_loss(z[:, regions], w[:, words], valid[:, words], TAU), expected)
    lengths = [torch.rand(*x.shape[:2], 1, generator=dice, dtype=x.dtype) * 9 + 0.1 for x in (z, w)]
    torch.testing.assert_close(grounding_loss(lengths[0] * z, lengths[1] * w, valid, TAU), expected)
    other = torch.where(valid[..., None], w, torch.full_like(w, float("nan")))
    torch.testing.assert_close(grounding_loss(z, F.pad(other, (0, 0, 0, 2)), F.pad(valid, (0, 2)), TAU), expected)
    assert not torch.isclose(grounding_loss(z.roll(1, 0), w, valid, TAU), expected), "pairs must stay together"


def test_gradients_are_those_of_the_formula():
    z, w, valid = inputs(3, 4, 2, 3)
    leaves = [x.requires_grad_() for x in (z, w, TAU.clone())]
    assert torch.autograd.gradcheck(lambda z, w, tau: grounding_loss(z, w, valid, tau), leaves)


def naive(z, w, valid, tau):
    """Autograd on all cosines held at once."""
    cosines = torch.einsum("and,bkd->abnk", F.normalize(z, dim=2), F.normalize(w, dim=2))
    by_word = ((cosines / tau).softmax(2) * cosines).sum(2)
    logits = (by_word * valid).sum(2) / valid.sum(1) / tau
    positives = torch.arange(len(z))
    return F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("room", [1, 7, 60, 10**9])
def test_blocks_change_no_value_and_no_gradient(room, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(grounding, "CPU_BLOCK", room)
    monkeypatch.setattr(grounding, "MOST_WORDS", 5)
    results = []
    for loss in (grounding_loss, naive):
        z, w, valid = inputs(7, 6, 4, 5, dtype=dtype)
        leaves = [x.requires_grad_() for x in (z, w, TAU.to(dtype))]
        value = loss(leaves[0], leaves[1], valid, leaves[2])
        results.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_descent_brings_a_word_to_its_region_and_no_further_word_to_another():
    """Two images of two regions; each caption names one region of its image."""
    z = torch.eye(4, dtype=torch.float64).view(2, 2, 4) + 0.1
    w = (torch.eye(4, dtype=torch.float64)[[0, 2]] + 0.3)[:, None].requires_grad_()
    grounding_loss(z, w, torch.ones(2, 1, dtype=torch.bool), 0.1).backward()
    assert w.grad[0, 0, 0] < 0 and w.grad[1, 0, 2] < 0 and w.grad[0, 0, 2] > 0 and w.grad[1, 0, 0] > 0


def test_a_pair_without_words_is_as_if_it_were_not_there():
    z, w, valid = (x.clone() for x in inputs(5))
    valid[[1, 4]] = False
    leaves = [x.requires_grad_() for x in (z, w)]
    found = grounding_loss(*leaves, valid, TAU)
    rest = [0, 2, 3]
    torch.testing.assert_close(found, grounding_loss(z[rest], w[rest], valid[rest], TAU))
    found.backward()
    assert z.grad[[1, 4]].abs().max() == 0 == w.grad[~valid].abs().max() and z.grad[rest].abs().min() > 0


@pytest.mark.parametrize("images", [0, 1, 3])
def test_no_words_at_all_cost_nothing(images):
    z, w, valid = inputs(3)
    leaves = [x[:images].clone().requires_grad_() for x in (z, w)]
    loss = grounding_loss(*leaves, torch.zeros_like(valid[:images]), TAU)
    loss.backward()
    assert loss == 0 and all(x.grad.abs().sum() == 0 for x in leaves)


def test_no_words_cost_nothing_where_a_sum_would_overflow_and_padding_is_nan():
    regions = torch.ones(2, 128, 640, dtype=torch.half, requires_grad=True)
    words = torch.full((2, 3, 640), torch.nan, requires_grad=True)
    loss = grounding_loss(regions, words, torch.zeros(2, 3, dtype=torch.bool), TAU)
    loss.backward()
    assert loss == 0 and loss.dtype == torch.float32
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in (regions, words))


def test_half_precision_is_computed_in_single():
    z, w, valid = inputs(dtype=torch.float32)
    found = grounding_loss(z.half(), w.half(), valid, 0.01)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, grounding_loss(z.half().float(), w.half().float(), valid, 0.01))


def test_vectors_of_length_zero_stay_finite():
    z, w, valid = (x.clone() for x in inputs())
    z[0, 0], w[1] = 0, 0
    leaves = [x.requires_grad_() for x in (z, w)]
    grounding_loss(*leaves, valid, TAU).backward()
    assert all(x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, w, v: (z[0], w, v), lambda z, w, v: (z[1:], w, v), lambda z, w, v: (z[..., 1:], w, v),
        lambda z, w, v: (z, w, v[:, 1:]), lambda z, w, v: (z, w, v.float()), lambda z, w, v: (z[:, :0], w, v),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_named(wrong):
    with pytest.raises(ValueError, match=r"got shapes .* expected regions \(B, N, D\)"):
        grounding_loss(*wrong(*inputs()), TAU)
