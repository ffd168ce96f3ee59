"""How CLIP is adapted to masked crops: a contrast of regions and the words that were mined for them.

OVSeg (Liang et al., CVPR 2023), sections 3.3 and 4.1, appendix A.4, and its released trainer: the text tower is frozen,
and prompts, the image tower, or both learn. Departures: CLIP's temperature stays as it is (released: it is trained, and
inference does not use it); where both learn, `backbone_factor` is the tower's share of the prompts' learning rate.
B regions of all processes, b of this one, K words, D joint embedding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ovs_lite.clip import load_clip
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.config import SHIPPED
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.loaders.region_batches import RegionBatch, RegionBatches
from ovs_lite.data.record import load_split
from ovs_lite.distributed import gather_with_gradient
from ovs_lite.files import data_path
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.ovseg.config import OVSegConfig
from ovs_lite.methods.ovseg.method import OVSeg
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.methods.recipe import Task
from ovs_lite.methods.trained import load_method
from ovs_lite.tensors import products


class Adaptation(Task):
    """Adapt the CLIP of a method. Term: contrast, symmetric InfoNCE of all regions and words of the batch.

    method: whose CLIP learns. batches: index -> RegionBatch, this process's share. words: all that may come.
    """

    weights = {"contrast": 1.0}

    def __init__(
        self,
        method: OVSeg,
        batches: Callable[[int], RegionBatch],
        words: list[str],
        config: OVSegConfig,
        found: dict[str, Any] | None = None,
    ):
        super().__init__(method, method.network["clip"], batches, found)
        self.method, self.config = method, config
        self.rows = {word: row for row, word in enumerate(words)}
        self.text = method.clip.text_embeddings(words, config.templates)  # (K, D)
        freeze_but(self.model, config.tune)

    def losses(self, batch: RegionBatch) -> dict[str, torch.Tensor]:
        """The contrast over the regions of all processes."""
        clip = self.method.prompted
        masks = batch.masks.to(clip.device)
        images = clip.normalise(batch.images.to(clip.device))
        regions = gather_with_gradient(clip.encode_masked(images, masks))  # (B, D)
        rows = torch.tensor([self.rows[word] for word in batch.words], device=clip.device)
        rows = gather_with_gradient(rows)
        similarity = products(regions, self.text[rows])
        return {"contrast": contrast(similarity, clip.logit_scale.detach(), rows, self.config.repeated)}

    def notes(self) -> list[str]:
        """How much learns."""
        learned = sum(part.numel() for part in self.model.parameters() if part.requires_grad)
        return [f"{learned:,} of {sum(part.numel() for part in self.model.parameters()):,} parameters learned"]

    def about(self) -> dict[str, str]:
        """What was tuned."""
        return {"tune": self.config.tune}


def contrast(
    similarity: torch.Tensor, logit_scale: torch.Tensor, words: torch.Tensor, repeated: str = "negatives"
) -> torch.Tensor:
    """InfoNCE of regions and words, some of which a batch repeats: (B, B) cosines, scalar, (B,) numbers of the words.

    repeated: what regions are to each other whose word is the same. "negatives", as released. "equal": the wanted
        distribution is even over them; as their texts are the same vector, this is the same loss, and the same
        gradient, as "negatives". "ignored": neither positive nor negative.
    """
    equal = words[:, None] == words
    if repeated == "equal":
        return info_nce(similarity, logit_scale, equal)
    if repeated == "ignored":
        others = equal & ~torch.eye(len(words), dtype=torch.bool, device=words.device)
        similarity = similarity.masked_fill(others, -torch.inf)
    return info_nce(similarity, logit_scale)


def freeze_but(part: nn.Module, tune: str) -> None:
    """Let prompts, tower or both of an `AdaptedTower` learn, and nothing else."""
    part.requires_grad_(False)
    part.backbone.requires_grad_(tune in ("tower", "both"))
    part.mask_embedding.requires_grad_(tune in ("prompts", "both"))


def build(config: OVSegConfig) -> Adaptation:
    """What is adapted, and its pairs.

    Raises FileNotFoundError for pairs or weights that are not there, ValueError for others.
    """
    advice = "mine pairs with: ovs-lite mine SOURCE --out ..."
    if not data_path(config.data).exists():
        raise FileNotFoundError(f"{data_path(config.data)}: no such pairs; {advice}")
    split = load_split(data_path(config.data))
    if "pair" not in split.column_names:
        raise ValueError(f"{config.data}: got a split of {', '.join(split.column_names)}, expected pairs; {advice}")
    method = start(config)
    words = sorted({captions[0] for captions in split["captions"]})
    clip, loop = method.prompted, config.loop
    fill = tuple(clip.mean.flatten().tolist())
    batches = RegionBatches(split, config.batch, clip.image_size, fill, loop.seed, 1 - config.cut, config.margin)
    found = {"pairs": len(split), "words": len(words), "text_tower": clip.fingerprint()}
    found["start"] = clip.image_fingerprint()
    return Adaptation(method, Prefetched(batches), words, config, found)


def start(config: OVSegConfig) -> OVSeg:
    """A method whose CLIP is the configuration's, with new prompts unless its start has them in the same layers."""
    clip = load_clip(config.clip, config.pretrained)
    if config.start:
        before = load_method("ovseg", clip, config.start)
        segmenter = before.network["segmenter"] if config.segmenter == SHIPPED else _segmenter(config.segmenter)
        if (before.prompted.depth, before.prompted.last) == (config.depth, config.last):
            return OVSeg(clip, segmenter, before.prompted, config)
        clip = before.prompted
    elif config.segmenter == SHIPPED:
        segmenter = load_method("ovseg").network["segmenter"]
    else:
        segmenter = _segmenter(config.segmenter)
    return OVSeg(clip, segmenter, MaskPromptedClip(clip, config.depth, config.prompt_std, config.last), config)


def _segmenter(path: str) -> MaskFormerProposer:
    """Stage one from a file. Raises ValueError for proposals that say nothing of classes."""
    found = load_proposer(path)
    if not isinstance(found, MaskFormerProposer):
        given = f"{path}: got proposals of {found.recipe}, which have no embeddings"
        raise ValueError(f"{given}, expected those of maskformer; train them with: ovs-lite train maskformer")
    return found
