"""Dense CLIP against attention written out with q, k, v and a mask; positions; padding; towers that are refused."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from torch import nn

from kit.clips import random_clip, shaken
from kit.images import randn
from ovs_lite.clip import wrap_clip
from ovs_lite.clip.dense import check_family, dense_maps, is_mean_of_map, map_projection, patch_stride, resize_positions


def dense_map(tower, images, mode="value"):
    return dense_maps(tower, images, (mode,))[0]


@pytest.fixture(scope="module")
def vit():
    return shaken(random_clip())


@pytest.fixture(scope="module")
def convnet():
    return shaken(random_clip("ConvNeXt-Lite"))


def slow_block(block, tokens, mask):
    """A pre-norm block with every head's softmax(q k^T / sqrt(d) + mask) v in plain sight."""
    attention, outputs = block.attn, []
    width = attention.embed_dim // attention.num_heads
    x = block.ln_1(tokens)
    wq, wk, wv = attention.in_proj_weight.chunk(3)
    bq, bk, bv = attention.in_proj_bias.chunk(3)
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = x @ wq[part].T + bq[part], x @ wk[part].T + bk[part], x @ wv[part].T + bv[part]
        outputs.append((q @ k.transpose(1, 2) / width**0.5 + mask).softmax(-1) @ v)
    tokens = tokens + torch.cat(outputs, -1) @ attention.out_proj.weight.T + attention.out_proj.bias
    return tokens + block.mlp(block.ln_2(tokens))


def slow_dense(visual, images, alone: bool):
    """Patch tokens, all blocks by `slow_block`; alone: in the last one every token sees only itself."""
    tokens = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([cls, tokens], 1) + visual.positional_embedding)
    count = tokens.shape[1]
    only_itself = torch.full((count, count), float("-inf")).fill_diagonal_(0)
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        tokens = slow_block(block, tokens, only_itself if alone and i == len(blocks) - 1 else 0)
    return (visual.ln_post(tokens[:, 1:]) @ visual.proj).transpose(1, 2).unflatten(2, (8, 8))


@pytest.mark.parametrize("mode", ["value", "last"])
@torch.no_grad()
def test_both_modes_equal_attention_written_out(mode, vit):
    images = randn(2, 3, 64, 64)
    expected = slow_dense(vit.network.visual, images, alone=mode == "value")
    torch.testing.assert_close(vit.dense(images, mode), expected, atol=1e-5, rtol=1e-5)
    other = slow_dense(vit.network.visual, images, alone=mode != "value")
    assert (expected - other).abs().max() > 1e-2


@torch.no_grad()
def test_last_equals_the_patch_tokens_of_open_clip(vit):
    visual, images = vit.network.visual, randn(2, 3, 64, 64)
    visual.output_tokens = True
    try:
        _, tokens = visual(images)
    finally:
        visual.output_tokens = False
    expected = (tokens @ visual.proj).transpose(1, 2).unflatten(2, (8, 8))
    torch.testing.assert_close(vit.dense(images, "last"), expected, atol=1e-5, rtol=1e-5)
    assert (vit.dense(images) == vit.dense(images, "value")).all()


