"""Dense CLIP: one embedding per patch instead of one per picture.

B images, D embedding, W width of the transformer, h w patches.
"""

import torch
import torch.nn.functional as F
from torch import nn

MODES = ("maskclip", "last")


def dense_features(visual: nn.Module, images: torch.Tensor, mode: str = "maskclip") -> torch.Tensor:
    """(B, 3, H, W) normalised -> (B, D, h, w) un-normalised patch embeddings in the joint space. See `Clip.dense`.

    visual: an open_clip VisionTransformer or TimmModel with a convolutional trunk. Sides that are no multiple of
    `patch_stride` are padded with zeros (the mean colour) at the right and bottom; h and w count the padded patches.
    """
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}, expected one of {', '.join(MODES)}")
    stride_h, stride_w = patch_stride(visual)
    height, width = images.shape[-2:]
    images = F.pad(images, (0, -width % stride_w, 0, -height % stride_h))
    return _convolutional(visual, images) if hasattr(visual, "trunk") else _transformer(visual, images, mode)


def patch_stride(visual: nn.Module) -> tuple[int, int]:
    """Pixels between neighbouring dense embeddings, down and right: a ViT's patch, a ConvNet's whole reduction.

    Raises ValueError for image towers whose patches have no embedding in the joint space.
    """
    if hasattr(visual, "trunk"):
        if hasattr(visual.trunk, "patch_embed") or hasattr(visual.head, "pool"):
            name = type(visual.trunk).__name__
            raise ValueError(f"got timm image tower {name}, expected a ConvNet without attention pooling")
        return (visual.trunk.feature_info[-1]["reduction"],) * 2
    if not hasattr(visual, "transformer") or getattr(visual, "attn_pool", None) is not None:
        raise ValueError(f"got image tower {type(visual).__name__}, expected open_clip's ViT without attention pooling")
    return visual.conv1.kernel_size


def is_mean_of_map(visual: nn.Module) -> bool:
    """Whether a picture's embedding is the mean of its dense map in mode "last": so for a ViT that averages its patches
    after the last norm, and for a ConvNet without layer normalisation between pooling and projection."""
    if hasattr(visual, "trunk"):
        norm = getattr(getattr(visual.trunk, "head", None), "norm", nn.Identity())
        return isinstance(norm, nn.Identity | nn.modules.batchnorm._BatchNorm)
    return getattr(visual, "pool_type", "tok") == "avg" and not visual.final_ln_after_pool


def _convolutional(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Last feature map through the head's norm and projection, pixel by pixel (the classifier before its pooling)."""
    features = visual.trunk.forward_features(images)
    norm = getattr(getattr(visual.trunk, "head", None), "norm", nn.Identity())
    return visual.head(norm(features).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


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


def _tokens(visual: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    patches = visual.conv1(images)  # (B, W, h, w)
    grid = tuple(patches.shape[-2:])
    tokens = patches.flatten(2).transpose(1, 2)  # (B, h * w, W)
    cls = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
    tokens = torch.cat([cls, tokens], 1) + resize_positions(visual.positional_embedding, grid).to(tokens.dtype)
    return visual.ln_pre(tokens), grid


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


def _transformer(visual: nn.Module, images: torch.Tensor, mode: str) -> torch.Tensor:
    tokens, grid = penultimate_tokens(visual, images)
    last = visual.transformer.resblocks[-1]
    tokens = value_path(last, tokens) if mode == "maskclip" else last(tokens)
    return project_patches(visual, tokens, grid)


def penultimate_tokens(visual: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """(B, 3, H, W) normalised, whole patches -> what a ViT's last block gets, (B, 1 + h * w, W), and (h, w)."""
    tokens, grid = _tokens(visual, images)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    return tokens, grid


def project_patches(visual: nn.Module, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Tokens after a ViT's last block, (B, 1 + h * w, W) -> patch embeddings in the joint space, (B, D, h, w)."""
    patches = visual.ln_post(tokens[:, 1:])
    if visual.proj is not None:
        patches = patches @ visual.proj
    return patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
