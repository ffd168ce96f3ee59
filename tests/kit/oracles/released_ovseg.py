"""OVSeg's released image tower with mask prompts once more, one image at a time, from the tensors of its file.

Nothing of ovs_lite is imported. n patches, W width, D joint embedding.
"""

import torch
import torch.nn.functional as F

from kit.oracles import released_tcl as released
from kit.oracles.released_files import PATCH, SIDE, open_clip_model

BLOCKS, GRID = 3, SIDE // PATCH


def random_file(depth, seed=0):
    """An open_clip state dict with prompts of so many layers, none of them small."""
    state = open_clip_model(released.random_released(layers=BLOCKS, seed=seed)).state_dict()
    generator = torch.Generator().manual_seed(seed + 1)
    prompts = torch.randn(depth, GRID**2, len(state["visual.conv1.weight"]), generator=generator)
    return {key: value.clone() for key, value in state.items()} | {"visual.mask_embedding": prompts}


def encode(t, images, masks, quick=True):
    """(N, 3, S, S) normalised, (N, S, S) in {0, 1} -> (N, D), not normalised: the released `visual(image, mask)`."""
    found = [_encode_one(t, image, mask.to(image.dtype), quick) for image, mask in zip(images, masks, strict=True)]
    return torch.stack(found)


def _encode_one(t, image, mask, quick):
    v, prompts = "visual.", t["visual.mask_embedding"]
    x = F.conv2d(image[None], t[v + "conv1.weight"], stride=PATCH)[0].flatten(1).T  # (n, W)
    m = F.avg_pool2d(mask[None, None], PATCH, PATCH).ceil().reshape(-1, 1)
    x = x * m + prompts[0] * (1 - m)
    x = torch.cat([t[v + "class_embedding"][None], x]) + t[v + "positional_embedding"]
    x = released.norm(t, v + "ln_pre.", x)[None]
    nowhere = x.new_zeros(x.shape[1], x.shape[1])
    for number in range(BLOCKS):
        x = released.block(t, f"{v}transformer.resblocks.{number}.", x, nowhere, quick)
        if number + 1 < len(prompts):
            x = torch.cat([x[:, :1], x[:, 1:] * m + prompts[number + 1] * (1 - m)], 1)
    return released.norm(t, v + "ln_post.", x[0, :1])[0] @ t[v + "proj"]
