"""Mask prompts: what CLIP reads in place of the patches of a masked image that show nothing of the region.

OVSeg (Liang et al., CVPR 2023), section 3.3 and Fig. 4: of patch tokens T, prompts P and M, whether a patch is kept,
the tower's input is T * M + P * (1 - M) (an equation without a number); every place has a prompt of its own at each of
`depth` layers. Where the paper is silent, as the released code: a patch is kept where a single pixel of it belongs to
the region; the first prompts come before class token, positions and norm, those of depth d after block d; attention is
not masked. Departure, by choice: prompts before the last block that its class token hardly reads, see `unread_token`.
N crops, S side of an image, n patches, W width, D joint embedding.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip.dense import patch_stride, penultimate_tokens
from ovs_lite.clip.model import CPU_BATCH, Clip
from ovs_lite.tensors import tensors_digest

STD = 0.02  # of prompts at the start, as in the released trainer


class MaskPromptedClip(Clip):
    """A CLIP with prompts for blank patches; a copy of `clip`, whose weights it does not share.

    depth: layers with prompts; 0: none, then masks change nothing and it is the plain CLIP.
    std: standard deviation of the prompts at the start, which are normal. With 0 those of the first layer are what CLIP
        makes of a blank patch, as its patch embedding has no bias: depth 1 starts as the plain CLIP.
    last: whether the last block has prompts, too, which start as `unread_token`, whatever std is.
    mask_embedding: (depth, n, W), with `last` (depth + 1, n, W); learned.
    A ViT that averages its patches averages the prompts with them, as it averages blank patches today: so depth 0 is
    the plain model, and what blank patches add to the mean can be learned.
    Raises ValueError for a CLIP that is no ViT, for more layers than it has, and for `last` where patches are averaged.
    """

    def __init__(self, clip: Clip, depth: int, std: float = STD, last: bool = False):
        visual = clip.network.visual
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", ())
        patch_stride(visual)  # refuses towers that are pooled by attention
        if not blocks:
            raise ValueError(f"got mask prompts for {clip.name}, expected a ViT, whose patches are tokens")
        most = len(blocks) - last
        if not 0 <= depth <= most:
            whose = f"{most}, the blocks of {clip.name}{last * ' but its last one, which has prompts of its own'}"
            raise ValueError(f"got mask prompts of depth {depth}, expected 0 to {whose}")
        statistics = (tuple(given.flatten().tolist()) for given in (clip.mean, clip.std))
        super().__init__(clip.name, copy.deepcopy(clip.network), *statistics)
        patches, width = len(visual.positional_embedding) - 1, visual.conv1.out_channels
        like = visual.positional_embedding
        prompts = (std * torch.randn(depth, patches, width)).to(like.device, like.dtype)
        if last:
            prompts = torch.cat([prompts, unread_token(visual).expand(1, patches, width).to(prompts)])
        self.last, self.mask_embedding = last, nn.Parameter(prompts)
        self.to(clip.device)

    @property
    def depth(self) -> int:
        """How many layers have prompts, from the first on."""
        return len(self.mask_embedding) - self.last

    def image_fingerprint(self) -> str:
        """As of any CLIP; the prompts count."""
        plain = super().image_fingerprint() + self.last * "-last"
        return tensors_digest(plain, [self.mask_embedding]) if len(self.mask_embedding) else plain

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
        blocks = visual.transformer.resblocks
        layers = {number: number for number in range(1, self.depth)}
        if self.last:
            layers[len(blocks) - 1] = self.depth
        for number, block in enumerate(blocks):  # the prompts of a number stand before its block
            if number in layers:
                tokens = torch.cat([tokens[:, :1], self._prompted(tokens[:, 1:], kept, layers[number])], 1)
            tokens = block(tokens)
        pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    def _prompted(self, tokens: torch.Tensor, kept: torch.Tensor, layer: int) -> torch.Tensor:
        """T * M + P * (1 - M) at one layer: (N, n, W) tokens, (N, n) bool."""
        return torch.where(kept[..., None], tokens, self.mask_embedding[layer].to(tokens.dtype))


@torch.no_grad()
def unread_token(visual: nn.Module) -> torch.Tensor:
    """The token (W,) before a ViT's last block that lowers the logits of a blank image's class token furthest, in all
    heads by the same amount.

    With z = (x - mean) / standard deviation of a token x, a head's logit is a constant + a z. The shortest solution of
    A z = -1, a row of A for each head, points to where all logits fall alike; z has the length of every normalised
    token.
    Nothing is learned for it. Raises ValueError for a tower that averages its patches: it reads no class token.
    """
    if getattr(visual, "pool_type", "tok") != "tok":
        raise ValueError(f"got a ViT with pooling {visual.pool_type!r}, expected one whose answer is its class token")
    block = visual.transformer.resblocks[-1]
    attention, width, dtype = block.attn, block.attn.embed_dim, visual.positional_embedding.dtype
    size = (1, 3, *visual.image_size)
    tokens, _ = penultimate_tokens(visual, torch.zeros(size, dtype=dtype, device=visual.positional_embedding.device))
    weights, biases = attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(block.ln_1(tokens[0, 0]), weights[:width], biases[:width]).view(attention.num_heads, 1, -1)
    keys = weights[width : 2 * width].view(attention.num_heads, -1, width)
    slopes = ((query @ keys)[:, 0] * block.ln_1.weight).float()  # (heads, W)
    slopes = slopes - slopes.mean(1, keepdim=True)  # z has no mean
    token = -torch.linalg.pinv(slopes).sum(1)
    return token / token.std(correction=0)


def kept_patches(masks: torch.Tensor, patch: int) -> torch.Tensor:
    """Which patches hold a pixel of the region: (N, S, S) -> (N, n) bool, row by row."""
    return F.max_pool2d((masks > 0).float()[:, None], patch).flatten(1) > 0
