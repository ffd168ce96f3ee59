"""The training runs of a miniature CLIP: the text tower on captions alone, then image and text. Paper: see the folder.

B images in the batch of all processes, D joint embedding, H W pixels, h w patches.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.dense import is_mean_of_map
from ovs_lite.clip.lite.files import save_lite, shipped_path
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.iconworld.caption_grammar import vocabulary_texts
from ovs_lite.iconworld.stream import CaptionPairStream, CaptionStream, Stage, default_stages, polish_stages
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.methods.clip_pretraining.config import RANDOM, TEXT, ClipPretrainingConfig
from ovs_lite.methods.recipe import Task
from ovs_lite.tensors import load_exactly, read_tensors, write_tensors

DISTILLATION = 10.0  # weight of the teacher's term
FOLLOW = 0.05  # how fast the temperature follows the length of image embeddings while that is free

Captions = tuple[list[str], list[str]]  # entry b of both describes the same scene
Batch = tuple[torch.Tensor, list[str], bool]  # images, captions, whether the length of image embeddings is free


class TextPretraining(Task):
    """Train the text tower only: two captions of one scene attract each other. pairs: step -> (captions, captions)."""

    weights = {"text_contrastive": 1.0}

    def __init__(self, clip: Clip, pairs: Callable[[int], Captions]):
        super().__init__(clip, clip.network.text, pairs)
        self.clip, self.temperature = clip, torch.tensor(14.0).log()

    def batch(self, index: int) -> Captions:
        """This process's share of two lists of B captions."""
        first, second = self.batches(index)
        return _share(first), _share(second)

    def count(self, batch: Captions) -> int:
        """B: an imagined scene counts as an image."""
        return len(batch[0]) * world_size()

    def image_ids(self, batch: Captions) -> list[str]:
        """The first captions: a stream has no names."""
        return batch[0]

    def losses(self, batch: Captions) -> dict[str, torch.Tensor]:
        """One InfoNCE term between the two lists, at a fixed temperature of 1/14."""
        first, second = (gather_with_gradient(self.clip.encode_text(captions)) for captions in batch)
        return {"text_contrastive": info_nce(first @ second.T, self.temperature)}


class ClipPretraining(Task):
    """Train a CLIP on images and captions; see the module docstring.

    images: step -> ((B, 3, H, W) RGB in [0, 1], B captions).
    freeze: "text" trains the image tower against the text tower as it is, "image" the reverse, None trains both.
    free_steps: how many first steps compare by dot product with image embeddings that are not normalised; meanwhile the
        temperature follows their mean length, and from then on it is trained and cosines are compared, as in CLIP.
    teacher: a trained CLIP with the same joint space (text tower), whose dense embeddings the image tower also
        imitates, cell by cell; they know captions only, too.
    """

    def __init__(
        self,
        clip: Clip,
        images: Callable[[int], tuple[torch.Tensor, list[str]]],
        freeze: str | None = "text",
        free_steps: int = 0,
        teacher: Clip | None = None,
    ):
        if freeze not in ("text", "image", None):
            raise ValueError(f"got freeze={freeze!r}, expected 'text', 'image' or None")
        taught = {} if teacher is None else {"teacher": teacher.image_fingerprint()}
        super().__init__(nn.ModuleList([clip, teacher] if taught else [clip]), clip.network, images, taught)
        self.clip, self.freeze, self.free_steps, self.teacher = clip, freeze, free_steps, teacher
        self.weights = {"contrastive": 1.0} | ({"distillation": DISTILLATION} if taught else {})
        clip.network.text.requires_grad_(freeze != "text")
        clip.network.visual.requires_grad_(freeze != "image")

    def batch(self, index: int) -> Batch:
        """This process's share. The stream renders the whole batch in every process: its lead nouns all differ."""
        images, captions = self.batches(index)
        return _share(images), _share(captions), index < self.free_steps

    def count(self, batch: Batch) -> int:
        """B images of all processes."""
        return len(batch[1]) * world_size()

    def image_ids(self, batch: Batch) -> list[str]:
        """The captions: a stream has no names."""
        return batch[1]

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One symmetric InfoNCE term over the pairs of all processes, each of which encodes its share."""
        if self.freeze == "image":
            self.clip.network.visual.eval()  # the loop sets training mode, in which batch statistics would move
        pixels, captions, free = self.clip.normalise(batch[0].to(self.clip.device)), *batch[1:]
        with torch.set_grad_enabled(self.freeze != "image"):
            images, terms = self._encode(pixels)
        with torch.set_grad_enabled(self.freeze != "text"):
            texts = gather_with_gradient(self.clip.encode_text(captions))
        images = gather_with_gradient(images)
        scale = self.clip.logit_scale
        if free:
            with torch.no_grad():
                scale.lerp_(images.norm(dim=-1).mean().log(), FOLLOW)
            return terms | {"contrastive": info_nce(images @ texts.T, torch.zeros_like(scale))}
        return terms | {"contrastive": info_nce(F.normalize(images, dim=-1) @ texts.T, scale)}

    def _encode(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embeddings (B, D) of any length, and the teacher's term: the mean cosine distance to its embeddings, cell by
        cell of its coarser map. Where the embedding is the mean of the dense map one pass gives both, at any size of
        the images; else images must have the native size."""
        dense = self.teacher is not None or images.shape[-1] != self.clip.image_size
        maps = self.clip.dense(images, "last") if dense else None
        pooled = dense and is_mean_of_map(self.clip.network.visual)
        embeddings = maps.mean((2, 3)) if pooled else self.clip.network.encode_image(images)
        if self.teacher is None:
            return embeddings, {}
        with torch.no_grad():
            wanted = self.teacher.dense(images, "last")
        found = F.adaptive_avg_pool2d(maps, wanted.shape[-2:])
        return embeddings, {"distillation": 1 - F.cosine_similarity(found, wanted, dim=1).mean()}


