"""OVSeg's two stages: MaskFormer proposes masks and names them, CLIP names their crops, and both answers are joined.

Paper: see the folder; section 3.1, Fig. 2, appendix A.5; formulas as in its released code. Departure: a class is asked
for by its name, where the released evaluation embeds a list of synonyms ("road, route") as one phrase.
B images, N proposals, K classes, D joint embedding, H W pixels, h w a quarter of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.config import to_dict
from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.methods.maskformer.config import PRESETS as MASKFORMER
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.ovseg.config import PRESETS, OVSegConfig
from ovs_lite.methods.ovseg.stage_two import encode_proposals
from ovs_lite.methods.own_backbone import stored_config
from ovs_lite.regions.score_maps import masks_at_stride


@dataclass(frozen=True)
class TwoStageFeatures:
    """What OVSeg keeps of B images.

    size: (H, W) of the images.
    mask_logits: (B, N, h, w).
    embeddings: MaskFormer's of each proposal, (B, N, D), L2-normalised.
    regions: CLIP's of each proposal's masked crop, (B, N, D), L2-normalised, zeros where invalid.
    valid: (B, N) bool, whether a proposal has pixels to crop.
    """

    size: tuple[int, int]
    mask_logits: torch.Tensor
    embeddings: torch.Tensor
    regions: torch.Tensor
    valid: torch.Tensor


class AdaptedTower(nn.Module):
    """What is learned of a mask-prompted CLIP: its image tower, under the name `backbone`, and its prompts."""

    def __init__(self, clip: MaskPromptedClip):
        super().__init__()
        self.backbone, self.mask_embedding = clip.network.visual, clip.mask_embedding


class OVSeg(Method):
    """See the module docstring.

    clip: its text tower embeds the classes. segmenter, prompted: stage one and two; default new ones, for a file to
    fill. config: how `prompted` is adapted and masks are cut for it, kept in the file of weights.
    """

    name = "ovseg"
    trains = True
    masks_of = "maskformer"
    tied_to = ("text",)

    def __init__(
        self,
        clip: Clip,
        segmenter: MaskFormerProposer | None = None,
        prompted: MaskPromptedClip | None = None,
        config: OVSegConfig | None = None,
    ):
        super().__init__(clip)
        clip.requires_grad_(False)
        self.config = config or PRESETS["lite"]
        if segmenter is None:
            segmenter = MaskFormerProposer(MASKFORMER["lite"], torch.zeros(1, clip.embed_dim), fresh=False)
        if segmenter.classes.shape[1] != clip.embed_dim:
            given = f"a MaskFormer trained with embeddings of {segmenter.classes.shape[1]} numbers"
            raise ValueError(f"got {given}, expected the {clip.embed_dim} of {clip.name}")
        if prompted is None:
            prompted = MaskPromptedClip(clip, self.config.depth, last=self.config.last)
        self.prompted = prompted
        self.network = nn.ModuleDict({"segmenter": segmenter, "clip": AdaptedTower(self.prompted)})
        self.to(clip.device)

    @classmethod
    def stored(cls, clip: Clip, about: Mapping[str, str]) -> "OVSeg":
        """Of the sizes that a file of weights was saved with."""
        config = stored_config(PRESETS["lite"], about)
        proposals = stored_config(MASKFORMER["lite"], {"config": about["segmenter"]})
        classes = torch.zeros(int(about["classes"]), clip.embed_dim)
        segmenter = MaskFormerProposer(proposals, classes, fresh=False)
        last = about.get("last") == str(True)  # files of before it could be have no such entry
        return cls(clip, segmenter, MaskPromptedClip(clip, int(about["depth"]), last=last), config)

    def about(self) -> dict[str, str]:
        """Both configurations and sizes, for a file of weights."""
        segmenter = self.network["segmenter"]
        return {
            "config": json.dumps(to_dict(self.config)), "segmenter": json.dumps(to_dict(segmenter.config)),
            "depth": str(self.prompted.depth), "last": str(self.prompted.last), "classes": str(len(segmenter.classes)),
        }  # fmt: skip

    @property
    def proposer(self) -> MaskFormerProposer:
        """Stage one."""
        return self.network["segmenter"]

    def trained_part(self) -> nn.Module:
        """MaskFormer and the adapted tower; the text tower is not among them."""
        return self.network

    @encodes
    def encode(self, images: torch.Tensor) -> TwoStageFeatures:
        """(B, 3, H, W) normalised -> masks, and what both stages say of them before any word is known."""
        segmenter = self.network["segmenter"]
        found = segmenter.network(segmenter.normalise(images * self.clip.std + self.clip.mean))[-1]
        logits, size = found.mask_logits.float(), images.shape[-2:]
        masks = masks_at_stride(logits, size).sigmoid() > self.config.threshold
        regions, valid, _ = encode_proposals(self.prompted, images, masks, self.config.smallest)
        return TwoStageFeatures(size, logits, found.embeddings.float(), regions, valid)

    @scores_from(TwoStageFeatures)
    def scores(
        self, features: TwoStageFeatures, text_embeddings: torch.Tensor, ensemble_weight: float = 0.7
    ) -> torch.Tensor:
        """-> (B, K, H, W): sum over proposals of their probability of the class times their soft mask.

        ensemble_weight: lambda of A.5, the exponent of CLIP's answer; 0: MaskFormer's alone, 1: CLIP's alone. The paper
        takes 0.7 (ADE20K) and 0.6 (the others).
        """
        return torch.einsum("bnk,bnhw->bkhw", *self._named(features, text_embeddings, ensemble_weight))

    @torch.no_grad()
    def regions(
        self, features: TwoStageFeatures, text_embeddings: torch.Tensor, ensemble_weight: float = 0.7
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Masks, and the ensemble's answer for each, "no object" left out. See `Method.regions` and `scores`."""
        probs, masks = self._named(features, text_embeddings, ensemble_weight)
        return list(zip(masks, probs, strict=True))

    def _named(
        self, features: TwoStageFeatures, text: torch.Tensor, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of classes (B, N, K), and soft masks (B, N, H, W)."""
        text, network = text.to(features.regions.dtype), self.network["segmenter"].network
        by_maskformer = network.class_logits(features.embeddings, text).softmax(-1)[..., :-1]
        by_clip = self.clip.probabilities(features.regions @ text.T)
        probs = ensemble(by_maskformer, by_clip, features.valid, weight)
        masks = masks_at_stride(features.mask_logits, features.size).sigmoid()
        return probs, masks


def ensemble(
    by_maskformer: torch.Tensor, by_clip: torch.Tensor, valid: torch.Tensor, weight: float = 0.7
) -> torch.Tensor:
    """The geometric mean p_maskformer^(1 - weight) p_clip^weight (OVSeg, section 3.1), not normalised: (..., N, K).

    by_maskformer: softmax over K classes and "no object", without the latter's column; rows sum to less than 1.
    by_clip: softmax over the K classes. valid: (..., N) bool; as released, CLIP counts as 1 for every class of a
    proposal that it could not see, and such a proposal has no say where CLIP decides alone (weight 1).
    Raises ValueError for a weight outside 0..1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"got an ensemble weight of {weight}, expected 0 (MaskFormer alone) to 1 (CLIP alone)")
    unseen = 0.0 if weight == 1 else 1.0
    by_clip = torch.where(valid[..., None], by_clip, unseen)
    return by_maskformer ** (1 - weight) * by_clip**weight
