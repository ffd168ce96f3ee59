"""CLIP-CAM and MaskCLIP: cosines against a loop over pixels, and what a score may and may not depend on."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit.clips import random_clip, random_texts
from kit.images import randn
from ovs_lite.methods import METHODS, Method, get_method, method_class
from ovs_lite.methods.base import upsample_to
from ovs_lite.models.text_masks import patch_cosines

SHIPPED = ["ViT-Lite-8", "ConvNeXt-Lite"]
MODES = {"maskclip": "value", "clip-cam": "last"}


@pytest.fixture(scope="module")
def clips():
    return {name: random_clip(name) for name in SHIPPED}


@pytest.fixture(params=[*itertools.product(MODES, SHIPPED)], ids="-".join)
def method(request, clips):
    name, clip = request.param
    return get_method(name, clips[clip])


def slow_scores(patches, text, height, width, stride):
    """For one picture: the four nearest patch centres of every pixel, each with its cosine, by loops."""
    h, w = patches.shape[1:]
    cosine = torch.stack([F.cosine_similarity(patches, row[:, None, None], dim=0) for row in text])
    scores = torch.zeros(len(text), height, width)
    for y, x in itertools.product(range(height), range(width)):
        v, u = max(0.0, (y + 0.5) / stride - 0.5), max(0.0, (x + 0.5) / stride - 0.5)
        top, left = int(v), int(u)
        for i, j in itertools.product((top, top + 1), (left, left + 1)):
            share = (1 - abs(v - i)) * (1 - abs(u - j))
            scores[:, y, x] += share * cosine[:, min(i, h - 1), min(j, w - 1)]
    return scores


@pytest.mark.parametrize("height, width", [(64, 64), (40, 70), (33, 9)])
@torch.no_grad()
def test_scores_equal_a_loop_over_pixels(height, width, method):
    images, text, stride = randn(1, 3, height, width), random_texts(3), method.clip.patch_size or 32
    patches = method.clip.dense(images, MODES[method.name])[0]
    expected = slow_scores(patches, text, height, width, stride)
    torch.testing.assert_close(method.predict(images, text)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("height, width", [(64, 64), (40, 70), (7, 100)])
def test_shape_range_and_determinism(height, width, method):
    images, text = randn(2, 3, height, width), random_texts(5)
    scores = method.predict(images, text)
    assert scores.shape == (2, 5, height, width) and scores.dtype == torch.float32 and not scores.requires_grad
    assert torch.isfinite(scores).all() and scores.abs().max() <= 1 + 1e-5
    assert (method.predict(images, text) == scores).all()
    assert (scores[0] - scores[1]).abs().max() > 1e-4 and (scores[:, 0] - scores[:, 1]).abs().max() > 1e-4


def test_the_order_of_queries_and_their_company_change_nothing(method):
    images, text = randn(2, 3, 48, 80), random_texts(6)
    scores, order = method.predict(images, text), torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(method.predict(images, text[order]), scores[:, order], atol=1e-6, rtol=1e-5)
    for k in range(6):
        alone = method.predict(images, text[k : k + 1])
        torch.testing.assert_close(alone, scores[:, k : k + 1], atol=1e-6, rtol=1e-5)


def test_a_picture_alone_and_in_a_batch(method):
    images, text = randn(3, 3, 48, 80), random_texts(4)
    alone = torch.cat([method.predict(image[None], text) for image in images])
    torch.testing.assert_close(method.predict(images, text), alone, atol=1e-5, rtol=1e-4)


def test_a_patch_that_is_itself_a_query_wins_where_it_lies(method):
    images, stride = randn(1, 3, 96, 64), method.clip.patch_size or 32
    patches = F.normalize(method.clip.dense(images, MODES[method.name]), dim=1)[0].detach()  # (D, h, w)
    scores = method.predict(images, patches.flatten(1).T)
    centres = scores[0].argmax(0)[stride // 2 :: stride, stride // 2 :: stride]
    assert (centres.flatten() == torch.arange(centres.numel())).float().mean() > 0.95
    assert float(scores.max()) == pytest.approx(1, abs=0.05)


def test_the_two_methods_differ_on_a_vit_and_agree_on_a_convnet(clips):
    images, text = randn(1, 3, 64, 64), random_texts(3)
    for name, differ in (("ViT-Lite-8", True), ("ConvNeXt-Lite", False)):
        first, second = (get_method(method, clips[name]).predict(images, text) for method in MODES)
        assert ((first - second).abs().max() > 1e-4) == differ


def test_scores_can_be_differentiated_and_ignore_the_length_of_patches(clips):
    clip, images = clips["ViT-Lite-8"], randn(1, 3, 64, 64).requires_grad_()
    patches = clip.dense(images, "value")
    scores = upsample_to(clip, patch_cosines(patches, random_texts(2)), (64, 64))
    scores.sum().backward()
    assert images.grad.abs().sum() > 0
    torch.testing.assert_close(upsample_to(clip, patch_cosines(7 * patches, random_texts(2)), (64, 64)), scores)


def test_methods_are_found_by_name(clips):
    clip = clips["ViT-Lite-8"]
    for name in METHODS:
        kind = method_class(name)
        assert issubclass(kind, Method) and kind.name == name
        if kind.load_own is None:
            method = get_method(name, clip)
            assert type(method) is kind and isinstance(method, nn.Module) and method.clip is clip
    with pytest.raises(ValueError, match="'mask-clip', expected one of maskclip, clip-cam.*did you mean 'maskclip'"):
        get_method("mask-clip", clip)
    with pytest.raises(TypeError, match="Method must define encode"):
        Method(clip).predict(randn(1, 3, 8, 8), random_texts(1))
    with pytest.raises(TypeError, match="Method must define scores"):
        Method(clip).scores(None, random_texts(1))
    with pytest.raises(ValueError, match="got option 'refine', expected one of key_smoothing"):
        get_method("maskclip", clip).predict(randn(1, 3, 64, 64), random_texts(1), refine=True)
