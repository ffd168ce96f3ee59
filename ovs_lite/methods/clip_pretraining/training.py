"""The two trainings of a miniature CLIP: the text tower on captions alone, then image and text. Paper: see the folder.

B images in the batch of all processes, D joint embedding, H W pixels, h w patches.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import is_mean_of_map
from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.losses.contrastive import info_nce

DISTILLATION = 10.0  # weight of the teacher's term
FOLLOW = 0.05  # how fast the temperature follows the length of image embeddings while that is free

CaptionPairs = Callable[[int], tuple[list[str], list[str]]]
ImageBatches = Callable[[int], tuple[torch.Tensor, list[str]]]


class TextPretraining:
    """Train the text tower only: two captions of one scene attract each other. pairs: step -> (captions, captions)."""

    weights = {"text_contrastive": 1.0}

    def __init__(self, clip: Clip, pairs: CaptionPairs):
        self.clip, self.pairs, self.model, self.found = clip, pairs, clip.network.text, {}
        self.temperature = torch.tensor(14.0).log()

    def batch(self, step: int) -> tuple[list[str], list[str]]:
        """This process's share of two lists of B captions; entry b of both describes the same scene."""
        first, second = self.pairs(step)
        return _share(first), _share(second)

    def to(self, device: torch.device) -> None:
        """Move the whole CLIP."""
        self.clip.to(device)

    def count(self, batch: tuple[list[str], list[str]]) -> int:
        """B: an imagined scene counts as an image."""
        return len(batch[0]) * world_size()

    def image_ids(self, batch: tuple[list[str], list[str]]) -> list[str]:
        """The first captions: a stream has no names."""
        return batch[0]

    def losses(self, batch: tuple[list[str], list[str]]) -> dict[str, torch.Tensor]:
        """One InfoNCE term between the two lists, at a fixed temperature of 1/14."""
        first, second = (gather_with_gradient(self.clip.encode_text(captions)) for captions in batch)
        return {"text_contrastive": info_nce(first @ second.T, self.temperature)}


class ClipPretraining:
    """Train a CLIP on (picture, caption) batches; see the module docstring.

    pictures: step -> ((B, 3, H, W) RGB in [0, 1], B captions). freeze: "text" trains the image tower against the text
    tower as it is, "image" the reverse, None trains both. free_steps: how many first steps compare by dot product with
    image embeddings that are not normalised; meanwhile the temperature follows their mean length, and from then on it
    is trained and cosines are compared, as in CLIP. teacher: a trained CLIP with the same joint space (text tower),
    whose dense embeddings the image tower imitates besides, cell by cell; they know captions only, too.
    """

    def __init__(
        self,
        clip: Clip,
        pictures: ImageBatches,
        freeze: str | None = "text",
        free_steps: int = 0,
        teacher: Clip | None = None,
    ):
        if freeze not in ("text", "image", None):
            raise ValueError(f"got freeze={freeze!r}, expected 'text', 'image' or None")
        self.clip, self.images, self.model, self.freeze = clip, pictures, clip.network, freeze
        self.free_steps, self.teacher = free_steps, teacher
        self.found = {} if teacher is None else {"teacher": teacher.image_fingerprint()}
        self.weights = {"contrastive": 1.0} | ({} if teacher is None else {"distillation": DISTILLATION})
        clip.network.text.requires_grad_(freeze != "text")
        clip.network.visual.requires_grad_(freeze != "image")

    def batch(self, step: int) -> tuple[torch.Tensor, list[str], bool]:
        """This process's share of a step's images and captions, and whether the embeddings' length is free.

        The stream renders the whole batch in every process, because its lead nouns all differ.
        """
        images, captions = self.images(step)
        return _share(images), _share(captions), step < self.free_steps

    def to(self, device: torch.device) -> None:
        """Move the whole CLIP, and its teacher."""
        self.clip.to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    def count(self, batch: tuple[torch.Tensor, list[str], bool]) -> int:
        """B images of all processes."""
        return len(batch[1]) * world_size()

    def image_ids(self, batch: tuple[torch.Tensor, list[str], bool]) -> list[str]:
        """The captions: a stream has no names."""
        return batch[1]

    def losses(self, batch: tuple[torch.Tensor, list[str], bool]) -> dict[str, torch.Tensor]:
        """One symmetric InfoNCE term over the pairs of all processes, each of which encodes its share."""
        if self.freeze == "image":
            self.clip.network.visual.eval()  # the loop sets training mode, in which batch statistics would move
        pictures, captions = self.clip.normalise(batch[0].to(self.clip.device)), batch[1]
        with torch.set_grad_enabled(self.freeze != "image"):
            images, terms = self._encode(pictures)
        with torch.set_grad_enabled(self.freeze != "text"):
            texts = gather_with_gradient(self.clip.encode_text(captions))
        images = gather_with_gradient(images)
        if batch[2]:
            with torch.no_grad():
                self.clip.logit_scale.lerp_(images.norm(dim=-1).mean().log(), FOLLOW)
            return terms | {"contrastive": info_nce(images @ texts.T, torch.zeros_like(self.clip.logit_scale))}
        return terms | {"contrastive": info_nce(F.normalize(images, dim=-1) @ texts.T, self.clip.logit_scale)}

    def _encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embeddings (B, D) of any length, and the teacher's term. Where the embedding is the mean of the dense map one
        pass gives both, at any size of the pictures; else pictures must have the native size."""
        dense = self.teacher is not None or pictures.shape[-1] != self.clip.image_size
        maps = self.clip.dense(pictures, "last") if dense else None
        pooled = maps is not None and is_mean_of_map(self.clip.network.visual)
        images = maps.mean((2, 3)) if pooled else self.clip.network.encode_image(pictures)
        return images, {} if self.teacher is None else {"distillation": self._distance(maps, pictures)}

    def _distance(self, maps: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """Mean cosine distance to the teacher's embeddings, cell by cell of its coarser map of the picture."""
        with torch.no_grad():
            wanted = self.teacher.dense(pictures, "last")
        return 1 - F.cosine_similarity(F.adaptive_avg_pool2d(maps, wanted.shape[-2:]), wanted, dim=1).mean()


