"""Mask prompts: what CLIP reads in place of the patches of a masked image that show nothing of the region.

OVSeg (Liang et al., CVPR 2023), section 3.3 and Fig. 4: of patch tokens T, prompts P and M, whether a patch is kept,
the tower's input is T * M + P * (1 - M) (an equation without a number); every place has a prompt of its own at each of
`depth` layers. Where the paper is silent, as the released code: a patch is kept where a single pixel of it belongs to
the region; the first prompts come before class token, positions and norm, those of depth d after block d; attention is
not masked. N crops, S side of an image, n patches, W width, D joint embedding.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip.dense import patch_stride
from ovs_lite.clip.model import CPU_BATCH, Clip
from ovs_lite.tensors import tensors_digest

STD = 0.02  # of prompts at the start, as in the released trainer


class MaskPromptedClip(Clip):
    """A CLIP with prompts for blank patches; a copy of `clip`, whose weights it does not share.

    depth: layers with prompts; 0: none, then masks change nothing and it is the plain CLIP.
    std: standard deviation of the prompts at the start, which are normal. With 0 those of the first layer are what CLIP
        makes of a blank patch, as its patch embedding has no bias: depth 1 starts as the plain CLIP.
    mask_embedding: (depth, n, W), learned.
    A ViT that averages its patches averages the prompts with them, as it averages blank patches today: so depth 0 is
    the plain model, and what blank patches add to the mean can be learned.
    Raises ValueError for a CLIP that is no ViT, and for more layers than it has.
    """

    def __init__(self, clip: Clip, depth: int, std: float = STD):
        visual = clip.network.visual
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", ())
        patch_stride(visual)  # refuses towers that are pooled by attention
        if not blocks:
            raise ValueError(f"got mask prompts for {clip.name}, expected a ViT, whose patches are tokens")
        if not 0 <= depth <= len(blocks):
            raise ValueError(
                f"got mask prompts of depth {depth}, expected 0 to {len(blocks)}, the blocks of {clip.name}"
            )
        statistics = (tuple(given.flatten().tolist()) for given in (clip.mean, clip.std))
        super().__init__(clip.name, copy.deepcopy(clip.network), *statistics)
        patches, width = len(visual.positional_embedding) - 1, visual.conv1.out_channels
        like = visual.positional_embedding
        self.mask_embedding = nn.Parameter(std * torch.randn(depth, patches, width).to(like.device, like.dtype))
        self.to(clip.device)

    @property
    def depth(self) -> int:
        """How many layers have prompts."""
        return len(self.mask_embedding)

    def image_fingerprint(self) -> str:
        """As of any CLIP; the prompts count."""
        plain = super().image_fingerprint()
        return tensors_digest(plain, [self.mask_embedding]) if self.depth else plain

    def encode_masked(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised crops, (N, S, S) which pixels are the region's -> (N, D), L2-normalised.

        masks: bool, or numbers of which those above 0 count. The pixels outside are expected to be blank already (see
        `masked_crops`); where they are not, a patch of them is replaced all the same. N may be 0, and a mask may be
        empty: then every patch is a prompt. Raises ValueError for other sizes than CLIP's own.
        """
        side = self.image_size
        if images.shape[1:] != (3, side, side) or masks.shape != (len(images), side, side):
            given = f"images {tuple(images.shape)} and masks {tuple(masks.shape)}"
            raise ValueError(f"got {given}, expected (N, 3, {side}, {side}) and (N, {side}, {side})")
        if len(images) == 0:
            return images.new_zeros(0, self.embed_dim)
        apart = images.device.type == "cpu" and not torch.is_grad_enabled()
        parts = zip(*(given.split(CPU_BATCH if apart else len(images)) for given in (images, masks)), strict=True)
        return F.normalize(torch.cat([self._embedded(*part) for part in parts]), dim=-1)

    def _embedded(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        visual = self.network.visual
        kept = kept_patches(masks, patch_stride(visual)[0])
        tokens = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, n, W)
        if self.depth:
            tokens = self._prompted(tokens, kept, 0)
        first = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = visual.ln_pre(torch.cat([first, tokens], 1) + visual.positional_embedding.to(tokens.dtype))
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            tokens = block(tokens)
            if number < self.depth:
                tokens = torch.cat([tokens[:, :1], self._prompted(tokens[:, 1:], kept, number)], 1)
        pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    def _prompted(self, tokens: torch.Tensor, kept: torch.Tensor, layer: int) -> torch.Tensor:
        """T * M + P * (1 - M) at one layer: (N, n, W) tokens, (N, n) bool."""
        return torch.where(kept[..., None], tokens, self.mask_embedding[layer].to(tokens.dtype))


def kept_patches(masks: torch.Tensor, patch: int) -> torch.Tensor:
    """Which patches hold a pixel of the region: (N, S, S) -> (N, n) bool, row by row."""
    return F.max_pool2d((masks > 0).float()[:, None], patch).flatten(1) > 0
