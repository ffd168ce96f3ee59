"""Contrastive training of a miniature CLIP on images and captions. Paper: see the folder.

B images in the batch of all processes, L tokens of a caption, H W pixels.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.losses.contrastive import info_nce

ImageBatches = Callable[[int], tuple]
Batch = tuple[torch.Tensor, list[str] | torch.Tensor, list[str], torch.Tensor]


class ClipPretraining:
    """Train a CLIP on (image, caption) batches; see the folder's docstring.

    images: step -> (images (B, 3, H, W) RGB, in [0, 1] or uint8; B captions; and, to save time, their tokens (B, L)).
    freeze: "text" trains the image tower against the text tower as it is, "image" the reverse, None trains both.
    """

    weights = {"contrastive": 1.0}

    def __init__(self, clip: Clip, images: ImageBatches, freeze: str | None = None):
        if freeze not in ("text", "image", None):
            raise ValueError(f"got freeze={freeze!r}, expected 'text', 'image' or None")
        self.clip, self.images, self.model, self.freeze, self.found = clip, images, clip.network, freeze, {}
        clip.network.text.requires_grad_(freeze != "text")
        clip.network.visual.requires_grad_(freeze != "image")

    def batch(self, step: int) -> Batch:
        """This process's share of a step's images, of its captions (as tokens, where the stream has them) and of their
        words; and which other pairs of all say the same, (B, B) bool.

        The stream draws the whole batch in every process, because its lead nouns differ.
        """
        images, captions, *tokens = self.images(step)
        return _share(images), _share(tokens[0] if tokens else captions), _share(captions), same_caption(captions)

    def to(self, device: torch.device) -> None:
        """Move the whole CLIP."""
        self.clip.to(device)

    def count(self, batch: Batch) -> int:
        """B images of all processes."""
        return len(batch[3])

    def image_ids(self, batch: Batch) -> list[str]:
        """The captions: a stream has no names."""
        return batch[2]

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One symmetric InfoNCE term over the pairs of all processes, each of which encodes its share.

        Two equal captions are no negatives of each other's images: such pairs are left out.
        """
        if self.freeze == "image":
            self.clip.network.visual.eval()  # the loop sets training mode, in which batch statistics would move
        pictures = as_float(batch[0].to(self.clip.device, non_blocking=True))
        with torch.set_grad_enabled(self.freeze != "image"):
            images = F.normalize(self.clip.network.encode_image(self.clip.normalise(pictures)), dim=-1)
        with torch.set_grad_enabled(self.freeze != "text"):
            texts = self.clip.encode_text(batch[1])
        similarity = gather_with_gradient(images).float() @ gather_with_gradient(texts).float().T
        similarity = similarity.masked_fill(batch[3].to(similarity.device), -1.0)
        return {"contrastive": info_nce(similarity, self.clip.logit_scale)}


def as_float(images: torch.Tensor) -> torch.Tensor:
    """RGB as uint8 or in [0, 1] -> in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def same_caption(captions: Sequence[str]) -> torch.Tensor:
    """B captions -> (B, B) bool: another entry with the same words."""
    numbers = {caption: number for number, caption in enumerate(captions)}
    ids = torch.tensor([numbers[caption] for caption in captions])
    return (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)


def _share(items: Sequence) -> Sequence:
    if len(items) % world_size():
        raise ValueError(f"got a batch of {len(items)}, expected a multiple of the {world_size()} processes")
    return shard(items)


def used_token_ids(clip: Clip, texts: Iterable[str]) -> torch.Tensor:
    """Which rows of the token table a world's texts use: sorted (n,) int64, for `save_lite`."""
    texts = list(texts)
    found = [clip.tokenizer(texts[i : i + 1024]).unique() for i in range(0, len(texts), 1024)]
    return torch.cat(found).unique()
