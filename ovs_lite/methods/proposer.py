"""A proposal model: its backbone's normalisation, masks at the image's size, one file on disk, how it is trained.

B images, N proposals, H W pixels, h w a quarter of the image's sides.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import load_clip
from ovs_lite.config import LoopConfig, check_least, flatten, override, to_dict
from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.files import data_path
from ovs_lite.methods.recipe import Recipe, Task
from ovs_lite.methods.registry import get_recipe
from ovs_lite.models.backbone import STRIDES, Backbone
from ovs_lite.regions.ranking import agreement, nms_order
from ovs_lite.regions.score_maps import masks_at_stride
from ovs_lite.tensors import load_exactly, read_tensors, write_tensors

LITE_TRUNK = "convnext_lite"  # the backbone that the shipped ConvNeXt-Lite brings weights for
WEIGHTS = "proposals.safetensors"


@dataclass(frozen=True)
class MaskConfig:
    """A model of masks without classes and its training, with the miniature's values. Raises ValueError for impossible
    sizes."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=200, lr=1e-3, muon_lr=0.01, weight_decay=1e-5, warmup=10)
    )
    data: str = "icon-lite/icon-coco/train"  # prepared split with masks: a folder, or one below data/
    batch: int = 16  # images per step, of all processes
    image_size: int = 128  # side of a training image, a multiple of 32 pixels
    rescale: tuple[float, float] = (0.8, 1.2)  # range of the random rescaling of the image's long side
    per: str = "segment"  # what one target mask is: a segment, or all of a class
    backbone: str = LITE_TRUNK  # timm name; convnext_lite starts from the shipped CLIP's image tower
    backbone_pretrained: bool = False  # start from timm's weights (a download)
    channels: int = 64  # of the pyramid and the queries
    layers: int = 1  # of the query decoder
    heads: int = 4  # of its attention

    def __post_init__(self):
        check_least(self, 1, "layers", "heads", "image_size", "batch")
        check_least(self, 8, "channels")
        check_sides(self)
        if self.channels % 8 or self.channels % self.heads:
            given = f"channels={self.channels}, heads={self.heads}"
            raise ValueError(f"got {given}, expected channels that 8 and the number of heads divide")


@dataclass(frozen=True)
class ProposalConfig(MaskConfig):
    """A mask proposal model and its training."""

    queries: int = 128  # proposals per image

    def __post_init__(self):
        super().__post_init__()
        check_least(self, 1, "queries")


def check_sides(config: Any) -> None:
    """Raise ValueError for training images that a `Backbone` would pad: their masks would not lie on its maps."""
    if config.image_size % STRIDES[-1]:
        raise ValueError(f"got image_size={config.image_size}, expected a multiple of {STRIDES[-1]} pixels")


class MaskProposer(nn.Module):
    """Mask proposals behind one call. Subclasses set `recipe` and define `answer`.

    config: sizes, and the name of the backbone.
    backbone: whose statistics normalise images.
    network: what is trained; holds the backbone.
    """

    recipe = ""

    def __init__(self, config: MaskConfig, backbone: Backbone, network: nn.Module):
        super().__init__()
        self.config, self.network = config, network
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)

    @classmethod
    def stored(cls, config: MaskConfig, tensors: dict[str, torch.Tensor]) -> "MaskProposer":
        """A model that `tensors`, from a file of `save`, will fill."""
        return cls(config, fresh=False)

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w), and (B, N) objectness in [0, 1] or None without one."""
        raise TypeError(f"{type(self).__name__} must define answer(images)")

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> what the backbone was trained on."""
        return (images.to(self.mean.device) - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, 3, H, W) RGB in [0, 1] -> soft masks (B, N, H, W) in [0, 1], and (B, N) objectness or None.

        Masks are resized bilinearly before the sigmoid.
        """
        logits, objectness = self.answer(self.normalise(images))
        return masks_at_stride(logits.float(), images.shape[-2:]).sigmoid(), objectness

    @torch.no_grad()
    def propose(self, image: np.ndarray, budget: int | None = None, objects_only: bool = False) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> at most `budget` soft masks (N, H, W), the best first.

        Duplicates of a better mask come after all others, empty ones last. objects_only: leave out what the model calls
        "no object". Images larger than those of the training run are seen at that size. Raises ValueError for
        objects_only where the model knows no "no object".
        """
        masks, _ = self.ranked(image, objects_only)
        return F.interpolate(masks[:budget, None], image.shape[:2], mode="bilinear", align_corners=False)[:, 0]

    @torch.no_grad()
    def ranked(self, image: np.ndarray, objects_only: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """As `propose`: all masks (N, h, w), at the size at which the image was seen, and their scores (N,).

        The score is the model's objectness where it has one, else how many proposals found the same region
        (`agreement`), times how sure a mask is of its own pixels, the mean of s where s > 0.5.
        """
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.mean.device) / 255
        factor = min(1.0, self.config.image_size / max(pixels.shape[-2:]))
        size = tuple(max(1, round(side * factor)) for side in pixels.shape[-2:])
        seen = F.interpolate(pixels, size, mode="bilinear", antialias=True) if factor < 1 else pixels
        masks, objectness = (found if found is None else found[0] for found in self(seen))
        if objects_only and objectness is None:
            raise ValueError(f'got objects_only, expected a model that knows "no object", which {self.recipe} does not')
        inside = (masks > 0.5).float()
        scores = agreement(inside) if objectness is None else objectness
        scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        order = scores.argsort(descending=True, stable=True)
        if objects_only:
            order = order[objectness[order] > 0.5]
        order = order[nms_order(inside[order])]
        return masks[order], scores[order]

    def save(self, path: str | Path) -> None:
        """Write weights and configuration to one safetensors file. Atomic."""
        about = {"recipe": self.recipe, "config": json.dumps(to_dict(self.config))}
        write_tensors(path, self.state_dict(), about)


