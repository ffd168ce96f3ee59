"""The text tower of a CLIP, up to the end of the longest sentence instead of to the end of the context, and what a few
sentences begin with read once (`ovs_lite.clip.prefix_tree`).

In CLIP a token looks only at tokens before it, and a sentence's embedding is read at its end token: what stands behind
that, padding, changes nothing. A name in a template is about ten tokens; the context is 32 in the miniature and 77 in
OpenAI's CLIP.
"""

import open_clip
import torch
from open_clip.transformer import TextTransformer

from ovs_lite.clip.prefix_tree import PrefixTree, can_read, prefix_tree, read_ends

FEW = 100  # sentences: of more, which are read in parallel, each would be compared with all
SHARED = 0.8  # of all tokens: where so many or fewer differ in their beginnings, these are read once


def encode_tokens(network: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """`network.encode_text(tokens)` without the padding that all rows share.

    network: an open_clip model. tokens: (T, L) integers. -> (T, D), not normalised, differentiable; equal to the whole
    context's to rounding. A tower that looks ahead, or is read elsewhere than at the end token, gets the whole context.
    """
    tower = getattr(network, "text", network)
    if not len(tokens) or not _padding_is_unread(tower):
        return network.encode_text(tokens)
    ends = tokens.argmax(1)  # the end token has the highest number
    length, dtype = int(ends.max()) + 1, tower.transformer.get_cast_dtype()
    if tree := _shared_beginnings(tower, tokens, ends):
        return _projected(tower, tower.ln_final(read_ends(tower, tree)))
    x = tower.token_embedding(tokens[:, :length]).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    return _projected(tower, tower.ln_final(x)[torch.arange(len(x), device=x.device), ends])


def _shared_beginnings(tower: torch.nn.Module, tokens: torch.Tensor, ends: torch.Tensor) -> PrefixTree | None:
    """What the sentences begin with, where it is worth its while to read that once; without gradient, on a CPU."""
    if torch.is_grad_enabled() or tokens.device.type != "cpu" or not 1 < len(tokens) <= FEW or not can_read(tower):
        return None
    tree = prefix_tree([row[: end + 1] for row, end in zip(tokens.tolist(), ends.tolist(), strict=True)])
    return tree if len(tree.tokens) <= SHARED * len(tokens) * (int(ends.max()) + 1) else None


def _projected(tower: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def _padding_is_unread(tower: torch.nn.Module) -> bool:
    """Whether this is open_clip's plain tower (or CLIP with that tower in it), causal, and read at the end token."""
    plain = type(tower) in (open_clip.CLIP, TextTransformer) and getattr(tower, "cls_emb", None) is None
    if not plain or getattr(tower, "output_tokens", False) or tower.attn_mask is None:
        return False
    return (tower.pool_type if isinstance(tower, TextTransformer) else tower.text_pool_type) == "argmax"
