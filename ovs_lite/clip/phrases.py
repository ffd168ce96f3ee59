"""Whether a text tower reads a phrase to its end, and tells it from the others."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from ovs_lite.data.templates import fill

NAMED = 3  # long phrases that a warning shows


def check_phrases(tokenizer: Callable[..., torch.Tensor], names: Any, patterns: Sequence[str], reader: str) -> None:
    """Warn of names that are truncated. Raises ValueError for two that become equal to the tower, and for no names.

    tokenizer: open_clip's, (texts, context_length) -> (T, context_length) token ids, padded at the right.
    names: list or tuple of text; equal ones, and those that differ in letter case only, are one name.
    patterns: the templates' sentences. A name counts as truncated where the longest sentence around it is.
    reader: who reads, for messages.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"got names {_short(names)}, expected a list of text such as ['cat', 'grass']")
    names, limit = list({name.lower(): name for name in names}.values()), tokenizer.context_length
    longest = max(patterns, key=lambda pattern: len(_tokens(tokenizer, pattern)))
    roomiest = min(patterns, key=lambda pattern: pattern.index("{}"))
    whole = [_tokens(tokenizer, fill(longest, name)) for name in names]
    long = [(name, len(tokens)) for name, tokens in zip(names, whole, strict=True) if len(tokens) > limit]
    if long:
        # where the fewest tokens stand before a name, the most of it is read
        whole = [tuple(tokenizer([fill(roomiest, name)])[0].tolist()) for name in names]
    seen: dict[tuple[int, ...], str] = {}
    for name, tokens in zip(names, whole, strict=True):
        if tokens in seen:
            pair = f"{_short(seen[tokens])} and {_short(name)}"
            reads = f"reads {limit} tokens of them" if {seen[tokens], name} & {cut for cut, _ in long} else "reads them"
            raise ValueError(f"got {pair}, which are equal as {reader} {reads}; shorten or drop one of them")
        seen[tokens] = name
    if long:
        shown = ", ".join(f"{_short(name)} ({count} tokens)" for name, count in long[:NAMED])
        more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
        warnings.warn(
            f"got {shown}{more}, sentence included; {reader} reads {limit} tokens and not what follows; say it shorter",
            stacklevel=4,  # beyond text_embeddings and its no_grad
        )


@lru_cache(maxsize=4096)  # a vocabulary is asked for again and again
def _tokens(tokenizer: Callable[..., torch.Tensor], text: str) -> tuple[int, ...]:
    """All tokens of a text, whatever the context length, without what pads them."""
    room = 2 * len(text.encode()) + 8  # bytes are the smallest tokens; cleaning may lengthen a text a little
    row = tokenizer([text], context_length=room)[0]
    return tuple(row[: int((row != row[-1]).nonzero()[-1]) + 1].tolist())


def _short(value: Any, head: int = 200, tail: int = 80) -> str:
    """In quotes; of a long text its start and its end."""
    shown = repr(value)
    return shown if len(shown) <= head + tail else f"{shown[:head]} ... {shown[-tail:]}"
