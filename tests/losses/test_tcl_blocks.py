"""The walk over blocks against all masks at once: values, gradients, edges, precision."""

import pytest
import torch

from kit.oracles.tcl import case, gradients, mixed, released_terms
from ovs_lite.losses import tcl_blocks
from ovs_lite.losses.tcl import area_loss, feature_similarity, mask_logits, text_grounding_terms, tv_loss


@pytest.mark.parametrize("room", [1, 100, 2**18])  # of a block: one image, some images, everything
@pytest.mark.parametrize("chunk", [1, 3, 16, 17, None])
def test_blocks_leave_value_and_gradients_as_they_are(chunk, room, monkeypatch):
    monkeypatch.setattr(tcl_blocks, "CPU_BLOCK", room)
    leaves, positives = case(images=5, texts=17)
    expected, found = released_terms(*leaves, positives), text_grounding_terms(*leaves, positives, chunk)
    torch.testing.assert_close(found.similarity, expected[0], rtol=1e-10, atol=1e-10)
    wanted, given = gradients(mixed(*expected), leaves), gradients(mixed(*found), leaves)
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)
    similarity = feature_similarity(*leaves, chunk)
    torch.testing.assert_close(similarity, expected[0], rtol=1e-10, atol=1e-10)
    slopes = torch.linspace(-1, 1, 85, dtype=torch.float64).view(5, 17)
    plain = released_terms(*leaves, positives)[0]
    wanted, given = (gradients((slopes * value).sum(), leaves) for value in (plain, similarity))
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def test_no_block_is_as_large_as_all_masks():
    pairs = list(tcl_blocks._blocks((64, 8, 56, 56), 256, None, torch.device("cpu")))
    sizes = [(i.stop - i.start) * (min(256, t.stop) - t.start) * 56 * 56 for i, t in pairs]
    assert max(sizes) <= tcl_blocks.CPU_BLOCK and sum(sizes) == 64 * 256 * 56 * 56
    wide = list(tcl_blocks._blocks((4096, 512, 1, 1), 64, None, torch.device("cpu")))
    assert max((i.stop - i.start) * 64 * 512 for i, _ in wide) <= tcl_blocks.CPU_BLOCK, "pooled embeddings count too"


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_gradients_are_those_of_the_formula(chunk):
    leaves, positives = case(images=2, texts=3, channels=3, height=2, width=3)
    assert torch.autograd.gradcheck(lambda *given: feature_similarity(*given, chunk), leaves)
    assert torch.autograd.gradcheck(lambda *given: tuple(text_grounding_terms(*given, positives, chunk)), leaves)


def test_frozen_texts_and_plain_numbers_leave_the_other_gradients_alone():
    leaves, positives = case()
    wanted = gradients(mixed(*text_grounding_terms(*leaves, positives)), leaves)["pixels"]
    terms = text_grounding_terms(leaves[0], leaves[1].detach(), 10.0, -2.5, positives)
    torch.testing.assert_close(torch.autograd.grad(mixed(*terms), leaves[0])[0], wanted)


def test_layouts_of_memory_do_not_matter():
    leaves, positives = case()
    expected = gradients(mixed(*text_grounding_terms(*leaves, positives)), leaves)
    last = leaves[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = gradients(mixed(*text_grounding_terms(last, *leaves[1:], positives)), [last, *leaves[1:]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(tv_loss(last), tv_loss(leaves[0]))
    wanted, given = (torch.autograd.grad(tv_loss(x), x)[0] for x in (leaves[0], last))
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("sizes", [(1, 1, 4, 3, 3), (1, 3, 4, 2, 2), (3, 1, 4, 2, 2), (2, 3, 1, 2, 2), (2, 3, 4, 1, 1)])
def test_the_smallest_sizes_have_values_and_finite_gradients(sizes):
    leaves, positives = case(*sizes)
    terms = text_grounding_terms(*leaves, positives)
    assert terms.negative_areas.shape == (sizes[0], sizes[1] - 1)
    loss = terms.similarity.sum() + area_loss(terms.positive_areas, terms.negative_areas) + terms.mask_tv
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients(loss, leaves).values())
    masks = mask_logits(*leaves).sigmoid()
    torch.testing.assert_close(terms.mask_tv, tv_loss(masks))
    torch.testing.assert_close(terms.positive_areas.mean(), masks.gather(1, positives.view(-1, 1, 1, 1).expand(
        -1, 1, *sizes[3:])).mean())  # fmt: skip


@pytest.mark.parametrize("emptied", [(slice(0, 1), slice(None), 0, 0), (slice(0, 1),), (slice(None),)])
def test_pixels_without_direction_behave_as_in_the_released_code(emptied):
    leaves, positives = case()
    leaves[0].data[emptied] = 0
    found, expected = text_grounding_terms(*leaves, positives, 2), released_terms(*leaves, positives)
    torch.testing.assert_close(found.similarity, expected[0])
    given, wanted = gradients(mixed(*found), leaves), gradients(mixed(*expected), leaves)
    assert all(gradient.isfinite().all() for gradient in given.values())
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e-4])
def test_masks_and_pixels_near_nothing_behave_as_in_the_released_code(factor):
    """Where pooled vectors or areas come near 1e-6 the eps are all that counts."""
    for weak in (0, 3):
        leaves, positives = case()
        leaves[weak].data = leaves[weak].data * factor if weak == 0 else leaves[weak].data - 1 / factor**0.25
        found, expected = text_grounding_terms(*leaves, positives, 2), released_terms(*leaves, positives)
        torch.testing.assert_close(found.similarity, expected[0], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(gradients(mixed(*found), leaves), gradients(mixed(*expected), leaves))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single_precision(dtype):
    leaves, positives = case(channels=16, height=40, width=40, dtype=torch.float32)
    half = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    found = text_grounding_terms(*half, positives)
    expected = text_grounding_terms(*(leaf.detach().float() for leaf in half), positives)
    torch.testing.assert_close(tuple(found), tuple(expected))
    torch.testing.assert_close(tv_loss(half[0]), tv_loss(half[0].detach().float()))
    loss = mixed(*found) + tv_loss(half[0])
    assert all(g.dtype == dtype and g.isfinite().all() for g in gradients(loss, half).values())


def test_autocast_does_not_lower_the_precision():
    (exact, positives), (leaves, _) = case(), case()
    leaves = [leaf.detach().float().requires_grad_() for leaf in leaves]
    wanted = gradients(mixed(*released_terms(*exact, positives)), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = text_grounding_terms(*leaves, positives)
        given = gradients(mixed(*found), leaves)
        logits = mask_logits(*leaves)
    torch.testing.assert_close(found.similarity.double(), released_terms(*exact, positives)[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close({name: each.double() for name, each in given.items()}, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.double(), mask_logits(*exact), rtol=1e-5, atol=1e-5)
