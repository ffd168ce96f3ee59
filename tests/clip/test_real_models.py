"""The CLIPs that users bring, at their full size with random weights: all that the kit does with one."""

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_texts
from kit.images import randn
from ovs_lite.clip import load_clip
from ovs_lite.clip.crops import encode_regions
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.methods.registry import get_method
from ovs_lite.models.backbone import Backbone

REAL = {  # name: (native side, stride, D, methods besides those of every tower)
    "ViT-B-16": (224, 16, 512, ("sclip", "clearclip", "naclip", "tcl")),
    "ViT-L-14": (224, 14, 768, ("sclip",)),
    "RN50": (224, 32, 1024, ()),
    "convnext_large_d_320": (320, 32, 768, ()),
}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=REAL)
def real(request):
    torch.manual_seed(0)
    return load_clip(request.param, None), *REAL[request.param]


@torch.no_grad()
def test_dense_maps_of_a_picture_that_has_not_the_native_size(real):
    clip, side, stride, dim, _ = real
    assert (clip.image_size, clip.stride, clip.embed_dim) == (side, (stride, stride), dim)
    picture = randn(1, 3, 70, 90)
    for mode in ("value", "last"):
        found = clip.dense(picture, mode)
        assert found.shape == (1, dim, -(-70 // stride), -(-90 // stride)) and torch.isfinite(found).all()
        padded = F.pad(picture, (0, -90 % stride, 0, -70 % stride))
        torch.testing.assert_close(found, clip.dense(padded, mode), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_masked_crops_and_mask_prompts(real):
    clip, side, stride, dim, _ = real
    picture, masks = randn(3, 70, 90), torch.zeros(1, 70, 90, dtype=torch.bool)
    masks[0, 10:40, 20:60], masks[0, 10:25, 20:40] = True, False  # a quarter of its box is blank
    if clip.patch_size is None:
        with pytest.raises(ValueError, match=f"got mask prompts for {clip.name}, expected a ViT"):
            MaskPromptedClip(clip, 3)
    else:
        clip = MaskPromptedClip(clip, 3)
        assert clip.mask_embedding.shape == (3, (side // stride) ** 2, clip.network.visual.conv1.out_channels)
    if side // stride > 14:
        return  # ViT-L/14's 256 patches take half a minute, on the path of ViT-B/16
    found = encode_regions(clip, picture, masks)
    assert found.shape == (1, dim) and found.norm() == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_methods_without_training_of_the_size(real):
    clip, *_, dim, others = real
    picture = randn(1, 3, 70, 90)
    for name in ("clip-cam", "maskclip", *others):
        scores = get_method(name, clip).predict(picture, random_texts(3, dim))
        assert scores.shape == (1, 3, 70, 90) and scores.std() > 0
    if not others:
        with pytest.raises(ValueError, match=f"got the CLIP {clip.name}, .* expected a ViT for sclip"):
            get_method("sclip", clip)


@pytest.mark.parametrize("real", ["convnext_large_d_320"], indirect=True)
@torch.no_grad()
def test_its_convnet_is_a_backbone_of_proposals(real):
    trunk, picture = real[0].network.visual.trunk, randn(1, 3, 64, 96)
    maps = Backbone("convnext_large_mlp", trunk=trunk)(picture)
    assert [tuple(found.shape[1:]) for found in maps] == [(192, 16, 24), (384, 8, 12), (768, 4, 6), (1536, 2, 3)]
    torch.testing.assert_close(maps[-1], trunk.stages(trunk.stem(picture)), atol=1e-4, rtol=1e-3)
