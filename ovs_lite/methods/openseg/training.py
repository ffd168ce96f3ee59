"""How OpenSeg is trained: words of captions find their regions while masks are shown, L = L_G + alpha L_S (Eq. 5).

Departure: targets are brought to the predictions' size by averaging, see `proposal_training`.
B images of all processes, b of this one, N proposals, K words of a caption at the most, D joint embedding.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch

from ovs_lite.clip import Clip, load_clip
from ovs_lite.data.captions import ALL, NO_REGION, extract_words
from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches, MixedBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import gather_with_gradient, largest
from ovs_lite.files import data_path
from ovs_lite.losses.grounding import grounding_loss
from ovs_lite.methods.openseg.config import OpenSegConfig
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.proposal_training import mask_loss
from ovs_lite.methods.recipe import Task
from ovs_lite.regions.pooling import mask_pool


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
        logits, pixels = self.model(batch.images.to(clip.device))
        masks = logits.float().sigmoid()
        regions = mask_pool(pixels, masks, config.pooling)
        most = max(1, max(map(len, batch.words)))
        words, valid = self.words.padded(batch.words, largest(most, clip.device) if config.sync else most)
        if config.sync:
            regions, words, valid = (gather_with_gradient(given) for given in (regions, words, valid))
        found = {"grounding": grounding_loss(regions, words, valid, self.model.temperature)}
        return found | ({"best_match_dice": mask_loss(masks, batch.masks)} if config.alpha else {})

    def notes(self) -> list[str]:
        """Who told nouns from adjectives."""
        return [f"words of captions by the tagger {self.found['tagger']!r}, kept: {', '.join(self.config.kinds)}"]

    def about(self) -> dict[str, str]:
        """For the file of weights: how long, on what, and who told nouns from adjectives."""
        loop, config = self.config.loop, self.config
        about = {"steps": loop.steps, "seed": loop.seed, "data": " ".join(config.data), "tagger": self.found["tagger"]}
        return {key: str(value) for key, value in about.items()}


class WordTable:
    """The embeddings of words, each made once by the frozen text tower."""

    def __init__(self, clip: Clip, templates: str):
        self.clip, self.templates = clip, templates
        self.known: dict[str, torch.Tensor] = {}

    def padded(self, words: Sequence[Sequence[str]], most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """b lists of at most K = `most` words -> (b, K, D), padded with zeros, and which count, (b, K) bool."""
        missing = sorted({word for some in words for word in some} - self.known.keys())
        if missing:
            self.known |= zip(missing, self.clip.text_embeddings(missing, self.templates), strict=True)
        embeddings = torch.zeros(len(words), most, self.clip.embed_dim, device=self.clip.device)
        valid = torch.zeros(len(words), most, dtype=torch.bool, device=self.clip.device)
        for row, some in enumerate(words):
            for place, word in enumerate(some):
                embeddings[row, place], valid[row, place] = self.known[word], True
        return embeddings, valid


def build(config: OpenSegConfig) -> OpenSegTraining:
    """A network that starts from the configuration's backbone, and its images, masks and words."""
    clip = load_clip(config.clip, config.pretrained)
    method = OpenSeg(clip, config, fresh=True)
    tagger = load_tagger(config.tagger, config.nltk_data)
    asked = {"keep": config.kinds, "stop": () if ALL in config.kinds else NO_REGION, "tagger": tagger}
    names = [name for vocabulary in config.compounds for name in load_vocabulary(vocabulary).names]
    words = lru_cache(maxsize=1 << 18)(partial(extract_words, compounds=names, **asked))
    splits = [load_split(data_path(name)) for name in config.data]
    fill, share = tuple(method.network.proposer.mean.flatten().tolist()), config.batch // len(splits)
    settings = (share, config.image_size, config.loop.seed, config.rescale)
    parts = [MaskBatches(s, *settings, per=config.per, fill=fill, words=words, keep=config.keep) for s in splits]
    found = {"records": [len(split) for split in splits], "tagger": tagger.name, "text_tower": clip.fingerprint()}
    return OpenSegTraining(method, Prefetched(MixedBatches(parts)), config, found)
