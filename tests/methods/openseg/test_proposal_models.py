"""Both proposal models: shapes at any picture size, images on their own, products and cosines, and who learns."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit.images import normal_images
from ovs_lite.methods.maskformer.proposer import TEMPERATURE, MaskFormer, MaskFormerOutput
from ovs_lite.methods.openseg.proposer import OpenSegProposals
from ovs_lite.models.backbone import Backbone
from ovs_lite.models.fpn import PixelHead, PyramidSum
from ovs_lite.models.query_decoder import sine_positions

NAME = "test_convnext"  # timm's smallest pyramid: 24 to 64 channels
SIZES = [(64, 64), (32, 96), (33, 65), (20, 7), (1, 1)]
SMALL = {"channels": 16, "num_queries": 9, "heads": 2}


def openseg(**options):
    torch.manual_seed(0)
    return OpenSegProposals(Backbone(NAME), **{**SMALL, "layers": 2, "grid": (16, 16), **options})


def maskformer(**options):
    torch.manual_seed(0)
    return MaskFormer(Backbone(NAME), **{**SMALL, "embed_dim": 12, "layers": 3, **options})


def without_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


def outputs(found):
    """The tensors of either model's answer, masks first."""
    return [found] if isinstance(found, torch.Tensor) else [found[-1].mask_logits, found[-1].embeddings]


