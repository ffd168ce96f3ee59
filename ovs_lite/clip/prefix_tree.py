"""A few sentences through a causal text tower at once, what they share at their beginning only once.

The sentences of one name's templates begin alike: of the 164 tokens of ViLD's 14 templates around a short name, 106 are
different beginnings. As a token sees only those before it, each beginning is one row of a single sequence, and an
attention mask shows it its own beginnings. T sentences, n different beginnings, W width of the tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock


@dataclass(frozen=True)
class PrefixTree:
    """tokens: of n beginnings, the last one each. depths: n, how many tokens stand before it. sees: (n, n) bool, a row
    for each beginning, true for those that it begins with, itself included. ends: T, the whole sentences."""

    tokens: torch.Tensor
    depths: torch.Tensor
    sees: torch.Tensor
    ends: torch.Tensor


def prefix_tree(sentences: Sequence[Sequence[int]]) -> PrefixTree:
    """The different beginnings of T sentences of one token or more."""
    places: dict[tuple[int, int], int] = {}  # (place of the beginning without its last token, that token) -> place
    parents, ends = [], []
    for sentence in sentences:
        at = -1
        for token in sentence:
            step, at = (at, token), places.setdefault((at, token), len(places))
            if at == len(parents):
                parents.append(step[0])
        ends.append(at)
    sees = torch.eye(len(parents), dtype=torch.bool).numpy()
    depths = []
    for place, parent in enumerate(parents):
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
        if parent >= 0:
            sees[place] |= sees[parent]
    tokens = torch.tensor([token for _, token in places])
    return PrefixTree(tokens, torch.tensor(depths), torch.from_numpy(sees), torch.tensor(ends))


def can_read(tower: torch.nn.Module) -> bool:
    """Whether this tower's blocks are open_clip's plain ones, which take a mask and queries apart from keys."""
    blocks = getattr(tower.transformer, "resblocks", ())
    plain = all(type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") for block in blocks)
    return len(blocks) > 0 and plain and blocks[0].attn.batch_first


def read_ends(tower: torch.nn.Module, tree: PrefixTree) -> torch.Tensor:
    """-> (T, W), what the transformer says at the end of each sentence; the last block is asked for nothing else."""
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tree.tokens).to(dtype) + tower.positional_embedding[tree.depths].to(dtype)
    mask = torch.zeros(tree.sees.shape, dtype=dtype).masked_fill_(~tree.sees, -torch.inf)
    *before, last = tower.transformer.resblocks
    x = x[None]
    for block in before:
        x = block(x, attn_mask=mask)
    asked, seen = x[:, tree.ends], last.ln_1(x)
    asked = asked + last.ls_1(last.attention(seen[:, tree.ends], seen, seen, mask[tree.ends]))
    return (asked + last.ls_2(last.mlp(last.ln_2(asked))))[0]
