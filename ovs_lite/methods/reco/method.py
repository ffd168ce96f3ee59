"""ReCo's method: prototypes of classes and what they score. Paper: see the folder.

B images, K classes, D joint embedding, N images in the bank, C channels of a dense feature, h w patches.
"""

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.methods.base import Method, to_pixels
from ovs_lite.methods.reco.bank import ImageBank, iconworld_bank
from ovs_lite.models.text_masks import patch_cosines

RETRIEVED = 5
ATTENTION_SCALE = 10.0
SAME_TEXT = 0.999  # cosine above which a class is one of the contexts


class Reco(Method):
    """See the module docstring.

    bank: default drawings of the miniature world, made at the first prediction; for photos give a bank of photos:
    `Reco(clip, ImageBank.from_pictures(clip, photos))`. k: pictures to retrieve, 2 to N. contexts: (M, D) text
    embeddings of what often stands beside things and should be no seed of another class (the paper's: tree, sky,
    building, road, person). Prototypes are kept per text, so that windows and pictures share them.
    Raises ValueError for a bank of another CLIP and for k below 2.
    """

    name = "reco"

    def __init__(
        self, clip: Clip, bank: ImageBank | None = None, k: int = RETRIEVED, contexts: torch.Tensor | None = None
    ):
        super().__init__(clip)
        if k < 2:
            raise ValueError(f"got k={k}, expected at least 2 pictures to have something in common")
        if bank is not None and bank.embeddings.shape[1] != clip.embed_dim:
            dims = f"{bank.embeddings.shape[1]} dimensions, {clip.name} has {clip.embed_dim}"
            raise ValueError(f"got a bank with {dims}; build it with this CLIP: ImageBank.from_pictures(clip, ...)")
        self.k, self.contexts = k, contexts
        self._bank, self._prototypes = bank, {}

    @property
    def bank(self) -> ImageBank:
        """The pictures to retrieve from; the miniature world's are drawn when first asked for."""
        if self._bank is None:
            self._bank = iconworld_bank(self.clip)
        return self._bank

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, text_attention: bool = True) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) L2-normalised -> (B, K, H, W) scores in (0, 1), bilinear to input size.

        text_attention: False leaves the second factor out. Raises ValueError where the bank is smaller than k.
        """
        features = self.clip.dense(images, self.bank.mode)
        scores = patch_cosines(features, self.prototypes(text_embeddings).to(features)).sigmoid()
        scores = to_pixels(self.clip, scores, images.shape[-2:])
        if not text_attention:
            return scores
        attention = patch_cosines(self.clip.dense(images, "maskclip"), text_embeddings)
        return scores * to_pixels(self.clip, (ATTENTION_SCALE * attention).sigmoid(), images.shape[-2:])

    def prototypes(self, text_embeddings: torch.Tensor) -> torch.Tensor:
        """(K, D) -> (K, C) float32, L2-normalised. Each text is co-segmented once in this object's life."""
        rows = text_embeddings.detach().float().cpu()
        keys = [row.numpy().tobytes() for row in rows]
        for key, row in zip(keys, rows, strict=True):
            if key not in self._prototypes:
                self._prototypes[key] = self._co_segment(row, self._other_contexts(row))
        found = [self._prototypes[key] for key in keys]
        return torch.stack(found) if found else self.bank.features.new_zeros(0, self.bank.features.shape[1]).float()

    def _other_contexts(self, text: torch.Tensor) -> torch.Tensor | None:
        """Prototypes (M', C) of the contexts that are not this text itself, made without contexts of their own."""
        if self.contexts is None:
            return None
        rows = [row for row in self.contexts.detach().float().cpu() if float(row @ text) < SAME_TEXT]
        return torch.stack([self._co_segment(row, None) for row in rows]) if rows else None

    def _co_segment(self, text: torch.Tensor, contexts: torch.Tensor | None) -> torch.Tensor:
        features = self.bank.features[self.bank.nearest(text, self.k)].float()
        agreement = votes(features)
        if contexts is not None:
            agreement = agreement * unlike_contexts(features, contexts)
        return prototype(features, seeds(agreement))


def votes(features: torch.Tensor) -> torch.Tensor:
    """How well a place is found again elsewhere: (k, C, h, w), L2-normalised along C -> (k, h, w) in [-1, 1].

    Mean, over the other k - 1 pictures, of the largest cosine with any of their places (the paper's max-adjacency).
    Raises ValueError for k below 2. Memory: k * (h * w)^2 cosines at a time.
    """
    if len(features) < 2:
        raise ValueError(f"got {len(features)} pictures to co-segment, expected at least 2")
    places = features.flatten(2)  # (k, C, h * w)
    result = []
    for number, own in enumerate(places):
        best = torch.einsum("cn,kcm->knm", own, places).amax(2)  # (k, h * w)
        best[number] = 0
        result.append(best.sum(0) / (len(places) - 1))
    return torch.stack(result).view(len(features), *features.shape[2:])


def unlike_contexts(features: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
    """1 - the largest cosine with a context, within [0, 1]: (k, C, h, w), (M, C), both normalised -> (k, h, w)."""
    return (1 - torch.einsum("kchw,mc->kmhw", features, contexts).amax(1)).clamp(0, 1)


def seeds(agreement: torch.Tensor) -> torch.Tensor:
    """The best place of each picture: (k, h, w) -> (k,) positions in row-major order; the first of equals."""
    return agreement.flatten(1).argmax(1)


def prototype(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """L2-normalised mean of one place per picture: (k, C, h, w), (k,) row-major positions -> (C,)."""
    chosen = features.flatten(2)[torch.arange(len(features), device=features.device), :, places]
    return F.normalize(chosen.mean(0), dim=0)
