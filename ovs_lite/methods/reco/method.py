"""ReCo's method: prototypes of classes and what they score. Paper: see the folder.

B images, K classes, D joint embedding, N images in the bank, C channels of a dense feature, h w patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import dense_maps
from ovs_lite.methods.base import Method, PatchFeatures, encodes, scores_from, upsample_to
from ovs_lite.methods.reco.bank import ImageBank, iconworld_bank
from ovs_lite.models.text_masks import patch_cosines
from ovs_lite.tensors import tensors_digest

RETRIEVED = 5
ATTENTION_SCALE = 10.0


@dataclass(frozen=True)
class RecoFeatures(PatchFeatures):
    """patches: (B, C, h, w), made as the bank's features. aligned: (B, D, h, w), MaskCLIP's, to compare with texts."""

    aligned: torch.Tensor


class Reco(Method):
    """See the module docstring.

    bank: default drawings of the miniature world, made at the first prediction; for photos give a bank of photos:
        `Reco(clip, ImageBank.from_images(clip, photos))`.
    k: images to retrieve, 2 to N.
    Prototypes are kept per text, so that windows and images share them.
    Raises ValueError for a bank of another CLIP and for k below 2.
    """

    name = "reco"

    def __init__(self, clip: Clip, bank: ImageBank | None = None, k: int = RETRIEVED):
        super().__init__(clip)
        if k < 2:
            raise ValueError(f"got k={k}, expected at least 2 images to have something in common")
        if bank is not None and bank.embeddings.shape[1] != clip.embed_dim:
            dims = f"{bank.embeddings.shape[1]} dimensions, {clip.name} has {clip.embed_dim}"
            raise ValueError(f"got a bank with {dims}; build it with this CLIP: ImageBank.from_images(clip, ...)")
        self.k = k
        self._bank, self._prototypes = bank, {}

    @property
    def bank(self) -> ImageBank:
        """The images to retrieve from; the miniature world's are drawn when first asked for."""
        if self._bank is None:
            self._bank = iconworld_bank(self.clip)
        return self._bank

    def variant(self) -> str:
        """How many images are retrieved, and from which bank."""
        bank = "IconWorld" if self._bank is None else tensors_digest("bank", [self.bank.embeddings, self.bank.features])
        return f"k={self.k}, bank {bank[:12]}"

    @encodes
    def encode(self, images: torch.Tensor) -> RecoFeatures:
        """(B, 3, H, W) normalised -> dense features as the bank's, and MaskCLIP's patches."""
        patches, aligned = dense_maps(self.clip.network.visual, images, ("last", "value"))
        return RecoFeatures(images.shape[-2:], patches, aligned)

    @scores_from(RecoFeatures)
    def scores(
        self, features: RecoFeatures, text_embeddings: torch.Tensor, text_attention: bool = True
    ) -> torch.Tensor:
        """-> (B, K, H, W) scores of the (K, D) classes in (0, 1), bilinear to input size.

        text_attention: False leaves the second factor out. Raises ValueError where the bank is smaller than k.
        """
        prototypes = self.prototypes(text_embeddings).to(features.patches)
        scores = upsample_to(self.clip, patch_cosines(features.patches, prototypes).sigmoid(), features.size)
        if not text_attention:
            return scores
        attention = (ATTENTION_SCALE * patch_cosines(features.aligned, text_embeddings)).sigmoid()
        return scores * upsample_to(self.clip, attention, features.size)

    def prototypes(self, text_embeddings: torch.Tensor) -> torch.Tensor:
        """(K, D) -> (K, C) float32, L2-normalised. Each text is co-segmented once in this object's life."""
        rows = text_embeddings.detach().float().cpu()
        keys = [row.numpy().tobytes() for row in rows]
        for key, row in zip(keys, rows, strict=True):
            if key not in self._prototypes:
                self._prototypes[key] = self._co_segment(row)
        found = [self._prototypes[key] for key in keys]
        return torch.stack(found) if found else self.bank.features.new_zeros(0, self.bank.features.shape[1]).float()

    def _co_segment(self, text: torch.Tensor) -> torch.Tensor:
        features = self.bank.features[self.bank.nearest(text, self.k)].float()
        return prototype(features, seeds(votes(features)))


def votes(features: torch.Tensor) -> torch.Tensor:
    """How well a place is found again elsewhere: (k, C, h, w), L2-normalised along C -> (k, h, w) in [-1, 1].

    Mean, over the other k - 1 images, of the largest cosine with any of their places (the paper's max-adjacency).
    Raises ValueError for k below 2. Memory: k * (h * w)^2 cosines at a time.
    """
    if len(features) < 2:
        raise ValueError(f"got {len(features)} images to co-segment, expected at least 2")
    places = features.flatten(2)  # (k, C, h * w)
    result = []
    for number, own in enumerate(places):
        best = torch.einsum("cn,kcm->knm", own, places).amax(2)  # (k, h * w)
        best[number] = 0
        result.append(best.sum(0) / (len(places) - 1))
    return torch.stack(result).view(len(features), *features.shape[2:])


def seeds(agreement: torch.Tensor) -> torch.Tensor:
    """The best place of each image: (k, h, w) -> (k,) positions in row-major order; the first of equals."""
    return agreement.flatten(1).argmax(1)


def prototype(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """L2-normalised mean of one place per image: (k, C, h, w), (k,) row-major positions -> (C,)."""
    chosen = features.flatten(2)[torch.arange(len(features), device=features.device), :, places]
    return F.normalize(chosen.mean(0), dim=0)
