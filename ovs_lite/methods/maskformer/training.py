"""How MaskFormer is trained: one-to-one with "no object", every decoder layer.

MaskFormer, section 3.2, Eq. 1; the text classifier of OVSeg, section 3.1. Targets are segments unless the batches are
made with per="class" (MaskFormer trains semantic segmentation per class).
B images, M_b masks, K classes, D embedding, h w a quarter of the image's sides.
"""

from collections.abc import Callable
from typing import Any

import torch

from ovs_lite.clip import load_clip
from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import total_count, world_size
from ovs_lite.files import file_digest
from ovs_lite.losses.set_prediction import class_loss, match_masks, matched_mask_losses
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.proposer import ProposalTraining, load_proposer, training_batches
from ovs_lite.tensors import load_exactly


class MaskFormerTraining(ProposalTraining):
    """MaskFormer's three terms, summed over the decoder's layers (the earlier ones are its auxiliary losses).

    proposer: its classes are the embeddings of the batches' labels, in their order.
    batches: index -> MaskBatch, this process's share.
    no_object: weight of the class of unmatched proposals.
    num_points: of the mask losses, None for all pixels.
    """

    weights = {"class": 1.0, "focal": 20.0, "dice": 1.0}

    def __init__(
        self,
        proposer: MaskFormerProposer,
        batches: Callable[[int], MaskBatch],
        no_object: float = 0.1,
        num_points: int | None = None,
        found: dict[str, Any] | None = None,
    ):
        super().__init__(proposer, batches, found)
        self.no_object, self.num_points = no_object, num_points

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """Every layer is matched again. Terms are divided by the targets of all processes, as the released code does.

        Raises ValueError naming the image for a label that is none of the K classes.
        """
        self._check(batch)
        answers = self.model(self.proposer.normalise(batch.images))
        targets = [masks.float().to(self.device) for masks in batch.masks]
        labels = [label.to(self.device) for label in batch.labels]
        count = max(1, total_count(sum(len(masks) for masks in batch.masks), self.device)) / world_size()
        weight = self._class_weight(batch, answers[-1].mask_logits.shape[1])
        terms: dict[str, list[torch.Tensor]] = {name: [] for name in self.weights}
        for answer in answers:
            logits = self.model.class_logits(answer.embeddings, self.proposer.classes)
            matches = match_masks(logits, answer.mask_logits, labels, targets)
            terms["class"].append(class_loss(logits, labels, matches, self.no_object, weight))
            found = matched_mask_losses(answer.mask_logits, targets, matches, count, self.num_points)
            for name, value in found.items():
                terms[name].append(value)
        return {name: torch.stack(values).sum() for name, values in terms.items()}

    def _check(self, batch: MaskBatch) -> None:
        """Label K would pass in silence: it is the column of "no object"."""
        known = len(self.proposer.classes)
        for name, label in zip(batch.image_ids, batch.labels, strict=True):
            if len(label) and not 0 <= int(label.min()) <= int(label.max()) < known:
                found = f"labels {label.unique().tolist()} in {name!r}"
                raise ValueError(f"got {found}, expected those of the {known} classes, 0..{known - 1}")

    def _class_weight(self, batch: MaskBatch, proposals: int) -> float:
        """The class weights of all proposals in all processes: 1 where matched, `no_object` elsewhere."""
        matched = total_count(sum(min(proposals, len(masks)) for masks in batch.masks), self.device)
        return (matched + self.no_object * (batch.total * proposals - matched)) / world_size()


def build(config: MaskFormerConfig) -> MaskFormerTraining:
    """A new model, or one that starts from another run's weights, whose classes are the vocabulary's names, and its
    images with masks. Raises what `load_proposer` does, and ValueError for weights of other sizes or another kind."""
    clip = load_clip(config.clip, config.pretrained)
    classes = clip.text_embeddings(list(load_vocabulary(config.vocabulary).names)).cpu()
    proposer = MaskFormerProposer(config, classes)
    batches, found = training_batches(config, proposer)
    found |= {"text_tower": clip.fingerprint()}
    if config.start:
        before = load_proposer(config.start).state_dict() | {"classes": classes}
        load_exactly(proposer, before, config.start)
        found["start"] = file_digest(config.start)
    return MaskFormerTraining(proposer, batches, config.no_object, config.num_points or None, found)