def start_backbone(config: MaskConfig, fresh: bool, lite: str = "lite") -> Backbone:
    """The configuration's backbone. fresh: with the weights that it starts from (convnext_lite: a CLIP's image tower,
    as OpenSeg's starts from ALIGN's), else random ones that a file will replace.

    lite: which ConvNeXt-Lite's tower that is: the shipped one's, or of a file that `ovs-lite train clip` wrote.
    """
    towers = fresh and config.backbone == LITE_TRUNK
    trunk = load_clip("ConvNeXt-Lite", lite).network.visual.trunk if towers else None
    timm_weights = fresh and config.backbone_pretrained and trunk is None
    return Backbone(config.backbone, timm_weights, config.image_size, trunk)


def load_proposer(path: str | Path) -> MaskProposer:
    """Read what `MaskProposer.save` wrote, in evaluation mode.

    Raises FileNotFoundError, or ValueError naming the file and what does not fit.
    """
    path = Path(path)
    if not path.exists():
        advice = "train them with: ovs-lite train openseg-proposals (or another recipe that writes proposals)"
        raise FileNotFoundError(f"{path}: no such proposals; {advice}")
    tensors, about = read_tensors(path)
    try:
        recipe = get_recipe(about["recipe"])
        config = override(recipe.presets["lite"], dict(flatten(json.loads(about["config"]))))
        proposer = recipe.model.stored(config, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: not mask proposals that `ovs-lite train` writes ({reason})") from error
    load_exactly(proposer, tensors, path)
    return proposer.eval()


def proposer_recipe(**own: Any) -> Recipe:
    """The recipe of a mask proposal model: one file of weights, which `load_proposer` reads. own: the other fields."""
    return Recipe(
        save=lambda task, path, config: task.proposer.save(path),
        load=lambda path, config: load_proposer(path),
        weights=lambda config: WEIGHTS,
        **own,
    )


class ProposalTraining(Task):
    """The training of a proposer's network, without its losses. batches: index -> MaskBatch, this process's share."""

    def __init__(
        self, proposer: MaskProposer, batches: Callable[[int], MaskBatch], found: dict[str, Any] | None = None
    ):
        super().__init__(proposer, proposer.network, batches, found)
        self.proposer = proposer

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device


def mask_batches(config: MaskConfig, proposer: MaskProposer) -> tuple[MaskBatches, dict[str, int]]:
    """index -> MaskBatch of the configuration's split, padded with the backbone's mean colour; and what was found."""
    split, fill = load_split(data_path(config.data)), tuple(proposer.mean.flatten().tolist())
    settings = (config.batch, config.image_size, config.loop.seed, config.rescale)
    return MaskBatches(split, *settings, per=config.per, fill=fill), {"records": len(split)}


def training_batches(config: MaskConfig, proposer: MaskProposer) -> tuple[Prefetched, dict[str, int]]:
    """`mask_batches`, prepared while the batch before trains."""
    batches, found = mask_batches(config, proposer)
    return Prefetched(batches), found
