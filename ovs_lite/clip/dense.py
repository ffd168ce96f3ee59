"""Dense CLIP: one embedding per patch instead of one per image.

B images, D embedding, W width of the transformer, C channels of a ConvNet's last map, h w patches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

MODES = ("value", "last")
FAMILIES = (
    "a ViT with a class token or mean pooling (ViT-B-16, ViT-L-14, ViT-H-14-CLIPA, ...), "
    "a ResNet of OpenAI's (RN50, RN50x16, ...) or a ConvNeXt (convnext_base_w, convnext_large_d_320, ...)"
)
CONVNETS = ("convnext", "resnet")  # timm's names
RESNET_STRIDE = 32  # of OpenAI's ResNets: two in the stem, its pooling, and three stages


def dense_maps(visual: nn.Module, images: torch.Tensor, modes: Sequence[str]) -> list[torch.Tensor]:
    """(B, 3, H, W) normalised -> (B, D, h, w) un-normalised patch embeddings in the joint space, in every mode.

    visual: an image tower that `patch_stride` accepts. Sides that are no multiple of the stride are padded with zeros
    (the mean colour) at the right and bottom; h and w count the padded patches. modes: see `Clip.dense`; the layers
    that they share are passed once.
    """
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"got mode {unknown[0]!r}, expected one of {', '.join(MODES)}")
    images = pad_to_patches(visual, images)
    if hasattr(visual, "trunk"):
        return [_convolutional(visual, images)] * len(modes)
    if hasattr(visual, "attnpool"):
        for stage in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            images = stage(images)  # (B, C, h, w) at the end
        return [_attention_pool(visual.attnpool, images, mode) for mode in modes]
    tokens, grid = penultimate_tokens(visual, images)
    last = visual.transformer.resblocks[-1]
    ends = [value_path(last, tokens) if mode == "value" else last(tokens) for mode in modes]
    return [project_patches(visual, end, grid) for end in ends]


def pad_to_patches(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) normalised -> the same with zeros at the right and bottom, to whole patches."""
    stride_h, stride_w = patch_stride(visual)
    return F.pad(images, (0, -images.shape[-1] % stride_w, 0, -images.shape[-2] % stride_h))


def patch_stride(visual: nn.Module) -> tuple[int, int]:
    """Pixels between neighbouring dense embeddings, down and right: a ViT's patch, a ConvNet's whole reduction.

    Raises ValueError for image towers whose patches have no embedding in the joint space.
    """
    if hasattr(visual, "trunk"):
        pooled = hasattr(visual.head, "pool") or len(visual.head) == 0  # by attention, or inside the trunk
        if pooled or hasattr(visual.trunk, "patch_embed"):
            raise ValueError(f"got timm image tower {type(visual.trunk).__name__}, expected {FAMILIES}")
        return (visual.trunk.feature_info[-1]["reduction"],) * 2
    if hasattr(visual, "attnpool"):
        return RESNET_STRIDE, RESNET_STRIDE
    if not hasattr(visual, "transformer") or getattr(visual, "attn_pool", None) is not None:
        raise ValueError(f"got image tower {type(visual).__name__}, expected {FAMILIES}")
    return visual.conv1.kernel_size


def check_family(name: str, config: Mapping[str, Any]) -> None:
    """Raises ValueError unless `patch_stride` accepts the image tower of an open_clip configuration; builds nothing."""
    vision = config["vision_cfg"]
    trunk = vision.get("timm_model_name") or ""
    attention = vision.get("attentional_pool") or vision.get("timm_pool") in ("map", "abs_attn", "rot_attn")
    if attention or (trunk and not trunk.startswith(CONVNETS)):
        raise ValueError(f"got CLIP model {name!r}, whose patches have no embedding of their own; expected {FAMILIES}")


def is_mean_of_map(visual: nn.Module) -> bool:
    """Whether an image's embedding is the mean of its dense map in mode "last": so for a ViT that averages its patches
    after the last norm, and for a ConvNet without layer normalisation between pooling and projection."""
    if hasattr(visual, "trunk"):
        return isinstance(_head_norm(visual), nn.Identity | nn.modules.batchnorm._BatchNorm)
    return getattr(visual, "pool_type", "tok") == "avg" and not visual.final_ln_after_pool


