"""How the two proposal models are trained: best match alone, or one-to-one with "no object".

OpenSeg, section 3.1 (Eq. 1); MaskFormer, section 3.2, with the text classifier of OVSeg, section 3.1. Departures: the
targets are segments unless the batches are made with per="class" (MaskFormer trains semantic segmentation per class),
and they are brought to the predictions' size by averaging, so that a mask of one pixel still counts; the released
MaskFormer takes the nearest pixel (`shrink="nearest"`).
B images, M_b masks, K classes, D embedding, h w a quarter of the picture's sides.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ovs_lite.data.batches import MaskBatch
from ovs_lite.distributed import shard, world_size
from ovs_lite.losses.masks import best_match_dice_loss
from ovs_lite.losses.set_prediction import class_loss, match_masks, matched_mask_losses
from ovs_lite.models.maskformer import MaskFormer
from ovs_lite.models.openseg import OpenSegProposals

Normalise = Callable[[torch.Tensor], torch.Tensor]
SHRINKS = ("area", "nearest")


def shrunk(masks: torch.Tensor, size: tuple[int, int], shrink: str = "area") -> torch.Tensor:
    """(M, H, W) bool -> (M, h, w) float in [0, 1]: the covered share of every cell, or its nearest pixel."""
    if shrink not in SHRINKS:
        raise ValueError(f"got shrink={shrink!r}, expected one of {', '.join(SHRINKS)}")
    return F.interpolate(masks[:, None].float(), size, mode=shrink)[:, 0]


class _ProposalTraining:
    """What both have in common. batches: index -> MaskBatch; normalise: (B, 3, H, W) in [0, 1] -> the model's input."""

    def __init__(self, model: torch.nn.Module, batches: Callable[[int], MaskBatch], normalise: Normalise, shrink: str):
        self.model, self.batches, self.normalise, self.shrink = model, batches, normalise, shrink
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)
        self.device = device

    def batch(self, index: int) -> MaskBatch:
        """The whole batch of an index; every process draws it and trains on its share."""
        return self.batches(index)

    def count(self, batch: MaskBatch) -> int:
        """B pictures."""
        return len(batch)

    def ids(self, batch: MaskBatch) -> list[str]:
        """The pictures' names, for the report of a loss that is not finite."""
        return batch.image_ids

    def _inputs(self, batch: MaskBatch) -> torch.Tensor:
        return self.normalise(shard(batch.images)).to(self.device)

    def _targets(self, batch: MaskBatch, size: tuple[int, int]) -> list[torch.Tensor]:
        return [shrunk(masks, size, self.shrink).to(self.device) for masks in shard(batch.masks)]


class BestMatchTraining(_ProposalTraining):
    """OpenSeg's proposals by Eq. 1 alone: regions that nobody annotated cost nothing."""

    weights = {"best_match_dice": 1.0}

    def __init__(
        self,
        model: OpenSegProposals,
        batches: Callable[[int], MaskBatch],
        normalise: Normalise,
        shrink: str = "area",
    ):
        super().__init__(model, batches, normalise, shrink)

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """One term; its mean runs over all images with targets in all processes."""
        logits = self.model(self._inputs(batch))
        with_targets = sum(len(masks) > 0 for masks in batch.masks)  # the whole batch is known everywhere
        probs = logits.float().sigmoid()
        targets = self._targets(batch, logits.shape[-2:])
        return {"best_match_dice": best_match_dice_loss(probs, targets, max(1, with_targets) / world_size())}


class MaskFormerTraining(_ProposalTraining):
    """MaskFormer's three terms, summed over the decoder's layers (the earlier ones are its auxiliary losses).

    text_embeddings: (K, D) of the class names, in the order of the batches' labels. no_object: weight of the class of
    unmatched proposals. num_points: of the mask losses, None for all pixels.
    """

    weights = {"class": 1.0, "focal": 20.0, "dice": 1.0}

    def __init__(
        self,
        model: MaskFormer,
        batches: Callable[[int], MaskBatch],
        normalise: Normalise,
        text_embeddings: torch.Tensor,
        no_object: float = 0.1,
        num_points: int | None = None,
        shrink: str = "area",
    ):
        super().__init__(model, batches, normalise, shrink)
        self.text_embeddings, self.no_object, self.num_points = text_embeddings, no_object, num_points

    def to(self, device: torch.device) -> None:
        """Move the model and the class names' embeddings."""
        super().to(device)
        self.text_embeddings = self.text_embeddings.to(device)

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """Every layer is matched anew. Terms are divided by the targets of all processes, as the released code does.

        Raises ValueError naming the picture for a label that is none of the K classes.
        """
        self._check(batch)
        answers = self.model(self._inputs(batch))
        targets = self._targets(batch, answers[-1].mask_logits.shape[-2:])
        labels = [label.to(self.device) for label in shard(batch.labels)]
        count = max(1, sum(len(masks) for masks in batch.masks)) / world_size()
        terms: dict[str, list[torch.Tensor]] = {name: [] for name in self.weights}
        for answer in answers:
            logits = self.model.class_logits(answer.embeddings, self.text_embeddings)
            matches = match_masks(logits, answer.mask_logits, labels, targets)
            terms["class"].append(class_loss(logits, labels, matches, self.no_object, self._weight(batch, logits)))
            found = matched_mask_losses(answer.mask_logits, targets, matches, count, self.num_points)
            for name, value in found.items():
                terms[name].append(value)
        return {name: torch.stack(values).sum() for name, values in terms.items()}

    def _check(self, batch: MaskBatch) -> None:
        """Label K would pass in silence: it is the column of "no object"."""
        known = len(self.text_embeddings)
        for name, label in zip(batch.image_ids, batch.labels, strict=True):
            if len(label) and not 0 <= int(label.min()) <= int(label.max()) < known:
                found = f"labels {label.unique().tolist()} in {name!r}"
                raise ValueError(f"got {found}, expected those of the {known} classes, 0..{known - 1}")

    def _weight(self, batch: MaskBatch, logits: torch.Tensor) -> float:
        """The class weights of all proposals in all processes: 1 where matched, `no_object` elsewhere."""
        proposals = logits.shape[1]
        matched = sum(min(proposals, len(masks)) for masks in batch.masks)
        return (matched + self.no_object * (len(batch) * proposals - matched)) / world_size()
