"""PAMR around any method: the same classes, sharper borders, and nothing else changed."""

import pytest
import torch

from ovs_lite.clip import load_clip
from ovs_lite.methods import get_method
from ovs_lite.methods.with_pamr import WithPamr


@pytest.fixture(scope="module")
def clip():
    return load_clip("ViT-Lite-8")


def words(clip, number=3):
    return torch.nn.functional.normalize(torch.randn(number, clip.embed_dim, generator=torch.manual_seed(1)), dim=1)


def test_a_picture_of_one_colour_is_only_smoothed(clip):
    """Every neighbour looks the same, so that refining is averaging: extremes shrink, the mean stays about."""
    method, flat = get_method("maskclip", clip), torch.zeros(1, 3, 128, 128)
    before, after = (m.predict(flat, words(clip)) for m in (method, WithPamr(method)))
    assert after.shape == before.shape
    assert (after.amax((2, 3)) <= before.amax((2, 3)) + 1e-5).all()
    assert (after.amin((2, 3)) >= before.amin((2, 3)) - 1e-5).all()
    assert torch.allclose(after.mean((2, 3)), before.mean((2, 3)), atol=0.02)


def test_scores_follow_the_border_between_two_colours(clip):
    """A method that puts the border ten pixels off: refined, most of those pixels change sides."""

    class Off(type(get_method("clip-cam", clip))):
        def scores(self, features, text_embeddings):
            scores = torch.zeros(len(features.patches), 2, *features.size)
            scores[:, 0, :, :74], scores[:, 1, :, 74:] = 1, 1
            return scores

    picture = torch.full((1, 3, 128, 128), -1.5)
    picture[..., 64:] = 1.5
    off = Off(clip)
    labels = [m.predict(picture, words(clip, 2)).argmax(1)[0, 20:108, 64:74].float() for m in (off, WithPamr(off))]
    assert labels[0].mean() == 0 and labels[1].mean() > 0.6


@pytest.mark.parametrize("size", [(64, 64), (50, 91)])
def test_any_size_and_the_methods_own_options(clip, size):
    refined = WithPamr(get_method("tcl", clip).eval())
    images = torch.randn(2, 3, *size, generator=torch.manual_seed(0))
    plain = refined.predict(images, words(clip), refine=False, kp_weight=0.0)
    assert plain.shape == (2, 3, *size) and torch.isfinite(plain).all()
    assert not torch.equal(plain, refined.predict(images, words(clip), refine=False, kp_weight=1.0))
    assert (refined.name, refined.background) == ("tcl + PAMR", 0.4) and refined.trained_part() is None
