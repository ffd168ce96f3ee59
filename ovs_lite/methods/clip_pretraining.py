"""Contrastive pre-training of the miniature CLIPs, in the order that works from scratch on few pictures.

Paper: CLIP (Radford et al., 2021), section 2.3; loss: TCL Eq. 7. Departures, because both towers from scratch stay at
chance for a hundred thousand pictures: (1) the text tower is first trained on captions alone, two captions of the same
scene being a positive pair; (2) an image tower is then trained against that frozen text tower, as LiT does (Zhai et
al., CVPR 2022). No labels, no masks: captions only.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.losses.contrastive import info_nce

# 1/temperature at the start. CLIP's own 14 punishes the noise of an untrained tower (a second-order effect of the
# scale) harder than it rewards the signal (first order): the tower then flees to the one line that no caption varies
# along.
START_SCALE = 2.0

CaptionPairs = Callable[[int], tuple[list[str], list[str]]]
PictureBatches = Callable[[int], tuple[torch.Tensor, list[str]]]


class TextPretraining:
    """Train the text tower only: two captions of one scene attract each other. pairs: step -> (captions, captions)."""

    weights = {"text_contrastive": 1.0}

    def __init__(self, clip: Clip, pairs: CaptionPairs):
        self.clip, self.pairs, self.model = clip, pairs, clip.network.text
        self.temperature = torch.tensor(14.0).log()

    def batch(self, step: int) -> tuple[list[str], list[str]]:
        """Two lists of B captions; entry b of both describes the same scene."""
        return self.pairs(step)

    def to(self, device: torch.device) -> None:
        """Move the whole CLIP."""
        self.clip.to(device)

    def count(self, batch: tuple[list[str], list[str]]) -> int:
        """B: an imagined scene counts as a picture."""
        return len(batch[0])

    def losses(self, batch: tuple[list[str], list[str]]) -> dict[str, torch.Tensor]:
        """One InfoNCE term between the two lists, at a fixed temperature of 1/14."""
        first, second = (gather_with_gradient(self.clip.encode_text(_share(captions))) for captions in batch)
        return {"text_contrastive": info_nce(first @ second.T, self.temperature)}


class ClipPretraining:
    """Train a CLIP on (picture, caption) batches; see the module docstring.

    pictures: step -> ((B, 3, H, W) RGB in [0, 1], B captions). freeze: "text" trains the image tower against the text
    tower as it is, "image" the reverse, None trains both. The temperature is always trained.
    """

    weights = {"contrastive": 1.0}

    def __init__(self, clip: Clip, pictures: PictureBatches, freeze: str | None = "text"):
        if freeze not in ("text", "image", None):
            raise ValueError(f"got freeze={freeze!r}, expected 'text', 'image' or None")
        self.clip, self.pictures, self.model, self.freeze = clip, pictures, clip.network, freeze
        clip.network.text.requires_grad_(freeze != "text")
        clip.network.visual.requires_grad_(freeze != "image")

    def batch(self, step: int) -> tuple[torch.Tensor, list[str]]:
        """The pictures and captions of a step."""
        return self.pictures(step)

    def to(self, device: torch.device) -> None:
        """Move the whole CLIP."""
        self.clip.to(device)

    def count(self, batch: tuple[torch.Tensor, list[str]]) -> int:
        """B pictures."""
        return len(batch[1])

    def losses(self, batch: tuple[torch.Tensor, list[str]]) -> dict[str, torch.Tensor]:
        """One symmetric InfoNCE term over the pairs of all processes, each of which encodes its share."""
        pictures, captions = (_share(part) for part in batch)
        with torch.set_grad_enabled(self.freeze != "image"):
            images = self.clip.encode_image(self.clip.normalise(pictures.to(self.clip.device)))
        with torch.set_grad_enabled(self.freeze != "text"):
            texts = self.clip.encode_text(captions)
        similarity = gather_with_gradient(images) @ gather_with_gradient(texts).T
        return {"contrastive": info_nce(similarity, self.clip.logit_scale)}


def _share(items: Sequence) -> Sequence:
    if len(items) % world_size():
        raise ValueError(f"got a batch of {len(items)}, expected a multiple of the {world_size()} processes")
    return shard(items)


def open_residual_branches(network: nn.Module, scale: float = 0.3) -> None:
    """Set ConvNeXt's layer scale to `scale`. Its usual 1e-6 shuts every block for the length of a short training."""
    for name, parameter in network.named_parameters():
        if name.endswith(".gamma"):
            parameter.data.fill_(scale)


def soften_temperature(clip: Clip) -> None:
    """Start the learnable temperature at 1 / START_SCALE."""
    clip.logit_scale.data.fill_(math.log(START_SCALE))


@torch.no_grad()
def whiten_image_head(clip: Clip, pictures: torch.Tensor, ridge: float = 1e-3) -> None:
    """Set an untrained image tower's last projection so that the embeddings of `pictures` are centred and white.

    An untrained tower maps all pictures to one line (brightness wins), and InfoNCE then starts at chance and stays
    there. The pictures' principal axes, divided by their spread, become the projection (a data-dependent start in the
    spirit of LSUV, Mishkin and Matas, ICLR 2016). pictures: (N, 3, H, W) RGB in [0, 1], N well above D. No labels.
    """
    visual = clip.network.visual
    if hasattr(visual, "trunk"):
        features = visual.trunk(clip.normalise(pictures))
    else:
        features = visual._pool(visual.transformer(visual._embeds(clip.normalise(pictures))))[0]
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    keep = clip.embed_dim
    floor = ridge * values[-1]
    projection = vectors[:, -keep:] / (values[-keep:].clamp(min=0) + floor).sqrt()  # (W, D)
    if hasattr(visual, "trunk"):
        visual.head.proj.weight.copy_(projection.T / keep**0.5)
        visual.head.proj.bias.copy_(-(mean @ projection) / keep**0.5)
    else:
        visual.ln_post.bias.sub_(mean)
        visual.proj.copy_(projection / keep**0.5)


def used_token_ids(clip: Clip, texts: Iterable[str]) -> torch.Tensor:
    """Which rows of the token table a world's texts use: sorted (n,) int64, for `save_lite`."""
    texts = list(texts)
    found = [clip.tokenizer(texts[i : i + 1024]).unique() for i in range(0, len(texts), 1024)]
    return torch.cat(found).unique()