@torch.no_grad()
def test_positions_keep_the_class_token_and_are_untouched_at_native_size():
    embedding = randn(1 + 8 * 8, 16)
    assert resize_positions(embedding, (8, 8)) is embedding
    resized = resize_positions(embedding, (12, 5))
    assert resized.shape == (1 + 60, 16) and (resized[0] == embedding[0]).all()
    plane = F.interpolate(embedding[1:, 3].view(1, 1, 8, 8), (12, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized[1:, 3].view(12, 5), plane[0, 0])
    ramp = torch.cat([embedding[:1, :1], torch.arange(8.0).repeat_interleave(8)[:, None]])  # row number of each patch
    rows = resize_positions(ramp, (16, 8))[1:, 0].view(16, 8)
    assert (rows == rows[:, :1]).all() and (rows[1:, 0] > rows[:-1, 0]).all()


@pytest.mark.parametrize("tower", ["vit", "convnet"])
@pytest.mark.parametrize("height, width", [(1, 1), (20, 20), (31, 64), (100, 33), (63, 97)])
@torch.no_grad()
def test_sides_that_are_no_multiple_are_padded_with_the_mean_colour(tower, height, width, request):
    clip = request.getfixturevalue(tower)
    stride, images = patch_stride(clip.network.visual)[0], randn(2, 3, height, width)
    assert stride == (8 if tower == "vit" else 32)
    padded = torch.zeros(2, 3, -(-height // stride) * stride, -(-width // stride) * stride)
    padded[..., :height, :width] = images
    dense = clip.dense(images)
    assert dense.shape == (2, clip.embed_dim, padded.shape[2] // stride, padded.shape[3] // stride)
    torch.testing.assert_close(dense, clip.dense(padded))


@torch.no_grad()
def test_the_mean_over_a_convnets_map_is_the_image_embedding(convnet):
    images = randn(3, 3, 64, 96)
    dense = convnet.dense(images)
    assert dense.shape == (3, convnet.embed_dim, 2, 3)
    torch.testing.assert_close(dense.mean((2, 3)), convnet.network.encode_image(images), atol=1e-5, rtol=1e-5)
    assert (convnet.dense(images, "last") == dense).all()


@torch.no_grad()
def test_the_mean_over_the_map_is_the_image_embedding_where_the_kit_says_so(vit, convnet):
    network, images = convnet.network, randn(2, 3, 64, 64)
    assert is_mean_of_map(network.visual) and not is_mean_of_map(vit.network.visual)
    torch.testing.assert_close(dense_map(network.visual, images, "last").mean((2, 3)), network.encode_image(images))


@torch.no_grad()
def test_a_class_token_or_a_late_norm_is_no_mean_of_the_map():
    sizes = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    for more in ({"pool_type": "tok"}, {"pool_type": "avg", "final_ln_after_pool": True}):
        tower = shaken(_build_vision_tower(12, CLIPVisionCfg(**sizes, **more)))
        images = randn(2, 3, 32, 32)
        assert not is_mean_of_map(tower)
        assert not torch.allclose(dense_map(tower, images, "last").mean((2, 3)), tower(images), atol=1e-3)


@pytest.mark.parametrize("tower", ["vit", "convnet"])
@torch.no_grad()
def test_a_picture_alone_and_in_a_batch(tower, request):
    clip, images = request.getfixturevalue(tower), randn(3, 3, 64, 96)
    for mode in ("value", "last"):
        torch.testing.assert_close(clip.dense(images, mode)[1:2], clip.dense(images[1:2], mode), atol=1e-5, rtol=1e-4)


def test_dense_is_differentiable_in_the_image(vit):
    images = randn(1, 3, 64, 64).requires_grad_()
    vit.dense(images)[0, :, 2, 5].sum().backward()
    assert images.grad.abs().sum() > 0


def test_an_unknown_mode_is_named(vit):
    with pytest.raises(ValueError, match="'first', expected one of value, last"):
        vit.dense(randn(1, 3, 64, 64), "first")


@pytest.fixture(scope="module")
def resnet():
    """A small one of OpenAI's ResNets: attention pool with 4 heads over 2 x 2 places of 128 channels."""
    torch.manual_seed(0)
    config = CLIPVisionCfg(layers=(1, 1, 1, 1), width=4, head_width=32, image_size=64)
    return shaken(_build_vision_tower(16, config)).eval()


def slow_pool(pool, features, alone):
    """Every place asks, one head after the other. alone: it sees itself only, and no position is added."""
    places = features.flatten(1).T  # (h * w, C)
    tokens = torch.cat([places.mean(0, keepdim=True), places])
    if not alone:
        tokens = tokens + pool.positional_embedding
    width, found = tokens.shape[1] // pool.num_heads, []
    for asking in range(1, len(tokens)):
        heads = []
        for part in (slice(head * width, (head + 1) * width) for head in range(pool.num_heads)):
            q, k, v = (
                (tokens @ layer.weight.T + layer.bias)[:, part] for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
            )
            weights = (k @ q[asking] / width**0.5).softmax(0)
            heads.append(v[asking] if alone else weights @ v)
        found.append(torch.cat(heads) @ pool.c_proj.weight.T + pool.c_proj.bias)
    return torch.stack(found, 1).unflatten(1, features.shape[1:])


@pytest.mark.parametrize("mode", ["value", "last"])
@torch.no_grad()
def test_a_resnets_attention_pool_equals_loops_over_places_and_heads(mode, resnet):
    images, seen = randn(2, 3, 64, 64), []
    handle = resnet.layer4.register_forward_hook(lambda *given: seen.append(given[-1]))
    pooled = resnet(images)
    handle.remove()
    expected = torch.stack([slow_pool(resnet.attnpool, row, mode == "value") for row in seen[0]])
    found = dense_map(resnet, images, mode)
    assert found.shape == (2, 16, 2, 2) and patch_stride(resnet) == (32, 32) and not is_mean_of_map(resnet)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    both = dense_maps(resnet, images, ("last", "value"))
    assert torch.equal(found, both[mode == "value"]) and (both[0] - both[1]).abs().max() > 1e-2
    if mode == "value":  # as 1 x 1 convolutions
        layers = resnet.attnpool.v_proj, resnet.attnpool.c_proj
        convolved = seen[0]
        for layer in layers:
            convolved = F.conv2d(convolved, layer.weight[:, :, None, None], layer.bias)
        torch.testing.assert_close(found, convolved, atol=1e-5, rtol=1e-4)
    assert (pooled[:, :, None, None] - found).abs().max() > 1e-2


@torch.no_grad()
def test_a_resnet_sees_any_size_densely_and_its_own_as_a_whole(resnet):
    network = open_clip.model.CLIP(
        16, CLIPVisionCfg(layers=(1, 1, 1, 1), width=4, head_width=32, image_size=64),
        open_clip.model.CLIPTextCfg(8, 49408, width=16, heads=1, layers=1),
    )  # fmt: skip
    network.visual.load_state_dict(resnet.state_dict())
    clip, images = wrap_clip(network, "small resnet").eval(), randn(2, 3, 70, 130)
    assert clip.patch_size is None and clip.image_size == 64
    for mode in ("value", "last"):
        assert clip.dense(images, mode).shape == (2, 16, 3, 5)
        torch.testing.assert_close(clip.dense(images, mode), clip.dense(F.pad(images, (0, 30, 0, 26)), mode))
    native = F.interpolate(images, (64, 64), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(clip.encode_image(images), F.normalize(resnet(native), dim=1), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_towers_without_patches_in_the_joint_space_are_refused():
    pooled = CLIPVisionCfg(layers=1, width=32, head_width=16, image_size=32, patch_size=16, attentional_pool=True)
    towers = [
        (_build_vision_tower(16, pooled), "image tower VisionTransformer"),
        (TimmModel("vit_tiny_patch16_224", 16, 224, pool="token", proj="linear"), "timm image tower VisionTransformer"),
        (TimmModel("convnext_atto", 16, 224, pool="abs_attn", proj=""), "timm image tower ConvNeXt"),
        (TimmModel("fastvit_t8", 16, 224, pool="avg", proj=None), "timm image tower FastVit"),  # as MobileCLIP
    ]
    for tower, found in towers:
        with pytest.raises(ValueError, match=f"got {found}, expected a ViT .*ResNet of OpenAI's .*ConvNeXt"):
            dense_map(tower, randn(1, 3, 100, 224))


def family(config):
    """Of an open_clip configuration, by its own words; None for one that has no dense map."""
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        return "ConvNeXt" if vision["timm_model_name"].startswith("convnext") else None
    if vision.get("attentional_pool"):
        return None
    return "ResNet" if isinstance(vision["layers"], list) else "ViT"


def shrunk(config):
    """The image tower of a configuration, a few layers deep and narrow."""
    vision = dict(config["vision_cfg"])
    if "timm_model_name" in vision:
        small = "convnext_atto" if vision["timm_model_name"].startswith("convnext") else None
        return None if small is None else CLIPVisionCfg(**vision | {"timm_model_name": small})
    resnet = isinstance(vision["layers"], list)
    size = {"layers": [1, 1, 1, 1], "width": 4} if resnet else {"layers": 2, "width": 32, "mlp_ratio": 2.0}
    if not resnet:
        vision["patch_size"] = 16
    return CLIPVisionCfg(**vision | size | {"head_width": 16, "image_size": 64})


@torch.no_grad()
def test_every_model_of_open_clip_is_refused_by_its_configuration_or_has_a_dense_map():
    counts, towers = {}, {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        kind = family(config)
        counts[kind] = counts.get(kind, 0) + 1
        if kind is None:
            with pytest.raises(ValueError, match=f"got CLIP model '{name}', whose patches .* expected a ViT .*RN50"):
                check_family(name, config)
            continue
        check_family(name, config)
        small = shrunk(config)
        towers[str(small)] = small
    assert {kind: count > 5 for kind, count in counts.items()} == dict.fromkeys(
        ("ViT", "ResNet", "ConvNeXt", None), True
    )
    assert len(towers) < 30
    for small in towers.values():
        tower = _build_vision_tower(12, small).eval()
        for mode in ("value", "last"):
            dense = dense_map(tower, randn(1, 3, 64, 96), mode)
            stride = patch_stride(tower)[0]
            assert dense.shape == (1, 12, 64 // stride, 96 // stride) and torch.isfinite(dense).all()


@pytest.mark.parametrize("name", ["convnext_atto", "resnet18"])
@torch.no_grad()
def test_other_convnets_of_timm(name):
    tower = TimmModel(name, 16, 64).eval()
    dense = dense_map(tower, randn(1, 3, 40, 65))
    assert dense.shape == (1, 16, 2, 3)
    if name == "resnet18":  # no norm after its last block: pooling and projecting change places
        torch.testing.assert_close(dense_map(tower, randn(1, 3, 64, 64)).mean((2, 3)),
                                   tower(randn(1, 3, 64, 64)), atol=1e-5, rtol=1e-4)  # fmt: skip


def test_a_convnets_head_as_a_convolution_gives_its_dense_map():
    clip = random_clip("ConvNeXt-Lite")
    shaken(clip.network.visual)
    for module in clip.network.visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    visual, images = clip.network.visual.eval(), randn(2, 3, 64, 96)
    found = map_projection(visual)(visual.trunk.forward_features(images))
    torch.testing.assert_close(found, clip.dense(images, "last"), atol=1e-4, rtol=1e-4)
    normed = TimmModel("convnext_atto", 16, pool="", proj="linear", image_size=64)  # layer normalisation after pooling
    for other in (random_clip("ViT-Lite-8").network.visual, normed):
        with pytest.raises(ValueError, match="got image tower .*, expected a ConvNet whose pooled map is projected by"):
            map_projection(other)
