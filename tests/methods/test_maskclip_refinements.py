"""Key smoothing and prompt denoising against loops over patches; what they may and may not depend on."""

import math

import pytest
import torch
import torch.nn.functional as F

from ovs_lite.clip import load_clip
from ovs_lite.clip.dense import key_features, penultimate_tokens
from ovs_lite.methods import get_method
from ovs_lite.methods.maskclip import denoise_prompts, smooth_by_keys

OPTIONS = [
    {"key_smoothing": "released"},
    {"key_smoothing": "paper"},
    {"prompt_denoising": 0.5},
    {"key_smoothing": "released", "prompt_denoising": 0.5},
]


@pytest.fixture(scope="module")
def method():
    return get_method("maskclip", load_clip("ViT-Lite-8"))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(batch=2, classes=3, height=2, width=4, seed=0):
    return 0.01 * randn(batch, classes, height, width, seed=seed)


def slow_denoise(scores, threshold):
    result = scores.clone()
    for b in range(scores.shape[0]):
        for k in range(scores.shape[1]):
            best = 0.0
            for y in range(scores.shape[2]):
                for x in range(scores.shape[3]):
                    powers = [math.exp(100 * float(score)) for score in scores[b, :, y, x]]
                    best = max(best, powers[k] / sum(powers))
            if best < threshold:
                result[b, k] = -100
    return result


def slow_smooth(predictions, keys, smoothing):
    """For one picture, every pair of patches apart. predictions: (K, n), keys: (W, n)."""
    along = 1 if smoothing == "released" else 0
    keys = keys / keys.square().sum(along, keepdim=True).sqrt()
    result = torch.zeros_like(predictions)
    for i in range(keys.shape[1]):
        for j in range(keys.shape[1]):
            result[:, i] += sum(float(a * b) for a, b in zip(keys[:, i], keys[:, j], strict=True)) * predictions[:, j]
    return result


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_denoising_equals_a_loop_over_patches(threshold):
    scores = cosines(batch=6)
    found = denoise_prompts(scores, threshold)
    torch.testing.assert_close(found, slow_denoise(scores, threshold))
    assert (found == -100).any() and (found != -100).any()


@pytest.mark.parametrize("smoothing", ["released", "paper"])
def test_smoothing_equals_a_loop_over_pairs_of_patches(smoothing):
    predictions, keys = randn(2, 3, 2, 4), randn(2, 5, 2, 4, seed=1)
    found = smooth_by_keys(predictions, keys, smoothing)
    for b in range(2):
        expected = slow_smooth(predictions[b].flatten(1), keys[b].flatten(1), smoothing)
        torch.testing.assert_close(found[b].flatten(1), expected)


def test_the_two_smoothings_ignore_different_lengths():
    predictions, keys = randn(1, 3, 2, 4), randn(1, 5, 2, 4, seed=1)
    of_patches, of_channels = torch.arange(1.0, 9).view(1, 1, 2, 4), torch.arange(1.0, 6).view(1, 5, 1, 1)
    for smoothing, ignored, seen in (("paper", of_patches, of_channels), ("released", of_channels, of_patches)):
        plain = smooth_by_keys(predictions, keys, smoothing)
        torch.testing.assert_close(smooth_by_keys(predictions, keys * ignored, smoothing), plain)
        assert (smooth_by_keys(predictions, keys * seen, smoothing) - plain).abs().max() > 0.01


def test_smoothing_follows_the_patches_wherever_they_lie():
    predictions, keys, order = randn(1, 3, 1, 8), randn(1, 5, 1, 8, seed=1), torch.randperm(8)
    for smoothing in ("released", "paper"):
        shuffled = smooth_by_keys(predictions[..., order], keys[..., order], smoothing)
        torch.testing.assert_close(shuffled, smooth_by_keys(predictions, keys, smoothing)[..., order])


def test_a_patch_takes_the_prediction_of_the_patches_with_its_key():
    keys = torch.eye(2)[:, [0, 0, 0, 1]].view(1, 2, 1, 4)  # three patches of one kind, one of another
    predictions = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.9, 0.8]]).view(1, 2, 1, 4)
    found = smooth_by_keys(predictions, keys, "paper")[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([[1.8, 1.8, 1.8, 0.2], [1.2, 1.2, 1.2, 0.8]]))
    by_thirds = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])
    torch.testing.assert_close(smooth_by_keys(predictions, keys, "released")[0, :, 0], found * by_thirds)


