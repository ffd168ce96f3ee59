"""The class token reads late: what the bias closes is closed, what it opens is the plain network, nothing stays."""

import math

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from kit.images import captioned_images
from ovs_lite.methods.clip_pretraining.late_reading import CLOSED, OPEN, READING_BLOCKS, late_reading, reading_bias
from ovs_lite.methods.clip_pretraining.training import ClipPretraining


@pytest.fixture
def visual():
    return random_clip().network.visual.eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tokens_behind(visual, number, images):
    """(B, 1 + n, W) tokens behind the block of that number."""
    seen = []
    hook = visual.transformer.resblocks[number].register_forward_hook(lambda *given: seen.append(given[-1]))
    with torch.no_grad():
        visual(images)
    hook.remove()
    return seen[0]


def test_a_closed_class_token_knows_nothing_of_the_image_before_the_last_blocks(visual, images):
    early = len(visual.transformer.resblocks) - READING_BLOCKS - 1
    with late_reading(visual, float("-inf")):
        before, after = (tokens_behind(visual, number, images) for number in (early, early + 1))
    assert torch.allclose(before[0, 0], before[1, 0], atol=1e-6) and torch.allclose(
        before[0, 0], before[2, 0], atol=1e-6
    )
    assert not torch.allclose(after[0, 0], after[1, 0], atol=1e-3)
    assert not torch.allclose(before[0, 1:], before[1, 1:], atol=1e-3)  # patches look at each other as ever


@pytest.mark.parametrize("bias", [float("-inf"), -8.0, -0.5])
def test_attention_is_that_of_a_softmax_with_the_bias(visual, images, bias):
    """Oracle: the first block written out, head by head."""
    block = visual.transformer.resblocks[0]
    given = []
    hook = block.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    with late_reading(visual, bias):
        found = tokens_behind(visual, 0, images)
    hook.remove()
    x, attention = given[0], block.attn
    q, k, v = (F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)).chunk(3, -1)
    heads, size, outs = attention.num_heads, attention.head_dim, []
    for head in range(heads):
        one = slice(head * size, (head + 1) * size)
        logits = q[..., one] @ k[..., one].transpose(1, 2) / math.sqrt(size)
        logits[:, 0, 1:] += bias
        outs.append(logits.softmax(-1) @ v[..., one])
    x = x + attention.out_proj(torch.cat(outs, -1))
    assert torch.allclose(found, x + block.mlp(block.ln_2(x)), atol=1e-5)


def test_open_is_the_plain_network_and_nothing_is_left_behind(visual, images):
    with torch.no_grad():
        plain = visual(images)
        with late_reading(visual, 0.0):
            assert torch.equal(visual(images), plain)
        with pytest.raises(RuntimeError), late_reading(visual, float("-inf")):
            assert not torch.allclose(visual(images), plain, atol=1e-4)
            raise RuntimeError
        assert torch.equal(visual(images), plain)


def test_it_opens_once_and_is_open_at_the_end():
    values = [reading_bias(step / 1000) for step in range(1000)]
    assert values == sorted(values) and values[0] == float("-inf") and values[-1] == 0
    assert math.isinf(reading_bias(CLOSED - 1e-6)) and -9 < reading_bias(CLOSED) < -7 and reading_bias(OPEN) == 0


def test_a_training_run_closes_it_by_the_step_of_its_batch():
    clip = random_clip()
    late, plain = (ClipPretraining(clip, captioned_images, "text", None, steps) for steps in (10, 0))
    terms = {}
    for task in (late, plain):
        for step in (0, 9):
            batch = task.batch(step)
            terms[task is late, step] = task.losses(batch)["contrastive"].item()
    assert terms[True, 9] == terms[False, 9] and terms[True, 0] != terms[False, 0]


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="expected a vision transformer"), late_reading(torch.nn.Identity(), -1.0):
        pass
