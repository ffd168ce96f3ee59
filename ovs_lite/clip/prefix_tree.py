"""A few sentences through a causal text tower at once, what they share at their beginning only once.

The sentences of one name's templates begin alike: of the 138 tokens of ViLD's 14 templates around a name of one token,
79 are different beginnings. As a token sees only those before it, each beginning is one row of a single sequence, and
an attention mask shows it its own beginnings. T sentences, n different beginnings, W width of the tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    """Whether the blocks of this tower's transformer are open_clip's plain ones, whose steps `read_ends` repeats."""
    blocks = getattr(tower.transformer, "resblocks", ())
    return len(blocks) > 0 and all(map(_is_plain, blocks))


def _is_plain(block: torch.nn.Module) -> bool:
    plain = type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv")
    return plain and type(block.attn) is torch.nn.MultiheadAttention and block.attn.in_proj_bias is not None


def read_ends(tower: torch.nn.Module, tree: PrefixTree) -> torch.Tensor:
    """-> (T, W), what the transformer says at the end of each sentence; the last block is asked for nothing else."""
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tree.tokens).to(dtype) + tower.positional_embedding[tree.depths].to(dtype)
    mask = torch.zeros(tree.sees.shape, dtype=dtype).masked_fill_(~tree.sees, -torch.inf)
    *before, last = tower.transformer.resblocks
    for block in before:
        x = _block(block, x, x, mask)
    return _block(last, x[tree.ends], x, mask[tree.ends])


def _block(block: ResidualAttentionBlock, asked: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The block's answer at `asked` (m, W), some of the rows `seen` (n, W), of which the mask (m, n) shows them part.

    As `block` itself, whose attention takes one and the same sequence only for both.
    """
    attention, heads = block.attn, block.attn.num_heads
    width, normed = asked.shape[1], block.ln_1(seen)
    of_asked = normed if asked is seen else block.ln_1(asked)
    weights, biases = attention.in_proj_weight, attention.in_proj_bias
    queries = F.linear(of_asked, weights[:width], biases[:width])
    keys, values = F.linear(normed, weights[width:], biases[width:]).chunk(2, 1)
    queries, keys, values = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in (queries, keys, values))
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(0, 1).flatten(1)
    asked = asked + block.ls_1(F.linear(found, attention.out_proj.weight, attention.out_proj.bias))
    return asked + block.ls_2(block.mlp(block.ln_2(asked)))