def _share(items: Sequence) -> Sequence:
    if len(items) % world_size():
        raise ValueError(f"got a batch of {len(items)}, expected a multiple of the {world_size()} processes")
    return shard(items)


@torch.no_grad()
def whiten_patches(clip: Clip, pictures: torch.Tensor, spread: float = 0.5) -> None:
    """Start an untrained ViT from the pictures' own patterns. No labels. pictures: (N, 3, H, W) RGB in [0, 1].

    open_clip starts with random patch filters, which mostly see brightness, and positions that are small beside them:
    a bag of grey patches. Here the filters become the patches' principal axes divided by their spread, turned at
    random (whitening, as Coates and Ng, 2012), and the positions smooth waves over the grid with deviation `spread`.
    """
    visual = clip.network.visual
    width, patch = visual.conv1.out_channels, visual.conv1.kernel_size
    patches = F.unfold(clip.normalise(pictures), patch, stride=patch).transpose(1, 2).flatten(0, 1)  # (n, 3 p p)
    values, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, axes = values[-width:], axes[:, -width:]
    filters = axes / (values + 1e-3 * values[-1]).sqrt()  # (3 p p, width)
    turn = torch.linalg.qr(torch.randn(filters.shape[1], width).T).Q
    visual.conv1.weight.copy_((turn @ filters.T).view_as(visual.conv1.weight))
    rows, columns = visual.grid_size
    waves = torch.cat([_cosines(rows)[:, None].expand(-1, columns, -1), _cosines(columns).expand(rows, -1, -1)], -1)
    positions = waves.flatten(0, 1) @ torch.randn(waves.shape[-1], width)
    visual.positional_embedding[1:].copy_(positions / positions.std() * spread)


def _cosines(number: int) -> torch.Tensor:
    """The cosine waves over `number` places, slow to fast: (number, number)."""
    places = torch.arange(number)
    return torch.cos(torch.pi * (places[:, None] + 0.5) * places / number)


def used_token_ids(clip: Clip, texts: Iterable[str]) -> torch.Tensor:
    """Which rows of the token table a world's texts use: sorted (n,) int64, for `save_lite`."""
    texts = list(texts)
    found = [clip.tokenizer(texts[i : i + 1024]).unique() for i in range(0, len(texts), 1024)]
    return torch.cat(found).unique()
