"""Embeddings of words, each made once by the frozen text tower. b images, K words, D joint embedding."""

from collections.abc import Iterable, Sequence

import torch

from ovs_lite.clip import Clip


class WordTable:
    """Grows with the words that are asked for. templates: the sentences around them, see `Clip.text_embeddings`."""

    def __init__(self, clip: Clip, templates: str):
        self.clip, self.templates = clip, templates
        self.known: dict[str, torch.Tensor] = {}

    def learn(self, words: Iterable[str]) -> None:
        """Embed those that are new, all at once, which is much faster than one by one."""
        if missing := sorted(set(words) - self.known.keys()):
            self.known |= zip(missing, self.clip.text_embeddings(missing, self.templates), strict=True)

    def embedded(self, words: Sequence[str]) -> torch.Tensor:
        """K words, at least one -> (K, D)."""
        self.learn(words)
        return torch.stack([self.known[word] for word in words])

    def padded(self, words: Sequence[Sequence[str]], most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """b lists of at most K = `most` words -> (b, K, D), padded with zeros, and which count, (b, K) bool."""
        self.learn(word for some in words for word in some)
        embeddings = torch.zeros(len(words), most, self.clip.embed_dim, device=self.clip.device)
        valid = torch.zeros(len(words), most, dtype=torch.bool, device=self.clip.device)
        for row, some in enumerate(words):
            for place, word in enumerate(some):
                embeddings[row, place], valid[row, place] = self.known[word], True
        return embeddings, valid
