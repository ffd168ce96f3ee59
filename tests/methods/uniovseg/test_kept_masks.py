"""Masks that several methods share: the same as without, and looked for once."""

import pytest
import torch

from kit.uniovseg import make_uniovseg
from ovs_lite.methods.uniovseg.kept_masks import KeptMasks
from ovs_lite.methods.uniovseg.method import UniOVSeg


@pytest.fixture
def method():
    return make_uniovseg()


def images(seed, count=3):
    return torch.rand(count, 3, 40, 32, generator=torch.Generator().manual_seed(seed))


def counted(segmenter):
    """The numbers of images that the segmenter looks at, one for each look."""
    looks, see = [], segmenter.see
    segmenter.see = lambda some: looks.append(len(some)) or see(some)
    return looks


@torch.no_grad()
def test_a_method_says_the_same_with_kept_masks(method):
    text = torch.nn.functional.normalize(torch.randn(4, method.clip.embed_dim), dim=1)
    wanted = method.predict(images(0), text)
    with_kept = UniOVSeg(method.clip, KeptMasks(method.prompter), method.config)
    with_kept.aligned.adapter.load_state_dict(method.aligned.adapter.state_dict())
    for _ in range(2):
        torch.testing.assert_close(with_kept.predict(images(0), text), wanted)
    assert with_kept.prompter.config == method.prompter.config


def test_an_image_is_looked_at_once_whichever_others_it_comes_with(method):
    kept, looks = KeptMasks(method.prompter), counted(method.prompter)
    first = kept.grid_masks(kept.see(images(0)))
    again = kept.grid_masks(kept.see(images(0)[[2, 0]]))
    assert looks == [1, 1, 1]
    for one, other in zip(again, (first[2], first[0]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    kept.grid_masks(kept.see(torch.cat([images(1, 1), images(0, 1)])))
    assert len(looks) == 4


def test_methods_that_share_masks_name_them_by_their_own_adapters(method):
    kept = KeptMasks(method.prompter)
    plain, moved = (UniOVSeg(method.clip, kept, method.config) for _ in range(2))
    moved.aligned.adapter.load_state_dict(method.aligned.adapter.state_dict())
    one, other = plain.encode(images(0)), moved.encode(images(0))
    assert torch.equal(one.mask_logits, other.mask_logits)
    assert not torch.allclose(one.regions, other.regions, atol=1e-3)