def _convolutional(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Last feature map through the head's norm and projection, pixel by pixel (the classifier before its pooling)."""
    features = _head_norm(visual)(visual.trunk.forward_features(images))
    return visual.head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@torch.no_grad()
def map_projection(visual: nn.Module) -> nn.Conv2d:
    """A new 1 x 1 convolution that does to a ConvNet's last feature map what its head does: (B, C, h, w) -> (B, D, h,
    w) in the joint space. Raises ValueError for image towers of which no such convolution exists."""
    head = [layer for layer in getattr(visual, "head", ()) if not isinstance(layer, nn.Dropout)]
    if not hasattr(visual, "trunk") or not is_mean_of_map(visual) or [type(layer) for layer in head] != [nn.Linear]:
        given = f"got image tower {type(getattr(visual, 'trunk', visual)).__name__}"
        raise ValueError(f"{given}, expected a ConvNet whose pooled map is projected by one matrix, as ConvNeXt-Lite's")
    norm, (linear,) = _head_norm(visual), head
    weight, bias = linear.weight, 0 if linear.bias is None else linear.bias
    if not isinstance(norm, nn.Identity):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = bias + weight @ (norm.bias - scale * norm.running_mean)
        weight = weight * scale
    found = nn.Conv2d(*reversed(weight.shape), 1)
    found.weight.copy_(weight[:, :, None, None])
    found.bias.copy_(bias)
    return found


def _head_norm(visual: nn.Module) -> nn.Module:
    return getattr(getattr(visual.trunk, "head", None), "norm", nn.Identity())


def _attention_pool(pool: nn.Module, features: torch.Tensor, mode: str) -> torch.Tensor:
    """The attention pool of OpenAI's ResNets, one embedding for each place: (B, C, h, w) -> (B, D, h, w).

    "value": v_proj and c_proj as 1 x 1 convolutions, without positions (Zhou et al., ECCV 2022, section 3.2).
    "last": the unchanged attention, asked by every place instead of by the mean alone; positions as in a ViT.
    """
    grid = tuple(features.shape[-2:])
    places = features.flatten(2).transpose(1, 2)  # (B, h * w, C)
    if mode == "value":
        found = pool.c_proj(pool.v_proj(places))
    else:
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1)
        tokens = tokens + resize_positions(pool.positional_embedding, grid).to(tokens.dtype)
        parts = (layer(tokens) for layer in (pool.q_proj, pool.k_proj, pool.v_proj))
        heads = (part.unflatten(2, (pool.num_heads, -1)).transpose(1, 2) for part in parts)
        found = pool.c_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))[:, 1:]
    return found.transpose(1, 2).unflatten(2, grid)


def resize_positions(embedding: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Bicubic interpolation of a ViT's positional embedding to another grid; the class token's stays untouched.

    (1 + n, W) with n a square number -> (1 + h * w, W). align_corners=False, as TCL's released code does.
    """
    side = round((len(embedding) - 1) ** 0.5)
    if (side, side) == grid:
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([cls, patches.flatten(2)[0].T])


def value_path(block: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The block when every token attends only to itself: attention becomes out_proj(v_proj(ln_1(x))), both biases.

    MaskCLIP (Zhou et al., ECCV 2022, section 3.2). The residual connection and the MLP are kept, as in its released
    ViT and in TCL's.
    """
    attention = block.attn
    width = attention.embed_dim
    value = F.linear(block.ln_1(tokens), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    tokens = tokens + block.ls_1(attention.out_proj(value))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def key_features(block: nn.Module, tokens: torch.Tensor, through_output: bool = False) -> torch.Tensor:
    """What a ViT's block compares its queries with: k_proj(ln_1(x)), all heads side by side. (B, n, W) -> (B, n, W).

    through_output: then out_proj as well, as MaskCLIP's released code does with queries, keys and values alike.
    """
    attention = block.attn
    rows = slice(attention.embed_dim, 2 * attention.embed_dim)
    keys = F.linear(block.ln_1(tokens), attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    return attention.out_proj(keys) if through_output else keys


def penultimate_tokens(visual: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """(B, 3, H, W) normalised, whole patches -> what a ViT's last block gets, (B, 1 + h * w, W), and (h, w)."""
    patches = visual.conv1(images)  # (B, W, h, w)
    grid = tuple(patches.shape[-2:])
    tokens = patches.flatten(2).transpose(1, 2)  # (B, h * w, W)
    cls = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
    tokens = torch.cat([cls, tokens], 1) + resize_positions(visual.positional_embedding, grid).to(tokens.dtype)
    tokens = visual.ln_pre(tokens)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    return tokens, grid


def project_patches(visual: nn.Module, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Tokens after a ViT's last block, (B, 1 + h * w, W) -> patch embeddings in the joint space, (B, D, h, w)."""
    patches = visual.ln_post(tokens[:, 1:])
    if visual.proj is not None:
        patches = patches @ visual.proj
    return patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