def _share(items: Sequence) -> Sequence:
    if len(items) % world_size():
        raise ValueError(f"got a batch of {len(items)}, expected a multiple of the {world_size()} processes")
    return shard(items)


@torch.no_grad()
def whiten_patches(clip: Clip, images: torch.Tensor, spread: float = 0.5) -> None:
    """Start an untrained ViT from the images' own patterns. No labels. images: (N, 3, H, W) RGB in [0, 1].

    open_clip starts with random patch filters, which mostly see brightness, and positions that are small next to them:
    a bag of grey patches. Here the filters become the patches' principal axes divided by their spread, turned at
    random (whitening, as Coates and Ng, 2012), and the positions smooth waves over the grid with standard deviation
    `spread`.
    """
    visual = clip.network.visual
    width, patch = visual.conv1.out_channels, visual.conv1.kernel_size
    patches = F.unfold(clip.normalise(images), patch, stride=patch).transpose(1, 2).flatten(0, 1)  # (n, 3 p p)
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


def build(config: ClipPretrainingConfig) -> ClipPretraining | TextPretraining:
    """The towers as the configuration starts them, and an endless stream of images and captions."""
    seed = config.loop.seed
    if config.model == TEXT:
        return TextPretraining(load_clip("ConvNeXt-Lite", pretrained=None), CaptionPairStream(2 * config.batch, seed))
    clip = _initial_clip(config)
    teacher = _teacher(config, clip)
    steps = config.loop.steps
    stages = {
        "from-scratch": default_stages(steps, config.alone),
        "polish": polish_stages(steps),
        "scenes": (Stage(steps, things=(1, 2), size=(0.7, 1.05), bare=0.5, colour=0.5),),
    }
    stream = CaptionStream(config.batch, clip.image_size, seed, stages[config.curriculum])
    return ClipPretraining(clip, Prefetched(stream), config.freeze or None, config.free_steps, teacher)


def _initial_clip(config: ClipPretrainingConfig) -> Clip:
    clip = load_clip(config.model, pretrained=config.initial or None)
    if not config.initial and clip.patch_size is not None:
        whiten_patches(clip, CaptionStream(256, clip.image_size, config.loop.seed + 1)(0)[0])
    if config.text == RANDOM:
        clip.network.text.load_state_dict(load_clip(config.model, pretrained=None).network.text.state_dict())
    elif config.text:
        load_exactly(clip.network.text, read_tensors(config.text)[0], config.text)
    return clip


def _teacher(config: ClipPretrainingConfig, clip: Clip) -> Clip | None:
    """The shipped model to imitate; `clip` moves into its joint space."""
    if not config.teacher:
        return None
    teacher = load_clip(config.teacher).requires_grad_(False)
    clip.network.text.load_state_dict(teacher.network.text.state_dict())
    clip.logit_scale.data.copy_(teacher.logit_scale)
    return teacher


def save(task: ClipPretraining | TextPretraining, path: Path, config: ClipPretrainingConfig) -> None:
    """Write the file that is shipped; of a run of `text`, the tensors of the text tower."""
    if config.model == TEXT:
        write_tensors(path, task.clip.network.text.state_dict())
        return
    prompts = [pattern.replace("{}", "") for patterns in TEMPLATES.values() for pattern in patterns]
    rows_kept = used_token_ids(task.clip, [*vocabulary_texts(), *prompts])
    steps, stream = config.loop.steps, task.batches.batches
    images = sum(stream.shape(step)[0] for step in range(steps))
    if config.initial:  # and those that the initial weights have seen
        initial = shipped_path(config.model) if config.initial == "lite" else config.initial
        images += int(read_tensors(initial)[1].get("pictures", 0))
    metadata = {"pictures": str(images), "steps": str(steps), "seed": str(config.loop.seed)}
    save_lite(task.clip.network, path, rows_kept, metadata)


def load(path: Path, config: ClipPretrainingConfig) -> Clip:
    """The trained model; of a run of `text`, an untrained one with the trained text tower."""
    if config.model != TEXT:
        return load_clip(config.model, pretrained=str(path))
    clip = load_clip("ConvNeXt-Lite", pretrained=None)
    load_exactly(clip.network.text, read_tensors(path)[0], path)
    return clip
