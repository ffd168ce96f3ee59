"""Contrastive training of a miniature CLIP on images and captions. Paper: see the folder.

B images in the batch of all processes, H W pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import save_lite, shipped_path
from ovs_lite.config import RANDOM
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.iconworld.caption_grammar import vocabulary_texts
from ovs_lite.iconworld.stream import CaptionStream, label_stages, object_stages, scene_stages
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.methods.clip_pretraining.config import ClipPretrainingConfig
from ovs_lite.methods.clip_pretraining.late_reading import LateReading
from ovs_lite.methods.recipe import Task
from ovs_lite.tensors import products, read_tensors

IMITATION = 10.0  # weight of the teacher's term
STAGES = {"objects": object_stages, "scenes": scene_stages, "labels": label_stages}

Batch = tuple[torch.Tensor, list[str], torch.Tensor]


class ClipPretraining(Task):
    """Train a CLIP on images and captions; see the folder's docstring.

    images: step -> ((B, 3, H, W) RGB in [0, 1], B captions).
    freeze: "text" trains the image tower against the text tower as it is, "image" the reverse, None trains both.
    teacher: a trained CLIP with the same joint space, whose embeddings of whole images are imitated too.
    late: keeps the class token of a ViT from looking at patches in the first blocks, until late in the training run.
    """

    def __init__(
        self,
        clip: Clip,
        images: Callable[[int], tuple[torch.Tensor, list[str]]],
        freeze: str | None = None,
        teacher: Clip | None = None,
        late: LateReading | None = None,
    ):
        if freeze not in ("text", "image", None):
            raise ValueError(f"got freeze={freeze!r}, expected 'text', 'image' or None")
        taught = {} if teacher is None else {"teacher": teacher.image_fingerprint()}
        super().__init__(nn.ModuleList([clip, teacher] if taught else [clip]), clip.network, images, taught)
        self.clip, self.freeze, self.teacher, self.late = clip, freeze, teacher, late
        self.step = 0  # of the last batch
        self.weights = {"contrastive": 1.0} | ({"imitation": IMITATION} if taught else {})
        clip.network.text.requires_grad_(freeze != "text")
        clip.network.visual.requires_grad_(freeze != "image")

    def batch(self, index: int) -> Batch:
        """This process's share of a step's images and captions; and which other pairs of all say the same, (B, B) bool,
        in the order in which the processes' shares are gathered.

        The stream draws the whole batch in every process, because its lead nouns differ.
        """
        self.step = index
        images, captions = self.batches(index)
        gathered = [caption for number in range(world_size()) for caption in shard(captions, number, world_size())]
        return _share(images), _share(captions), same_caption(gathered)

    def count(self, batch: Batch) -> int:
        """B images of all processes."""
        return len(batch[2])

    def image_ids(self, batch: Batch) -> list[str]:
        """The captions: a stream has no names."""
        return batch[1]

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """A symmetric InfoNCE term over the pairs of all processes, each of which encodes its share; and with a teacher
        the mean cosine distance to its embeddings of the same images.

        Two equal captions are no negatives of each other's images: such pairs are left out.
        """
        if self.freeze == "image":
            self.clip.network.visual.eval()  # the loop sets training mode, in which batch statistics would move
        pixels = self.clip.normalise(batch[0].to(self.clip.device))
        with torch.set_grad_enabled(self.freeze != "image"):
            images = F.normalize(self._encoded(pixels), dim=-1)
        with torch.set_grad_enabled(self.freeze != "text"):
            texts = self.clip.encode_text(batch[1])
        similarity = products(gather_with_gradient(images), gather_with_gradient(texts))
        similarity = similarity.masked_fill(batch[2].to(similarity.device), -1.0)
        terms = {"contrastive": info_nce(similarity, self.clip.logit_scale)}
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher.encode_image(pixels)
            terms["imitation"] = 1 - F.cosine_similarity(images, wanted).mean()
        return terms

    def _encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) embeddings. On a CPU attention is written out: there PyTorch's fused kernel takes four times as long
        backwards in bfloat16."""
        late = self.late.at(self.step) if self.late else nullcontext()
        written_out = sdpa_kernel(SDPBackend.MATH) if pixels.device.type == "cpu" else nullcontext()
        with late, written_out:
            return self.clip.network.encode_image(pixels)


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


def build(config: ClipPretrainingConfig) -> ClipPretraining:
    """The towers as the configuration starts them, and an endless stream of images and captions."""
    config = config.resolved()
    clip = _initial_clip(config)
    images = Prefetched(_stream(config, clip.image_size))
    teacher = load_clip(config.teacher).requires_grad_(False) if config.teacher else None
    late = LateReading(clip.network.visual, config.closed_blocks, config.loop.steps) if config.closed_blocks else None
    return ClipPretraining(clip, images, config.freeze or None, teacher, late)


def _stream(config: ClipPretrainingConfig, size: int) -> CaptionStream:
    stages = STAGES[config.curriculum](config.loop.steps)
    return CaptionStream(config.batch, size, config.loop.seed, stages, config.draw_on, config.styles)


def _initial_clip(config: ClipPretrainingConfig) -> Clip:
    clip = load_clip(config.model, pretrained=None if config.initial == RANDOM else config.initial)
    if config.text:
        source = load_clip(config.model, None) if config.text == RANDOM else load_clip(config.text)
        clip.network.text.load_state_dict(source.network.text.state_dict())
    return clip


def save(task: ClipPretraining, path: Path, config: ClipPretrainingConfig) -> None:
    """Write the file that is shipped."""
    config = config.resolved()
    prompts = [pattern.replace("{}", "") for patterns in TEMPLATES.values() for pattern in patterns]
    rows_kept = used_token_ids(task.clip, [*vocabulary_texts(), *prompts])
    steps, stream = config.loop.steps, _stream(config, task.clip.image_size)
    images = _images_before(config) + sum(stream.shape(step)[0] for step in range(steps))
    metadata = {"pictures": str(images), "steps": str(steps), "seed": str(config.loop.seed)}
    save_lite(task.clip.network, path, rows_kept, metadata)


def _images_before(config: ClipPretrainingConfig) -> int:
    """How many images the initial weights have seen."""
    if config.initial == RANDOM:
        return 0
    path = shipped_path(config.model) if config.initial == "lite" else config.initial
    return int(read_tensors(path)[1].get("pictures", 0))


def load(path: Path, config: ClipPretrainingConfig) -> Clip:
    """The trained model."""
    return load_clip(config.model, pretrained=str(path))
