"""How TCL is trained: a text draws its mask, and the masked image must fit that text better than all others.

TCL (Cha et al., CVPR 2023), section 3.3, Eq. 6-12; weights, priors and which mask goes where as in its released code.
Departures, both so that several processes train as one: the last block, once it is unfrozen, has its gradients averaged
over processes like everything else (in the released code every process appears to go its own way); the areas of Eq. 10
are means over all processes' images (there, each process has its own). So 2 processes with 8 pairs train as 1 with 16.
B images, T texts of all processes, D joint embedding, H W pixels, h w of the mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip, load_clip
from ovs_lite.data.loaders.pair_batches import PairBatch, PairBatches, load_pairs
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.distributed import gather_with_gradient, rank
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.losses.tcl import area_loss, text_grounding_terms, tv_loss
from ovs_lite.methods.recipe import Task
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.models.text_masks import EPS, binary_gumbel, mask_logits
from ovs_lite.tensors import products


@dataclass(frozen=True)
class PairsAtStep:
    """A batch, and whether the last block learns from it."""

    pairs: PairBatch
    train_block: bool


class TclTraining(Task):
    """Train a method's grounder on image-text pairs. Terms: image (Eq. 6), feature (Eq. 9), area (10), smooth (11).

    A fifth, contrastive, is the baseline of the paper's Table 2 and off by default: the usual InfoNCE of whole images,
    of the mean of all pixel embeddings (the paper pools them by attention).

    method: whose grounder is trained.
    batches: index -> PairBatch, this process's share.
    config: weights (a term with weight 0 is not computed), priors, variant.
    """

    def __init__(
        self,
        method: Tcl,
        batches: Callable[[int], PairBatch],
        config: TclConfig | None = None,
        found: dict[str, Any] | None = None,
    ):
        super().__init__(method, method.grounder, batches, found)
        self.method, self.config = method, config or TclConfig()
        self.weights = self.config.weights()
        loop, never = self.config.loop, self.config.unfreeze >= 1
        # the first batch that trains the copy of CLIP's last block
        self.unfreeze_batch = None if never else round(self.config.unfreeze * loop.steps) * loop.accumulation

    @property
    def clip(self) -> Clip:
        """The frozen CLIP."""
        return self.method.clip

    def batch(self, index: int) -> PairsAtStep:
        """The pairs of an index; each process has its share of them."""
        return PairsAtStep(self.batches(index), self.unfreeze_batch is not None and index >= self.unfreeze_batch)

    def count(self, batch: PairsAtStep) -> int:
        """Pairs of all processes."""
        return batch.pairs.total

    def image_ids(self, batch: PairsAtStep) -> list[str]:
        """Names of this process's images."""
        return batch.pairs.image_ids

    def losses(self, batch: PairsAtStep) -> dict[str, torch.Tensor]:
        """The terms that have a weight, over the pairs of all processes."""
        pairs, grounder = batch.pairs, self.model
        images = self.clip.normalise(pairs.images.to(self.clip.device))
        with torch.no_grad():
            texts = gather_with_gradient(self.clip.encode_text(pairs.captions))
        own = torch.arange(len(images), device=images.device) + rank() * len(images)
        pixels = self.method.pixel_embeddings(images, batch.train_block)
        if self.config.variant == "paper":
            pixels = F.normalize(pixels, dim=1, eps=EPS)
        # all pairs of images and texts, once, and only where a term needs them
        terms = cache(lambda: text_grounding_terms(pixels, texts, grounder.scale, grounder.bias, own))
        found: dict[str, Callable[[], torch.Tensor]] = {
            "image": lambda: self._image_level(images, pixels, texts, own),
            "feature": lambda: info_nce(gather_with_gradient(terms().similarity), grounder.feature_scale),
            "area": lambda: self._areas(terms().positive_areas, terms().negative_areas),
            "smooth": lambda: terms().mask_tv + tv_loss(pixels),
            "contrastive": lambda: self._whole_images(pixels, texts),
        }
        return {name: term() for name, term in found.items() if self.weights[name]}

    def _image_level(self, images, pixels, texts, own) -> torch.Tensor:
        """Eq. 6: what the own text's binary mask shows goes through the frozen CLIP, the rest as the mean colour."""
        logits = mask_logits(pixels, texts[own][:, None], self.model.scale, self.model.bias)
        shown = F.interpolate(binary_gumbel(logits), images.shape[-2:], mode="nearest")
        masked = gather_with_gradient(self.clip.encode_image(images * shown))
        return info_nce(products(masked, texts), self.model.image_scale)

    def _whole_images(self, pixels, texts) -> torch.Tensor:
        pooled = gather_with_gradient(F.normalize(pixels.mean((2, 3)), dim=1))
        return info_nce(products(pooled, texts), self.model.image_scale)

    def _areas(self, positive, negative) -> torch.Tensor:
        priors = (self.config.positive_area, self.config.negative_area)
        return area_loss(*(gather_with_gradient(area) for area in (positive, negative)), *priors)


def build(config: TclConfig) -> TclTraining:
    """A grounder that starts from the configuration's CLIP, and its pairs.

    Raises ValueError for an image size that is no multiple of the CLIP's patch: masks would be stretched over a rest
    that no patch sees.
    """
    clip, pairs = load_clip(config.clip, config.pretrained), load_pairs(config.data)
    method = Tcl(clip)
    if config.image_size % clip.patch_size:
        given = f"image_size={config.image_size}"
        raise ValueError(f"got {given}, expected a multiple of the CLIP's patch, {clip.patch_size} pixels")
    settings = (config.batch, config.image_size, config.loop.seed, config.crop_area)
    batches = PairBatches(pairs, *settings, augment=config.augment, workers=config.workers)
    found = {"pairs": len(pairs), "text_tower": clip.fingerprint(), "image_tower": clip.image_fingerprint()}
    in_thread = config.workers == 0 and config.augment == "crop"  # strong draws from torch's global generator
    task = TclTraining(method, Prefetched(batches) if in_thread else batches, config, found=found)
    if isinstance(pairs, WebShards):
        task.notes = lambda: [_shards_used(pairs, batches)]
    return task


def _shards_used(pairs: WebShards, batches: PairBatches) -> str:
    shards = f"{len(pairs):,} pairs in {len(pairs.paths)} shards, {pairs.bad_shards} bad shards left out"
    unused = f"; {pairs.unused} members belong to no pair\n{pairs.report.summary()}" if pairs.unused else ""
    return f"{shards}; {len(batches.skipped)} bad pairs met by this process{unused}"
