"""How LSeg+ is trained: cross-entropy of every annotated pixel with the seen classes' text embeddings.

B images of all processes, b of this one, K classes, D joint embedding, S pixels of the square, h w a quarter of it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ovs_lite.clip import load_clip
from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import total_count, world_size
from ovs_lite.files import data_path
from ovs_lite.methods.lseg.config import LSegConfig
from ovs_lite.methods.lseg.method import LSeg
from ovs_lite.methods.recipe import Task
from ovs_lite.models.text_masks import patch_cosines


class LSegTraining(Task):
    """Train a method's network. text: (K, D) of the classes. batches: index -> MaskBatch with labels."""

    weights = {"cross_entropy": 1.0}

    def __init__(self, method: LSeg, text: torch.Tensor, batches: Any, found: dict[str, Any] | None = None):
        super().__init__(method, method.network, batches, found)
        self.method, self.text = method, text

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """One term: the mean over all labelled places of all processes; 0 where there is none."""
        device = self.method.clip.device
        pixels = self.model(batch.images.to(device)).float()
        target = label_maps(batch.masks, batch.labels, pixels.shape[-2:]).to(device)
        labelled = total_count(int((target >= 0).sum()), device)
        with torch.autocast(device.type, enabled=False):  # of cosines in half precision, 1 / temperature would be seen
            logits = patch_cosines(pixels, self.text.to(device)) / self.model.temperature
        total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
        return {"cross_entropy": total / (max(1, labelled) / world_size())}


def label_maps(masks: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """b lists of (M, S, S) bool masks and their (M,) classes -> (b, h, w) int64: the class at each place's centre, -1
    where no mask is; where masks overlap the last one counts."""
    maps = []
    for some, classes in zip(masks, labels, strict=True):
        target = torch.full((1, 1, *some.shape[1:]), -1.0)
        for mask, label in zip(some, classes.tolist(), strict=True):
            target[0, 0, mask] = label
        maps.append(F.interpolate(target, size, mode="nearest-exact")[0, 0].long())
    return torch.stack(maps)


def build(config: LSegConfig) -> LSegTraining:
    """A network that starts from the configuration's backbone, and its images with classes.

    Raises ValueError where the split has classes that the vocabulary lacks.
    """
    clip, names = load_clip(config.clip, config.pretrained), list(load_vocabulary(config.vocabulary).names)
    method, split = LSeg(clip, config, fresh=True), load_split(data_path(config.data))
    infos = split.select_columns(["segments_info"]).with_format("arrow")[:]["segments_info"].to_pylist()
    highest = max((info["category_id"] for some in infos for info in some or ()), default=-1)
    if highest >= len(names):
        raise ValueError(
            f"{config.data}: got category {highest}, expected those of {config.vocabulary}, 0..{len(names) - 1}"
        )
    fill = tuple(method.network.mean)
    batches = MaskBatches(split, config.batch, config.image_size, config.loop.seed, config.rescale, fill=fill)
    found = {"records": len(split), "text_tower": clip.fingerprint()}
    return LSegTraining(method, clip.text_embeddings(names, config.templates), Prefetched(batches), found)
