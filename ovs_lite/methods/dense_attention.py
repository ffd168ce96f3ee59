"""SCLIP, ClearCLIP and NACLIP: a frozen CLIP segments when its last block lets like patches look at each other.

Papers: Wang, Mei and Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference" (ECCV 2024); Lan et
al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference" (ECCV 2024); Hajimiri, Ben Ayed
and Dolz, "Pay Attention to Your Neighbours" (NACLIP, WACV 2025). As in MaskCLIP everything is frozen, and only the last
block changes: its queries are compared with queries, or its keys with keys, and of its residual connection and its MLP
two of the methods keep neither. FORMS is the whole difference between the three, as their released code computes it;
MaskCLIP is the form in which every token attends to itself alone.
Departures: the kit's 14 prompt templates instead of the papers' 80; class names without SCLIP's and NACLIP's hand-made
synonyms; no softmax over classes, whose threshold the papers use for the background; PAMR, in NACLIP's headline row, is
the evaluation's choice.
B images, K classes, W width of the ViT, n = 1 + h * w tokens, the class token first, of h w patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import pad_to_patches, penultimate_tokens, project_patches
from ovs_lite.methods.base import Method, PatchFeatures, encodes, scores_from, upsample_to
from ovs_lite.models.text_masks import patch_cosines

QUERIES, KEYS, ITSELF = "queries", "keys", "itself"


@dataclass(frozen=True)
class LastBlock:
    """What a ViT's last block computes instead of CLIP's softmax(q k^T / sqrt(d)) v, head by head.

    compared: what is compared with itself, of QUERIES and KEYS: softmax(q q^T / sqrt(d)), softmax(k k^T / sqrt(d)); of
        two the softmaxes are summed, not averaged. ITSELF: every token attends to itself alone.
    residual, mlp: whether the tokens before the attention are added to it, and whether the MLP follows.
    sigma: of a Gaussian of the distance between patches, in patches, added before the softmax; None: without.
    Raises ValueError for nothing or something else to compare, and for a sigma that is not positive.
    """

    compared: tuple[str, ...]
    residual: bool
    mlp: bool
    sigma: float | None = None

    def __post_init__(self):
        if not self.compared or set(self.compared) - {QUERIES, KEYS, ITSELF}:
            raise ValueError(f"got compared={self.compared!r}, expected some of {QUERIES}, {KEYS}, {ITSELF}")
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"got sigma={self.sigma!r}, expected a positive number of patches, or None")


FORMS = {
    "maskclip": LastBlock((ITSELF,), residual=True, mlp=True),
    "cleared": LastBlock((ITSELF,), residual=False, mlp=False),  # MaskCLIP's attention in ClearCLIP's block
    "sclip": LastBlock((QUERIES, KEYS), residual=True, mlp=True),
    "clearclip": LastBlock((QUERIES,), residual=False, mlp=False),
    "naclip": LastBlock((KEYS,), residual=False, mlp=False, sigma=5.0),
}


def last_block(block: nn.Module, tokens: torch.Tensor, grid: tuple[int, int], form: LastBlock) -> torch.Tensor:
    """A ViT's last block in another form: (B, n, W) -> (B, n, W); differentiable. grid: (h, w)."""
    found = block.ls_1(block.attn.out_proj(attended(block, tokens, grid, form)))
    found = tokens + found if form.residual else found
    return found + block.ls_2(block.mlp(block.ln_2(found))) if form.mlp else found


def attended(block: nn.Module, tokens: torch.Tensor, grid: tuple[int, int], form: LastBlock) -> torch.Tensor:
    """The values that each token gathers, all heads next to each other, before out_proj: (B, n, W) -> (B, n, W)."""
    attention = block.attn
    packed = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    heads = packed.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, n, d)
    parts, values = {QUERIES: heads[0], KEYS: heads[1]}, heads[2]
    nearness = None if form.sigma is None else neighbourhood(grid, form.sigma).to(values)
    gathered = [
        values if name == ITSELF else F.scaled_dot_product_attention(parts[name], parts[name], values, nearness)
        for name in form.compared
    ]
    return sum(gathered).transpose(1, 2).flatten(2)


