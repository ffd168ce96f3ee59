"""What the trainings of mask proposals have in common: a proposer, its batches, and where they go.

B images, M_b masks, H W pixels.
"""

from collections.abc import Callable
from typing import Any

import torch

from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.files import data_path
from ovs_lite.methods.proposer import MaskProposer, ProposalConfig


class ProposalTraining:
    """A task without its losses. proposer: whose network is trained. batches: index -> MaskBatch, this process's."""

    weights: dict[str, float] = {}

    def __init__(self, proposer: MaskProposer, batches: Callable[[int], MaskBatch]):
        self.proposer, self.batches, self.model = proposer, batches, proposer.network
        self.found: dict[str, Any] = {}
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.proposer.to(device)
        self.device = device

    def batch(self, index: int) -> MaskBatch:
        """This process's share of the batch of an index."""
        return self.batches(index)

    def count(self, batch: MaskBatch) -> int:
        """B images of all processes."""
        return batch.total

    def image_ids(self, batch: MaskBatch) -> list[str]:
        """Names of this process's images."""
        return batch.image_ids

    def inputs(self, batch: MaskBatch) -> torch.Tensor:
        """The images (B, 3, H, W), normalised, on the model's device."""
        return self.proposer.normalise(batch.images).to(self.device)


def training_batches(config: ProposalConfig, proposer: MaskProposer) -> tuple[Prefetched, dict[str, int]]:
    """index -> MaskBatch of the configuration's split, padded with the backbone's mean colour; and what was found."""
    split, fill = load_split(data_path(config.data)), tuple(proposer.mean.flatten().tolist())
    settings = (config.batch, config.image_size, config.loop.seed, config.rescale)
    return Prefetched(MaskBatches(split, *settings, per=config.per, fill=fill)), {"records": len(split)}