def test_one_class_none_and_every_class_unsure():
    alone = cosines(classes=1)
    assert torch.equal(denoise_prompts(alone, 1.0), alone), "its probability is 1"
    assert denoise_prompts(cosines(classes=0), 0.5).shape == (2, 0, 2, 4)
    assert smooth_by_keys(cosines(classes=0), randn(2, 5, 2, 4), "paper").shape == (2, 0, 2, 4)
    even = torch.zeros(1, 4, 2, 2)
    assert torch.equal(denoise_prompts(even, 0.25), even) and (denoise_prompts(even, 0.26) == -100).all()


def test_denoising_is_for_each_picture_alone():
    scores = torch.zeros(2, 2, 1, 1)
    scores[0, 0], scores[1, 1] = 0.1, 0.1
    found = denoise_prompts(scores, 0.5)[..., 0, 0]
    assert torch.equal(found, torch.tensor([[0.1, -100], [-100, 0.1]]))


@torch.no_grad()
def test_keys_are_what_the_attention_compares(method):
    """The block's own attention weights, from queries and keys by hand."""
    visual = method.clip.network.visual
    tokens, _ = penultimate_tokens(visual, randn(2, 3, 64, 48))
    block = visual.transformer.resblocks[-1]
    attention, normed = block.attn, block.ln_1(tokens)
    weights = attention(normed, normed, normed, need_weights=True, average_attn_weights=False)[1]  # (B, heads, n, n)
    width, heads = attention.embed_dim, attention.num_heads
    queries = F.linear(normed, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    keys = key_features(block, tokens)
    queries, split = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (queries, keys))
    found = (queries @ split.transpose(2, 3) / math.sqrt(width // heads)).softmax(-1)
    torch.testing.assert_close(found, weights, atol=1e-5, rtol=1e-4)
    projected = key_features(block, tokens, through_output=True)
    torch.testing.assert_close(projected, F.linear(keys, attention.out_proj.weight, attention.out_proj.bias))
    assert (projected - keys).abs().max() > 0.1


@pytest.mark.parametrize("height, width", [(64, 64), (40, 70)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_predict_refines_patches_and_then_upsamples(method, options, height, width):
    images, text = randn(2, 3, height, width), method.clip.text_embeddings(["cat", "grass", "sky", "snow"])
    padded = F.pad(images, (0, -width % 8, 0, -height % 8))
    patches = F.normalize(method.clip.dense(images, "value"), dim=1)
    scores = torch.einsum("bdhw,kd->bkhw", patches, text)
    if "prompt_denoising" in options:
        scores = slow_denoise(scores, 0.5)
        assert (scores == -100).any()
    smoothing = options.get("key_smoothing")
    if smoothing:
        visual = method.clip.network.visual
        tokens, grid = penultimate_tokens(visual, padded)
        keys = key_features(visual.transformer.resblocks[-1], tokens, smoothing == "released")[:, 1:]
        keys = keys.transpose(1, 2).unflatten(2, grid)
        scores = smooth_by_keys((100 * scores).softmax(1), keys, smoothing)
    expected = F.interpolate(scores, padded.shape[-2:], mode="bilinear")[..., :height, :width]
    found = method.predict(images, text, **options)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - method.predict(images, text)).abs().max() > 0.1


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_order_of_queries_and_the_company_of_pictures_change_nothing(method, options):
    images, text = randn(3, 3, 48, 80), method.clip.text_embeddings(["cat", "grass", "sky", "snow", "car"])
    scores, order = method.predict(images, text, **options), torch.tensor([3, 0, 1, 4, 2])
    torch.testing.assert_close(method.predict(images, text[order], **options), scores[:, order], atol=1e-4, rtol=1e-4)
    alone = torch.cat([method.predict(image[None], text, **options) for image in images])
    torch.testing.assert_close(alone, scores, atol=1e-4, rtol=1e-4)


def test_wrong_options_are_named(method):
    images, text = randn(1, 3, 64, 64), method.clip.text_embeddings(["cat"])
    with pytest.raises(ValueError, match="key_smoothing='both', expected None, 'released' or 'paper'"):
        method.predict(images, text, key_smoothing="both")
    for wrong in (True, -0.1, 50, "0.5"):
        with pytest.raises(ValueError, match=f"prompt_denoising={wrong!r}, expected a probability"):
            method.predict(images, text, prompt_denoising=wrong)
    convnet = get_method("maskclip", load_clip("ConvNeXt-Lite", pretrained=None))
    with pytest.raises(ValueError, match="key_smoothing with ConvNeXt-Lite, which has no block with keys; use a ViT"):
        convnet.predict(images, text, key_smoothing="paper")
    assert convnet.predict(images, text, prompt_denoising=0.5).shape == (1, 1, 64, 64)
