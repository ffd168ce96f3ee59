"""A proposal model ready to use: its backbone's normalisation, masks at the picture's size, one file on disk.

B images, N proposals, H W pixels.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn

from ovs_lite.clip import load_clip
from ovs_lite.config import ProposalConfig
from ovs_lite.files import write_tensors
from ovs_lite.models.backbone import Backbone
from ovs_lite.models.maskformer import MaskFormer
from ovs_lite.models.openseg import OpenSegProposals

KINDS = ("openseg", "maskformer")
REPEAT = 0.7  # IoU beyond which one proposal repeats another
LITE_TRUNK = "convnext_lite"  # the backbone that the shipped ConvNeXt-Lite brings weights for


class MaskProposer(nn.Module):
    """OpenSeg's or MaskFormer's proposals behind one call.

    kind: of KINDS. classes: (K, D) L2-normalised text embeddings of the classes that MaskFormer is trained with (K = 0
    for OpenSeg, which knows none). trunk: network whose weights the backbone starts from. What is trained is `network`.
    """

    def __init__(
        self, kind: str, config: ProposalConfig, classes: torch.Tensor | None = None, trunk: nn.Module | None = None
    ):
        if kind not in KINDS:
            raise ValueError(f"got proposal model {kind!r}, expected one of {', '.join(KINDS)}")
        classes = classes if classes is not None and len(classes) else None
        if (kind == "maskformer") == (classes is None):
            raise ValueError(
                f"got {'no ' * (classes is None)}classes for {kind}: maskformer needs them, openseg has none"
            )
        super().__init__()
        self.kind, self.config = kind, config
        backbone = Backbone(config.backbone, config.pretrained and trunk is None, config.image_size, trunk)
        sizes = (config.channels, config.queries, config.layers, config.heads)
        if classes is None:
            side = -(-config.image_size // 4)
            self.network: nn.Module = OpenSegProposals(backbone, *sizes, grid=(side, side))
        else:
            self.network = MaskFormer(backbone, classes.shape[1], *sizes)
        self.register_buffer("classes", torch.zeros(0, 0) if classes is None else classes.clone())
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> what the backbone was trained on."""
        return (images.to(self.mean.device) - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> soft masks (B, N, H, W) and objectness (B, N), both in [0, 1].

        Masks are enlarged bilinearly before the sigmoid. Objectness is 1 - p("no object"); OpenSeg has no such class,
        its proposals all have 1.
        """
        answer = self.network(self.normalise(images))
        if torch.is_tensor(answer):
            logits, objectness = answer, torch.ones_like(answer[..., 0, 0])
        else:
            logits = answer[-1].mask_logits
            objectness = 1 - self.network.class_logits(answer[-1].embeddings, self.classes).softmax(-1)[..., -1]
        masks = F.interpolate(logits.float(), images.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
        return masks, objectness

    @torch.no_grad()
    def propose(self, image: np.ndarray, budget: int | None = None, objects_only: bool = False) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> at most `budget` soft masks (N, H, W), the best first.

        Ordered by a score times how sure a mask is of its own pixels, the mean of s where s > 0.5. MaskFormer's score
        is its objectness. OpenSeg gives none; here it is how many proposals found the same region (`agreement`). Masks
        that repeat a better one come after all others, empty ones last. objects_only: leave out what MaskFormer calls
        "no object". Pictures larger than those of the training are seen at that size.
        """
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.mean.device) / 255
        factor = min(1.0, self.config.image_size / max(pixels.shape[-2:]))
        size = tuple(max(1, round(side * factor)) for side in pixels.shape[-2:])
        seen = F.interpolate(pixels, size, mode="bilinear", antialias=True) if factor < 1 else pixels
        masks, objectness = (found[0] for found in self(seen))
        inside = (masks > 0.5).float()
        scores = objectness if len(self.classes) else agreement(inside)
        scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        order = scores.argsort(descending=True, stable=True)
        if objects_only:
            order = order[objectness[order] > 0.5]
        chosen = masks[order[repeats_last(inside[order])][:budget]]
        return F.interpolate(chosen[:, None], pixels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]

    def save(self, path: str | Path) -> None:
        """Write weights, classes and configuration to one safetensors file. Atomic."""
        about = {"kind": self.kind, "config": json.dumps(asdict(self.config))}
        write_tensors(path, self.state_dict(), about)


def agreement(masks: torch.Tensor, overlap: float = REPEAT) -> torch.Tensor:
    """How many masks found each region: the sum of its IoUs above `overlap`, its own included, (N, H, W) of 0 and 1
    -> (N,). A query that no target ever chose drifts anywhere; many meet where there is something to find."""
    found = _iou(masks)
    return (found * (found > overlap)).sum(1)


def repeats_last(masks: torch.Tensor, overlap: float = REPEAT) -> torch.Tensor:
    """(N, H, W) of 0 and 1, best first -> (N,) order: those unlike every better one kept, the repeats, empty masks.

    Greedy non-maximum suppression that drops nothing: a mask repeats another when their IoU exceeds `overlap`.
    """
    alike, filled = (_iou(masks) > overlap).tolist(), masks.flatten(1).any(1).tolist()
    kept: list[int] = []
    repeats: list[int] = []
    for index in range(len(masks)):
        if filled[index]:
            (repeats if any(alike[index][better] for better in kept) else kept).append(index)
    empty = [index for index in range(len(masks)) if not filled[index]]
    return torch.tensor(kept + repeats + empty, dtype=torch.int64, device=masks.device)


def _iou(masks: torch.Tensor) -> torch.Tensor:
    """Overlap of every pair of (N, H, W) masks of 0 and 1: (N, N); empty ones overlap with nothing."""
    flat = masks.flatten(1).float()
    common, sizes = flat @ flat.T, flat.sum(1)
    return common / (sizes[:, None] + sizes - common).clamp(min=1)


def new_proposer(kind: str, config: ProposalConfig, classes: torch.Tensor | None = None) -> MaskProposer:
    """An untrained proposer; a convnext_lite backbone starts from the shipped CLIP's image tower, as OpenSeg's starts
    from ALIGN's."""
    lite = config.backbone == LITE_TRUNK
    trunk = load_clip("ConvNeXt-Lite").network.visual.trunk if lite else None
    return MaskProposer(kind, config, classes, trunk)


def load_proposer(path: str | Path) -> MaskProposer:
    """Read what `MaskProposer.save` wrote, in evaluation mode.

    Raises FileNotFoundError, or ValueError naming the file and what does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such proposals; train them with: ovs-lite train proposals openseg")
    try:
        with safe_open(path, "pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(about["config"]).items()}
        classes = tensors["classes"] if len(tensors["classes"]) else None
        proposer = MaskProposer(about["kind"], ProposalConfig(**settings | {"pretrained": False}), classes)
        proposer.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: not the proposals that `ovs-lite train proposals` writes ({reason})") from error
    return proposer.eval()
