"""How the promptable segmenter is trained: points and boxes of unlabelled masks, every decoder stage.

Uni-OVSeg (Wang et al., 2024), section 3 (Eq. 4; weights 2 and 1 of BCE and Dice: 4.1) and appendix A (the same
loss after each layer). The backbone is frozen, as in the paper (`loop.backbone_factor`: 0), and keeps no gradient.
b images of this process, P prompts, K predictions of each, M_b masks.
"""

from collections.abc import Callable
from typing import Any

import torch

from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.distributed import total_count, world_size
from ovs_lite.losses.masks import covered_share
from ovs_lite.losses.points import pixels_at_points
from ovs_lite.losses.prompted_masks import match_prompts, prompted_mask_losses, quality_loss
from ovs_lite.methods.proposer import ProposalTraining, mask_batches
from ovs_lite.methods.uniovseg.config import PromptConfig
from ovs_lite.methods.uniovseg.mask_decoder import PromptedMasks
from ovs_lite.methods.uniovseg.prompts import small_boxes
from ovs_lite.methods.uniovseg.sampling import PromptBatch, PromptBatches, Prompts
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter

WEIGHTS = {"bce": 2.0, "dice": 1.0}  # section 4.1


class PromptTraining(ProposalTraining):
    """Terms: bce, dice, quality, each summed over the decoder's stages and over points and boxes.

    proposer: whose network is trained. batches: index -> PromptBatch, this process's share.
    """

    def __init__(
        self,
        proposer: PromptSegmenter,
        batches: Callable[[int], PromptBatch],
        found: dict[str, Any] | None = None,
    ):
        super().__init__(proposer, batches, found)
        self.config: PromptConfig = proposer.config
        self.weights = WEIGHTS | {"quality": self.config.quality_weight}

    def losses(self, batch: PromptBatch) -> dict[str, torch.Tensor]:
        """Terms are divided by the matched pairs of all processes, those of points and those of boxes apart."""
        features = self.model.look(self.proposer.normalise(batch.images))
        masks = [some.to(self.device) for some in batch.masks]
        shares = [covered_share(some, features.pixels.shape[-2:]) for some in masks]
        terms: dict[str, list[torch.Tensor]] = {name: [] for name in self.weights}
        for kind, prompts in (("point", batch.points), ("box", batch.boxes)):
            places, wanted = prompts.places.to(self.device), prompts.wanted.to(self.device)
            if places.shape[1]:
                boxes = small_boxes(places, self.config.point_side) if kind == "point" else places
                own = meant(Prompts(places, wanted), masks)
                for answer in self.model(features, boxes, kind):
                    for name, value in self._stage(answer, masks, shares, own, wanted).items():
                        terms[name].append(value)
        return {name: torch.stack(values).sum() for name, values in terms.items() if values}

    def _stage(
        self,
        answer: PromptedMasks,
        masks: list[torch.Tensor],
        shares: list[torch.Tensor],
        own: list[torch.Tensor],
        wanted: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        matches = match_prompts(answer.mask_logits, shares, own, wanted, config.matching, config.positive)
        count = self._count(len(matches.pairs))
        found = prompted_mask_losses(answer.mask_logits, masks, matches.pairs, count, config.num_points or None)
        if not config.quality_weight:
            return found
        chosen = matches.matched
        if config.quality_of == "all":
            chosen = matches.pointed[..., None].expand_as(chosen)
        count = self._count(int(chosen.sum()))
        return found | {"quality": quality_loss(answer.quality_logits, matches.quality, chosen, count)}

    def _count(self, here: int) -> float:
        return max(1, total_count(here, self.device)) / world_size()


def meant(prompts: Prompts, masks: list[torch.Tensor]) -> list[torch.Tensor]:
    """The masks that each prompt may mean: b (P, M_b) bool. Of a point all that contain it, of a box the one that it
    was drawn from."""
    found = []
    for places, wanted, some in zip(prompts.places, prompts.wanted, masks, strict=True):
        numbers = torch.arange(len(some), device=places.device)
        if places.shape[-1] == 2:
            found.append(pixels_at_points(some, numbers, places.expand(len(some), -1, -1)).T)
        else:
            found.append(wanted[:, None] == numbers)
    return found


def build(config: PromptConfig) -> PromptTraining:
    """A new segmenter and its images with masks."""
    segmenter = PromptSegmenter(config)
    batches, found = mask_batches(config, segmenter)
    settings = (config.points, config.boxes, config.jitter, config.areas, config.most_masks)
    prompted = PromptBatches(batches, *settings)
    return PromptTraining(segmenter, Prefetched(prompted), found)
