"""The class token reads late: what the bias closes is closed, what it opens is the plain network, nothing stays."""

import math

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from kit.images import captioned_images
from ovs_lite.methods.clip_pretraining.config import ClipPretrainingConfig
from ovs_lite.methods.clip_pretraining.late_reading import CLOSED, FIRST_BIAS, OPEN, LateReading
from ovs_lite.methods.clip_pretraining.training import ClipPretraining


@pytest.fixture
def visual():
    return random_clip().network.visual.eval()


def closed(visual, blocks=4, bias=float("-inf")):
    """Inside it attention is closed, or has that bias (FIRST_BIAS at most), in a run of 10,000 steps."""
    step = 0 if bias == float("-inf") else round(1e4 * (OPEN - (OPEN - CLOSED) * bias / FIRST_BIAS))
    late = LateReading(visual, blocks, 10_000)
    assert late.bias(step) == pytest.approx(bias)
    return late.at(step)


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


@pytest.mark.parametrize("blocks", [1, 4, 5])
def test_a_closed_class_token_knows_nothing_of_the_image_before_the_last_blocks(visual, images, blocks):
    with closed(visual, blocks):
        before, after = (tokens_behind(visual, number, images) for number in (blocks - 1, blocks))
    assert torch.allclose(before[0, 0], before[1, 0], atol=1e-6) and torch.allclose(
        before[0, 0], before[2, 0], atol=1e-6
    )
    assert not torch.allclose(after[0, 0], after[1, 0], atol=1e-3)
    assert not torch.allclose(before[0, 1:], before[1, 1:], atol=1e-3)  # patches look at each other as ever


@pytest.mark.parametrize("bias", [float("-inf"), -8.0, -0.48])
def test_attention_is_that_of_a_softmax_with_the_bias(visual, images, bias):
    """Oracle: the first block written out, head by head."""
    block = visual.transformer.resblocks[0]
    given = []
    hook = block.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    with closed(visual, bias=bias):
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
        with closed(visual, bias=0.0):
            assert torch.equal(visual(images), plain)
        with pytest.raises(RuntimeError), closed(visual):
            assert not torch.allclose(visual(images), plain, atol=1e-4)
            raise RuntimeError
        assert torch.equal(visual(images), plain)


def test_it_opens_once_and_is_open_at_the_end(visual):
    values = [LateReading(visual, 4, 1000).bias(step) for step in range(1000)]
    assert values == sorted(values) and values[0] == float("-inf") and values[-1] == 0
    assert values[round(1000 * CLOSED) - 1] == float("-inf") and values[round(1000 * OPEN)] == 0
    assert math.isclose(values[round(1000 * CLOSED)], FIRST_BIAS)


def test_a_training_run_closes_it_by_the_step_of_its_batch():
    clip = random_clip()
    terms = {}
    for late in (LateReading(clip.network.visual, 4, 10), None):
        task = ClipPretraining(clip, captioned_images, "text", None, late)
        for step in (0, 9):
            batch = task.batch(step)
            terms[late is None, step] = task.losses(batch)["contrastive"].item()
    assert terms[False, 9] == terms[True, 9] and terms[False, 0] != terms[True, 0]


def test_the_recipes_close_it_where_there_is_a_class_token():
    vit, convnet = (ClipPretrainingConfig(model=model).resolved() for model in ("ViT-Lite-8", "ConvNeXt-Lite"))
    assert vit.closed_blocks == 5 and convnet.closed_blocks == 0
    assert ClipPretrainingConfig(closed_blocks=0).resolved().closed_blocks == 0
    with pytest.raises(ValueError, match="closed_blocks=1 for ConvNeXt-Lite, which has no class token"):
        ClipPretrainingConfig(model="ConvNeXt-Lite", closed_blocks=1)
    with pytest.raises(ValueError, match="closed_blocks=-2, expected 0 or more"):
        ClipPretrainingConfig(closed_blocks=-2)


def test_another_network_and_no_block_to_look_in_are_refused(visual):
    with pytest.raises(ValueError, match="expected a vision transformer"):
        LateReading(torch.nn.Identity(), 1, 10)
    for blocks in (0, 6):
        with pytest.raises(ValueError, match=f"got {blocks} closed blocks, expected 1 to 5 of 6"):
            LateReading(visual, blocks, 10)
