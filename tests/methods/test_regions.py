"""What mask-based methods say of proposals: masks at the image's size, probabilities, and pixels' scores again."""

import functools

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_texts
from kit.images import randn
from ovs_lite.checkpoints import load_method
from ovs_lite.methods import METHODS, get_method, method_class

MASK_BASED = [name for name in METHODS if method_class(name).masks_of]
TO_SCORES = {"ovseg": {}, "uniovseg": {"quality_power": 1.0}}  # options with which scores are the sum of both


@functools.cache
def built(name):
    return load_method(name)


@pytest.fixture(params=MASK_BASED)
def method(request):
    return built(request.param)


@pytest.mark.parametrize("size", [(64, 64), (50, 91)])
def test_masks_and_probabilities_of_every_image(method, size):
    features, text = method.encode(randn(2, 3, *size)), random_texts(4, method.clip.embed_dim)
    found = method.regions(features, text)
    assert len(found) == 2
    for masks, probs in found:
        assert masks.shape[1:] == size and probs.shape == (len(masks), 4) and len(masks) > 1
        assert masks.min() >= 0 and masks.max() <= 1 and probs.min() >= 0 and probs.max() <= 1
        assert not masks.requires_grad and not probs.requires_grad and probs.std() > 0
    order = torch.tensor([2, 0, 3, 1])
    for (_, probs), (_, again) in zip(found, method.regions(features, text[order]), strict=True):
        torch.testing.assert_close(again, probs[:, order])


@pytest.mark.parametrize("name", TO_SCORES)
def test_their_sum_is_the_score_of_a_pixel(name):
    method = built(name)
    features, text = method.encode(randn(2, 3, 64, 64)), random_texts(4, method.clip.embed_dim)
    found = [torch.einsum("nk,nhw->khw", probs, masks) for masks, probs in method.regions(features, text)]
    torch.testing.assert_close(torch.stack(found), method.scores(features, text, **TO_SCORES[name]))


@pytest.mark.parametrize("name", ["openseg", "clip-proposals"])
def test_the_likeliest_class_has_the_largest_cosine(name):
    """Eq. 6 on one mask alone gives that mask's cosines, whose order the probabilities keep."""
    method = built(name)
    features, text = method.encode(randn(1, 3, 64, 64)), random_texts(4, method.clip.embed_dim)
    masks, probs = method.regions(features, text)[0]
    for number in (0, 5):
        alone = {"masks": features.masks[:, number : number + 1]}
        if hasattr(features, "regions"):
            alone["regions"] = features.regions[:, number : number + 1]
        scores = method.scores(type(features)(**{**vars(features), **alone}), text)[0]
        cosines = (scores * masks[number]).flatten(1).sum(1) / masks[number].square().sum()
        ratio = probs[number].log() - probs[number, 0].log()
        torch.testing.assert_close(ratio / ratio.abs().max(), F.normalize(cosines - cosines[0], p=torch.inf, dim=0))


def test_a_pixel_based_method_has_none():
    method = get_method("maskclip", built("ovseg").clip)
    with pytest.raises(ValueError, match="got the method maskclip, expected a mask-based one, which names masks"):
        method.regions(None, random_texts(1))
