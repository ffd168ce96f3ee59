"""How OpenSeg's proposals are trained: by best match alone, Eq. 1 (paper: section 3.1).

Departure: targets are brought to the predictions' size by averaging, so that a mask of one pixel still counts.
B images, M_b masks, H W pixels, h w a quarter of the image's sides.
"""

import torch
import torch.nn.functional as F

from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.distributed import total_count, world_size
from ovs_lite.losses.masks import best_match_dice_loss
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposal_training import ProposalTraining, training_batches
from ovs_lite.methods.proposer import ProposalConfig


class BestMatchTraining(ProposalTraining):
    """OpenSeg's proposals by Eq. 1 alone: regions that nobody annotated cost nothing."""

    weights = {"best_match_dice": 1.0}

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """One term; its mean runs over all images with targets in all processes."""
        logits = self.model(self.inputs(batch))
        with_targets = total_count(sum(len(masks) > 0 for masks in batch.masks), self.device)
        targets = [covered_share(masks, logits.shape[-2:]).to(self.device) for masks in batch.masks]
        loss = best_match_dice_loss(logits.float().sigmoid(), targets, max(1, with_targets) / world_size())
        return {"best_match_dice": loss}


def covered_share(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(M, H, W) bool -> (M, h, w) float in [0, 1]: the share of every cell that a mask covers."""
    return F.interpolate(masks[:, None].float(), size, mode="area")[:, 0]


def build(config: ProposalConfig) -> BestMatchTraining:
    """A new proposal model and its images with masks."""
    proposer = OpenSegProposer(config)
    batches, found = training_batches(config, proposer)
    task = BestMatchTraining(proposer, batches)
    task.found = found
    return task