def neighbourhood(grid: tuple[int, int], sigma: float) -> torch.Tensor:
    """exp(-|p - q|^2 / (2 sigma^2)) of the distance of all pairs of patches, in patches: (n, n).

    0 in the class token's row and column, 1 for a patch and itself: NACLIP's bonus is at most one logit.
    """
    height, width = grid
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    squared = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    return F.pad(torch.exp(-squared.double() / (2 * sigma**2)), (1, 0, 1, 0))


class DenseAttention(Method):
    """A frozen ViT whose last block has another form. form: default that of the method's name in FORMS.

    Raises ValueError for an image tower without such a block: a ConvNet, a ResNet.
    """

    def __init__(self, clip: Clip, form: LastBlock | None = None):
        super().__init__(clip)
        if not hasattr(clip.network.visual, "transformer"):
            given = f"got the CLIP {clip.name}, whose image tower has no attention block"
            raise ValueError(f"{given}, expected a ViT for {self.name}, such as ViT-Lite-8 or ViT-B-16")
        self.form = FORMS[self.name] if form is None else form

    def scores_each_class_alone(self, **options) -> bool:
        """Cosines with one class do not depend on others."""
        return True

    def variant(self) -> str:
        """The form of the last block."""
        return str(self.form)

    @encodes
    def encode(self, images: torch.Tensor) -> PatchFeatures:
        """(B, 3, H, W) normalised -> patches through the last block's other form."""
        visual = self.clip.network.visual
        tokens, grid = penultimate_tokens(visual, pad_to_patches(visual, images))
        tokens = last_block(visual.transformer.resblocks[-1], tokens, grid, self.form)
        return PatchFeatures(images.shape[-2:], project_patches(visual, tokens, grid))

    @scores_from(PatchFeatures)
    def scores(self, features: PatchFeatures, text_embeddings: torch.Tensor) -> torch.Tensor:
        """-> (B, K, H, W) cosines of patches with the (K, D) classes in [-1, 1], bilinear to input size."""
        return upsample_to(self.clip, patch_cosines(features.patches, text_embeddings), features.size)


@dataclass(frozen=True)
class Tokens:
    """What a ViT's last block gets of B images of size (H, W): (B, 1 + h * w, W), and the grid (h, w)."""

    size: tuple[int, int]
    tokens: torch.Tensor
    grid: tuple[int, int]


class EveryForm(DenseAttention):
    """Images are encoded up to the last block alone, and its form is an option of `scores`: many forms can be compared
    at little more than the cost of one (see `WithKeptFeatures`)."""

    name = "every-form"

    def __init__(self, clip: Clip):
        super().__init__(clip, FORMS["maskclip"])  # of no account

    def variant(self) -> str:
        """Nothing: the form is an option, which a card names apart."""
        return ""

    @encodes
    def encode(self, images: torch.Tensor) -> Tokens:
        """(B, 3, H, W) normalised -> what the last block gets."""
        visual = self.clip.network.visual
        return Tokens(images.shape[-2:], *penultimate_tokens(visual, pad_to_patches(visual, images)))

    @scores_from(Tokens)
    def scores(self, features: Tokens, text_embeddings: torch.Tensor, form: LastBlock | None = None) -> torch.Tensor:
        """-> (B, K, H, W) cosines as of `DenseAttention` with that form; None: of clip-cam, CLIP's own last block."""
        visual = self.clip.network.visual
        block, tokens, grid = visual.transformer.resblocks[-1], features.tokens, features.grid
        tokens = block(tokens) if form is None else last_block(block, tokens, grid, form)
        patches = project_patches(visual, tokens, grid)
        return upsample_to(self.clip, patch_cosines(patches, text_embeddings), features.size)


class SClip(DenseAttention):
    """SCLIP: queries with queries plus keys with keys; residual connection and MLP stay."""

    name = "sclip"


class ClearClip(DenseAttention):
    """ClearCLIP: queries with queries; neither residual connection nor MLP."""

    name = "clearclip"


class NaClip(DenseAttention):
    """NACLIP: keys with keys, near patches preferred; neither residual connection nor MLP."""

    name = "naclip"
