"""Scores of more classes than a few lie side by side in memory, on the way through PAMR too, and are the same."""

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from ovs_lite.methods import get_method
from ovs_lite.methods.with_pamr import WithPamr
from ovs_lite.regions.score_maps import FEW


@pytest.mark.parametrize("name, options", [("tcl", {"refine": False}), ("tcl", {}), ("maskclip", {})])
@pytest.mark.parametrize("size", [(64, 64), (40, 52)])
@torch.no_grad()
def test_all_at_once_as_one_by_one(name, options, size):
    torch.manual_seed(0)
    clip = random_clip()
    method = get_method(name, clip) if name == "tcl" else WithPamr(get_method(name, clip))
    text = F.normalize(torch.randn(FEW + 5, clip.embed_dim), dim=1)
    features = method.encode(torch.randn(2, 3, *size))
    found = method.scores(features, text, **options)
    alone = torch.cat([method.scores(features, one[None], **options) for one in text], 1)
    assert found.shape == (2, FEW + 5, *size) and found.stride(1) == 1
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