def quarter(height, width):
    """Of the image padded to whole cells of stride 32."""
    return 8 * math.ceil(height / 32), 8 * math.ceil(width / 32)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_openseg_gives_n_masks_at_a_quarter_of_any_size(height, width):
    model = openseg().eval()
    logits = model(normal_images(height, width))
    assert isinstance(logits, torch.Tensor), "masks alone: neither classes nor scores nor a 'no object'"
    assert logits.shape == (2, 9, *quarter(height, width)) and logits.isfinite().all()
    features = model.pixel_features(normal_images(height, width))
    assert features.shape == (2, 16, *quarter(height, width))
    torch.testing.assert_close(model.masks(features), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maskformer_gives_masks_and_unit_embeddings_after_every_layer(height, width):
    answers = maskformer().eval()(normal_images(height, width))
    assert len(answers) == 3 and all(isinstance(answer, MaskFormerOutput) for answer in answers)
    for answer in answers:
        assert answer.mask_logits.shape == (2, 9, *quarter(height, width)) and answer.mask_logits.isfinite().all()
        assert answer.embeddings.shape == (2, 9, 12)
        torch.testing.assert_close(answer.embeddings.norm(dim=-1), torch.ones(2, 9))
    assert not torch.allclose(answers[0].mask_logits, answers[-1].mask_logits, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("make", [openseg, maskformer])
def test_an_image_alone_equals_the_image_in_a_batch(make):
    model, batch = make().double().train(), normal_images(40, 36, batch=3).double()
    together = outputs(model(batch))
    for number in range(3):
        for many, one in zip(together, outputs(model(batch[number : number + 1])), strict=True):
            torch.testing.assert_close(many[number], one[0], rtol=1e-5, atol=1e-5)
            assert not torch.allclose(many[number - 1], one[0], atol=1e-3), "another image, another answer"


@torch.no_grad()
@pytest.mark.parametrize("make", [openseg, maskformer])
def test_queries_start_with_different_masks(make):
    logits = outputs(make(num_queries=32).eval()(normal_images(64, 64, batch=1)))[0].flatten(2)[0]
    centred = F.normalize(logits - logits.mean(1, keepdim=True), dim=1)
    spread = torch.cdist(logits, logits) + 1e9 * torch.eye(32)
    assert spread.min() > 0.1 * logits.norm(dim=1).mean() and (centred @ centred.T - torch.eye(32)).max() < 0.999


def test_every_weight_of_openseg_learns():
    model = openseg()
    model(normal_images(64, 64)).square().mean().backward()
    assert without_gradient(model) == set()


def test_every_weight_of_maskformer_learns_but_the_smoothing_of_levels_it_does_not_read():
    model = maskformer()
    texts = F.normalize(torch.randn(5, 12), dim=1)
    answers = model(normal_images(64, 64))
    masks = sum(a.mask_logits.square().mean() for a in answers)
    (masks + sum(model.class_logits(a.embeddings, texts).softmax(-1)[..., 0].mean() for a in answers)).backward()
    unread = {f"pyramid.layer_blocks.{level}.0.{part}" for level in (1, 2, 3) for part in ("weight", "bias")}
    assert without_gradient(model) == unread


@pytest.mark.parametrize("make", [openseg, maskformer])
def test_half_precision_autocast_gives_finite_masks_and_gradients(make):
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        logits = outputs(model(normal_images(64, 64)))[0]
    logits.float().sigmoid().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()) and logits.isfinite().all()


@torch.no_grad()
def test_learned_positions_are_resized_and_matter():
    model = openseg(grid=(16, 16)).eval()
    features = model.pixel_features(normal_images(64, 48))
    before = model.masks(features)
    model.positions.copy_(torch.arange(16.0).expand(16, 16, 16))  # grows to the right only
    moved = model.masks(features)
    assert not torch.allclose(before, moved, atol=1e-3)
    small = openseg(grid=features.shape[-2:]).eval()
    resized = F.interpolate(model.positions[None], features.shape[-2:], mode="bilinear", align_corners=False)[0]
    small.load_state_dict(model.state_dict() | {"positions": resized})
    torch.testing.assert_close(small.masks(features), moved, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_learned_positions_start_as_sine_waves():
    found = openseg(grid=(5, 7)).positions
    torch.testing.assert_close(found.flatten(1).T, sine_positions(5, 7, 16))


@torch.no_grad()
def test_mask_logits_are_products_of_queries_with_placed_pixels():
    """s = sigmoid(q . F_s^PE), recomputed pixel by pixel."""
    model = openseg().eval()
    features = model.pixel_features(normal_images(16, 32, batch=1))
    placed = model.mask_head(features) + F.interpolate(model.positions[None], (8, 8), mode="bilinear")
    tokens = placed.flatten(2).transpose(1, 2)
    queries = model.to_mask(model.decoder(tokens, torch.zeros(64, 16))[-1])[0]
    logits = model.masks(features)[0]
    for n in range(9):
        for y, x in itertools.product(range(8), range(8)):
            expected = sum(float(queries[n, c]) * float(placed[0, c, y, x]) for c in range(16))
            assert float(logits[n, y, x]) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_class_logits_are_a_hundred_cosines_with_no_object_last():
    model = maskformer()
    model.no_object.mul_(7)  # its length must not count
    embeddings, texts = (F.normalize(torch.randn(*shape), dim=-1) for shape in ((2, 9, 12), (5, 12)))
    logits = model.class_logits(embeddings, texts)
    assert logits.shape == (2, 9, 6) and TEMPERATURE == 100
    for b, n, (k, other) in itertools.product(range(2), range(9), enumerate([*texts, model.no_object])):
        cosine = F.cosine_similarity(embeddings[b, n], other, dim=0)
        assert float(logits[b, n, k]) == pytest.approx(100 * float(cosine), abs=1e-3)
    assert model.class_logits(embeddings, texts[:0]).shape == (2, 9, 1)


@torch.no_grad()
def test_the_pyramid_is_the_sum_of_all_levels_at_stride_4():
    torch.manual_seed(0)
    merged = PyramidSum(Backbone(NAME), 16).eval()
    maps = merged.backbone(normal_images(33, 50))
    levels = merged.pyramid({str(i): level for i, level in enumerate(maps)})
    expected = torch.zeros(2, 16, 16, 16)
    for level in levels.values():
        expected += F.interpolate(level, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(merged(normal_images(33, 50)), expected, rtol=1e-4, atol=1e-4)


def test_the_pixel_head_sees_a_neighbourhood_of_three_convolutions():
    """A pixel's answer moves with pixels at most 3 away, but for the normalisation, which is switched off here."""
    torch.manual_seed(0)
    head = PixelHead(16)
    assert [type(layer).__name__ for layer in head] == ["Conv2d", *["GroupNorm", "ReLU", "Conv2d"] * 3]
    local = nn.Sequential(*(layer for layer in head if not isinstance(layer, nn.GroupNorm)))
    pixels = torch.randn(1, 16, 11, 11, requires_grad=True)
    local(pixels)[0, :, 5, 5].sum().backward()
    seen = pixels.grad[0].abs().sum(0) > 0
    assert seen[2:9, 2:9].any() and seen.sum() == seen[2:9, 2:9].sum() and seen[2].any() and seen[:, 8].any()
