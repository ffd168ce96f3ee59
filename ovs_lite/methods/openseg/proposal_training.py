"""How OpenSeg's proposals are trained: by best match alone, Eq. 1 (paper: section 3.1).

Departure: targets are brought to the predictions' size by averaging, so that a mask of one pixel still counts.
B images, M_b masks, H W pixels, h w a quarter of the image's sides.
"""

from collections.abc import Sequence

import torch

from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.distributed import total_count, world_size
from ovs_lite.losses.masks import best_match_dice_loss, covered_share
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig, ProposalTraining, training_batches


class BestMatchTraining(ProposalTraining):
    """OpenSeg's proposals by Eq. 1 alone: regions that nobody annotated cost nothing."""

    weights = {"best_match_dice": 1.0}

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """One term; its mean runs over all images with targets in all processes."""
        logits = self.model(self.proposer.normalise(batch.images))
        return {"best_match_dice": mask_loss(logits.float().sigmoid(), batch.masks)}


def mask_loss(probs: torch.Tensor, masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Eq. 1 of this process's proposals (b, N, h, w) in [0, 1] and b lists of masks (M, H, W) bool, divided by the
    images with masks in all processes."""
    with_targets = total_count(sum(len(some) > 0 for some in masks), probs.device)
    targets = [covered_share(some, probs.shape[-2:]).to(probs.device) for some in masks]
    return best_match_dice_loss(probs, targets, max(1, with_targets) / world_size())


def build(config: ProposalConfig) -> BestMatchTraining:
    """A new proposal model and its images with masks."""
    proposer = OpenSegProposer(config)
    return BestMatchTraining(proposer, *training_batches(config, proposer))
