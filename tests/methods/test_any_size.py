"""Images whose sides are no multiple of a backbone's coarsest cells: what is seen lies where it is.

Filling an image at the right and bottom with the backbone's mean colour, up to whole cells, is what happens inside; so
answers to the filled image, cropped, are those to the image.
"""

import pytest
import torch

from kit.clips import random_texts
from kit.images import randn
from kit.openseg import make_lseg, make_openseg
from kit.proposers import KINDS, make_proposer

HEIGHT, WIDTH = 37, 50


def filled(images, colour):
    """(B, 3, 37, 50) -> (B, 3, 64, 64)."""
    found = colour.expand(len(images), 3, 64, 64).clone()
    found[..., :HEIGHT, :WIDTH] = images
    return found


@torch.no_grad()
@pytest.mark.parametrize("make", [make_openseg, make_lseg])
def test_a_methods_scores_do_not_move(make):
    method, text = make(), random_texts(3, 16)
    own = method.network if make is make_lseg else method.proposer
    images = randn(2, 3, HEIGHT, WIDTH)
    whole = filled(images, (torch.as_tensor(own.mean).view(3, 1, 1) - method.clip.mean) / method.clip.std)
    expected = method.predict(whole, text)[..., :HEIGHT, :WIDTH]
    torch.testing.assert_close(method.predict(images, text), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_proposals_do_not_move(kind):
    proposer, images = make_proposer(kind), torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    masks, _ = proposer(images)
    expected, _ = proposer(filled(images, proposer.mean))
    torch.testing.assert_close(masks, expected[..., :HEIGHT, :WIDTH], atol=1e-5, rtol=1e-4)
