"""How OpenSeg is trained: words of captions find their regions while masks are shown, L = L_G + alpha L_S (Eq. 5).

Departure: targets are brought to the predictions' size by averaging, see `proposal_training`.
B images of all processes, b of this one, N proposals, K words of a caption at the most, D joint embedding.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from ovs_lite.clip import load_clip
from ovs_lite.config import SHIPPED
from ovs_lite.data.captions import ALL, NO_REGION, extract_words
from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches, MixedBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import first, load_split
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import names_of
from ovs_lite.distributed import gather_with_gradient, largest
from ovs_lite.files import data_path, file_digest
from ovs_lite.losses.grounding import grounding_loss
from ovs_lite.methods.openseg.config import OpenSegConfig
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.proposal_training import mask_loss
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.methods.recipe import Task
from ovs_lite.methods.word_table import WordTable

SIZES = ("backbone", "channels", "queries", "layers", "heads", "image_size")
SHIPPED_PROPOSALS = Path(__file__).parent / "weights" / "openseg-proposals.safetensors"
KEPT = 4096  # images of which `WordsAlone` keeps what it read: 0.4 MB each in the miniature


class OpenSegTraining(Task):
    """Train a method's network on images with masks and words. Terms: grounding (Eq. 4), best_match_dice (Eq. 1).

    method: whose network is trained. batches: index -> MaskBatch with words. config: alpha, pooling, sync.
    """

    def __init__(self, method: OpenSeg, batches: Any, config: OpenSegConfig, found: dict[str, Any] | None = None):
        super().__init__(method, method.network, batches, found)
        self.method, self.config = method, config
        self.weights = {"grounding": 1.0, "best_match_dice": config.alpha}
        self.words = WordTable(method.clip, config.templates)

    def losses(self, batch: MaskBatch) -> dict[str, torch.Tensor]:
        """Both terms, or the grounding alone where alpha is 0."""
        clip, config = self.method.clip, self.config
        masks, regions = self.seen(batch.images.to(clip.device))
        most = max(1, max(map(len, batch.words)))
        words, valid = self.words.padded(batch.words, largest(most, clip.device) if config.sync else most)
        if config.sync:
            regions, words, valid = (gather_with_gradient(given) for given in (regions, words, valid))
        found = {"grounding": grounding_loss(regions, words, valid, self.model.temperature)}
        return found | ({"best_match_dice": mask_loss(masks, batch.masks)} if config.alpha else {})

    def seen(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, 3, H, W) RGB in [0, 1] -> masks (b, N, h, w) in [0, 1] and their embeddings (b, N, D)."""
        features, logits, start = self.model.looked_at(images)
        masks, pooling = logits.float().sigmoid(), self.config.pooling
        started = self.model.start_regions(start, masks, pooling)
        return masks, self.model.regions(features, masks, started, pooling)

    def notes(self) -> list[str]:
        """Who told nouns from adjectives."""
        return [f"words of captions by the tagger {self.found['tagger']!r}, kept: {', '.join(self.config.kinds)}"]

    def about(self) -> dict[str, str]:
        """Who told nouns from adjectives."""
        return {"tagger": str(self.found["tagger"])}


class WordsAlone(OpenSegTraining):
    """The same where masks were learned before and stay as they are (`config.proposals`): F_z and tau alone learn.

    Nothing below them changes, so what they read of an image is kept, of `KEPT` images at most; another crop of it is
    another image, and no image is mirrored.
    """

    def __init__(self, method: OpenSeg, *others: Any):
        super().__init__(method, *others)
        self.model.requires_grad_(False)
        self.model.meaning_head.requires_grad_(True)
        self.model.log_temperature.requires_grad_(True)
        self.kept: dict[bytes, tuple[torch.Tensor, ...]] = {}

    def seen(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `OpenSegTraining.seen`."""
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=16).digest() for image in images]
        new = {key: place for place, key in enumerate(keys) if key not in self.kept}
        read = {key: self.kept[key] for key in keys if key not in new}
        read |= zip(new, self._read(images[list(new.values())]) if new else (), strict=True)
        self.kept |= {key: read[key] for key in new}
        for key in list(self.kept)[: max(0, len(self.kept) - KEPT)]:
            del self.kept[key]
        parts = zip(*(read[key] for key in keys), strict=True)
        features, masks, *started = (torch.stack([one.float() for one in part]) for part in parts)
        features = features.contiguous(memory_format=torch.channels_last)  # as it comes from a pyramid
        return masks, self.model.regions(features, masks, started[0] if started else None, self.config.pooling)

    @torch.no_grad()
    def _read(self, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """F, masks and, where there is one, what their regions start from, of each image, in half precision."""
        features, logits, start = self.model.looked_at(images)
        masks = logits.float().sigmoid()
        started = self.model.start_regions(start, masks, self.config.pooling)
        parts = (features, masks, *([] if started is None else [started]))
        return zip(*(part.half().contiguous().unbind() for part in parts), strict=True)


def start(config: OpenSegConfig) -> OpenSeg:
    """What a training starts from; weights that no file brings are drawn from torch's generator."""
    method = OpenSeg(load_clip(config.clip, config.pretrained), config, fresh=True)
    if config.proposals:
        _copy_proposals(method, config)
    return method


def build(config: OpenSegConfig) -> OpenSegTraining:
    """A network that starts from the configuration's backbone, and its images, masks and words."""
    method = start(config)
    tagger = load_tagger(config.tagger, config.nltk_data)
    splits = [load_split(data_path(name)) for name in config.data]
    for place, limit in enumerate(config.limits):
        splits[place] = first(splits[place], limit)
    found = {
        "records": [len(split) for split in splits],
        "tagger": tagger.name,
        "text_tower": method.clip.fingerprint(),
    }
    if config.tower:
        found["start"] = file_digest(config.tower)
    if config.proposals:
        found["proposals"] = file_digest(_proposals(config))
    batches = Prefetched(_batches(config, splits, tagger, method.network.proposer.mean))
    return (WordsAlone if config.proposals else OpenSegTraining)(method, batches, config, found)


def _batches(config: OpenSegConfig, splits: Sequence[Any], tagger: Any, mean: torch.Tensor) -> MixedBatches:
    asked = {"keep": config.kinds, "stop": () if ALL in config.kinds else NO_REGION, "tagger": tagger}
    names = names_of(config.compounds)
    words = lru_cache(maxsize=1 << 18)(partial(extract_words, compounds=names, **asked))
    settings = (config.batch // len(splits), config.image_size, config.loop.seed, config.rescale, not config.proposals)
    about = {"per": config.per, "fill": tuple(mean.flatten().tolist()), "words": words, "keep": config.keep}
    return MixedBatches([MaskBatches(split, *settings, **about) for split in splits])


def _proposals(config: OpenSegConfig) -> Path:
    return SHIPPED_PROPOSALS if config.proposals == SHIPPED else Path(config.proposals)


def _copy_proposals(method: OpenSeg, config: OpenSegConfig) -> None:
    """Put trained proposals into the method's network. Raises ValueError for those of another kind or size."""
    path = _proposals(config)
    given, own = load_proposer(path), method.network.proposer
    if not isinstance(given, OpenSegProposer):
        raise ValueError(f"{path}: got proposals of {given.recipe}, expected those of openseg-proposals")
    wanted = {name: getattr(config, name) for name in SIZES}
    found = {name: getattr(given.config, name) for name in wanted}
    if found != wanted:
        raise ValueError(f"{path}: got proposals with {found}, expected {wanted}, as this run asks for")
    own.load_state_dict(given.state_dict())
