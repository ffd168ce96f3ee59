"""Mask prompts on a miniature CLIP: what they replace, what they leave, and the cases at the edge."""

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip, tiny_clip
from kit.images import normal_images
from ovs_lite.clip import load_clip
from ovs_lite.clip.dense import penultimate_tokens
from ovs_lite.clip.mask_prompt import MaskPromptedClip, kept_patches, unread_token


def prompted(depth, clip=None, seed=2):
    torch.manual_seed(seed)
    return MaskPromptedClip(clip or tiny_clip(), depth).eval()


def images_and_masks(count=4, side=16):
    """Blank outside random boxes, as crops are."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, side // 2, (2,), generator=generator).tolist()
        mask[top : top + side // 2, left : left + side // 2] = True
    return normal_images(side, side, batch=count) * masks[:, None], masks


def test_a_patch_is_kept_by_a_single_pixel():
    masks = torch.zeros(3, 16, 16)
    masks[0, 7, 8], masks[1, 8:, :] = 0.1, 1
    assert kept_patches(masks, 8).tolist() == [[False, True, False, False], [False, False, True, True], [False] * 4]


@pytest.mark.parametrize("pool", ["tok", "avg"])
@torch.no_grad()
def test_no_prompts_is_the_plain_clip_whatever_the_masks(pool):
    clip = tiny_clip()
    clip.network.visual.pool_type = pool
    images, masks = images_and_masks()
    plain = clip.encode_image(images)
    torch.testing.assert_close(prompted(0, clip).encode_masked(images, masks), plain)
    prints = [other.image_fingerprint() for other in (clip, prompted(0, clip), prompted(1, clip), prompted(1, clip, 5))]
    assert prints[0] == prints[1] and len(set(prints)) == 3, "prompts are weights"
    whole = torch.ones_like(masks)
    torch.testing.assert_close(prompted(2, clip).encode_masked(images, whole), plain)
    assert not torch.allclose(prompted(2, clip).encode_masked(images, masks), plain, atol=1e-3)


@torch.no_grad()
def test_prompts_without_deviation_start_as_the_plain_clip_reads_blank_patches():
    clip, (images, masks) = tiny_clip(), images_and_masks()
    start = MaskPromptedClip(clip, 1, std=0.0).eval()
    torch.testing.assert_close(start.encode_masked(images, masks), clip.encode_image(images))
    assert not torch.allclose(prompted(1, clip).encode_masked(images, masks), clip.encode_image(images), atol=1e-3)


@torch.no_grad()
def test_what_lies_under_a_blank_patch_does_not_matter():
    images, masks = images_and_masks()
    model, hidden = prompted(1), ~kept_patches(masks, 8)
    outside = F.interpolate(hidden.float().view(-1, 1, 2, 2), scale_factor=8)
    other = images + 5 * outside * normal_images(16, 16, batch=4, seed=7)
    assert hidden.any() and not torch.equal(other, images)
    torch.testing.assert_close(model.encode_masked(other, masks), model.encode_masked(images, masks))


@torch.no_grad()
def test_every_layer_and_place_has_a_prompt_of_its_own():
    images, masks = images_and_masks(8)
    model, kept = prompted(2), kept_patches(masks, 8)
    before = model.encode_masked(images, masks)
    for layer in range(2):
        for place in range(4):
            changed = prompted(2)
            changed.mask_embedding[layer, place] += torch.linspace(-1, 2, 32).sin()
            moved = (changed.encode_masked(images, masks) - before).abs().amax(1) > 1e-4
            assert moved.tolist() == (~kept[:, place]).tolist(), (layer, place)


@torch.no_grad()
def test_prompts_of_the_last_block_stand_before_it_and_nowhere_else():
    images, masks = images_and_masks()
    torch.manual_seed(2)
    model = MaskPromptedClip(tiny_clip(), 1, last=True).eval()
    first = MaskPromptedClip(tiny_clip(), 1).eval()
    first.mask_embedding.copy_(model.mask_embedding[:1])
    kept = torch.cat([torch.ones(4, 1, dtype=torch.bool), kept_patches(masks, 8)], 1)[..., None]
    prompts = torch.cat([torch.zeros(1, 32), model.mask_embedding[1]])

    def replace(block, given):
        return (torch.where(kept, given[0], prompts), *given[1:])

    first.network.visual.transformer.resblocks[-1].register_forward_pre_hook(replace)
    assert (model.depth, len(model.mask_embedding)) == (1, 2)
    torch.testing.assert_close(model.encode_masked(images, masks), first.encode_masked(images, masks))
    whole = torch.ones_like(masks)
    torch.testing.assert_close(model.encode_masked(images, whole), tiny_clip().encode_image(images))


@pytest.mark.parametrize("make", [tiny_clip, lambda: load_clip("ViT-Lite-8", "lite")])
@torch.no_grad()
def test_the_class_token_reads_an_unread_prompt_less_than_blank_patches(make):
    """In every head than their mean, by PyTorch's own attention; and no head's logit falls less than another's."""
    visual = make().network.visual
    block, side = visual.transformer.resblocks[-1], visual.image_size[0]
    tokens, _ = penultimate_tokens(visual, torch.zeros(1, 3, side, side))
    tokens = torch.cat([tokens, unread_token(visual)[None, None]], 1)
    normed = block.ln_1(tokens)
    _, read = block.attn(normed, normed, normed, average_attn_weights=False)
    read = read[0, :, 0]  # (heads, tokens)
    assert (read[:, -1] < 0.6 * read[:, 1:-1].mean(1)).all(), read
    width, heads = block.attn.embed_dim, block.attn.num_heads
    queries, keys, _ = F.linear(normed[0], block.attn.in_proj_weight, block.attn.in_proj_bias).split(width, 1)
    logits = (queries[0] * (keys[-1] - block.attn.in_proj_bias[width : 2 * width])).view(heads, -1).sum(1)
    shift = block.attn.in_proj_weight[width : 2 * width] @ block.ln_1.bias
    slopes = logits - (queries[0] * shift).view(heads, -1).sum(1)
    torch.testing.assert_close(slopes, slopes.mean().expand(heads), rtol=1e-3, atol=1e-3)
    assert slopes.max() < 0


def test_prompts_of_the_last_block_are_learned_and_refused_where_nothing_is_read():
    images, masks = images_and_masks(1)
    masks = masks & (torch.arange(16) < 8)
    model = MaskPromptedClip(tiny_clip(), 0, last=True)
    model.encode_masked(images, masks)[0, :3].sum().backward()
    used = model.mask_embedding.grad.abs().sum(2) > 0
    assert (
        used.tolist() == (~kept_patches(masks, 8)).tolist()
        and model.image_fingerprint() != prompted(0).image_fingerprint()
    )
    first, last = MaskPromptedClip(tiny_clip(), 1, std=0.0), MaskPromptedClip(tiny_clip(), 0, last=True)
    torch.nn.init.zeros_(last.mask_embedding)
    assert first.image_fingerprint() != last.image_fingerprint(), "equal numbers in another place"
    with pytest.raises(ValueError, match="depth 2, expected 0 to 1, the blocks of tiny but its last one"):
        MaskPromptedClip(tiny_clip(), 2, last=True)
    clip = tiny_clip()
    clip.network.visual.pool_type = "avg"
    with pytest.raises(ValueError, match="pooling 'avg', expected one whose answer is its class token"):
        MaskPromptedClip(clip, 1, last=True)


@torch.no_grad()
def test_none_one_and_blank_regions_are_defined():
    images, masks = images_and_masks(3)
    model = prompted(2)
    every = model.encode_masked(images, masks)
    torch.testing.assert_close(model.encode_masked(images[:1], masks[:1]), every[:1])
    assert model.encode_masked(images[:0], masks[:0]).shape == (0, 16)
    nothing = torch.zeros_like(masks)
    blank = model.encode_masked(images, nothing)
    assert blank.isfinite().all() and torch.allclose(blank[0], blank[1]), "of a blank crop only prompts are read"
    order = [2, 0, 1]
    torch.testing.assert_close(model.encode_masked(images[order], masks[order]), every[order])


def test_gradients_reach_prompts_that_were_used_and_the_weights_are_a_copy():
    clip = tiny_clip()
    images, masks = images_and_masks(1)
    masks = masks & (torch.arange(16) < 8)  # the right half is blank
    model = prompted(2, clip).double()
    kept = kept_patches(masks, 8)[0]
    model.encode_masked(images.double(), masks)[0, :3].sum().backward()
    used = model.mask_embedding.grad.abs().sum(2) > 0
    assert used.tolist() == [(~kept).tolist()] * 2
    assert model.network.visual.proj.grad is not None and clip.network.visual.proj.grad is None
    start = model.mask_embedding.detach().clone()

    def score(prompts):
        with torch.no_grad():
            model.mask_embedding.copy_(prompts)
            return model.encode_masked(images.double(), masks)[0, :3].sum()

    step = torch.zeros_like(start)
    layer, place = 1, int((~kept).nonzero()[0])
    step[layer, place, 5] = 1e-6
    slope = (score(start + step) - score(start - step)) / 2e-6
    score(start)
    assert slope.item() == pytest.approx(model.mask_embedding.grad[layer, place, 5].item(), rel=1e-4)


def test_other_towers_depths_and_sizes_are_refused():
    with pytest.raises(ValueError, match="mask prompts for ConvNeXt-Lite, expected a ViT"):
        MaskPromptedClip(random_clip("ConvNeXt-Lite"), 1)
    for depth in (-1, 3):
        with pytest.raises(ValueError, match=f"depth {depth}, expected 0 to 2"):
            MaskPromptedClip(tiny_clip(), depth)
    images, masks = images_and_masks()
    for wrong in ((images[:, :2], masks), (images, masks[:3]), (images, masks[:, :8]), (images[:, :, :8], masks)):
        with pytest.raises(ValueError, match=r"expected \(N, 3, 16, 16\) and \(N, 16, 16\)"):
            prompted(1).encode_masked(*wrong)
