"""An open_clip model of the sizes that a file's tensors have, where nothing but the tensors tells them."""

from collections.abc import Mapping

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

HEAD_WIDTH = 64  # heads = width / 64, as in all of OpenAI's CLIPs


def build_like(
    tensors: Mapping[str, torch.Tensor],
    visual: str,
    text: str | None,
    projection: str | None = None,
) -> CLIP:
    """A ViT and a text tower with random weights and QuickGELU, as OpenAI trained; no tensor tells which GELU it was.

    visual, text: what stands before a tower's names. Without `text` the text tower is a dummy.
    projection: key of the image tower's projection (W, D); default as open_clip has it.
    Raises ValueError unless the tensors that give the sizes are there, with so many axes.
    """
    axes = {visual + "conv1.weight": 4, visual + "positional_embedding": 2, projection or visual + "proj": 2}
    if text is not None:
        axes |= {text + "token_embedding.weight": 2, text + "positional_embedding": 2}
    missing = [key for key in axes if key not in tensors]
    shapes = [
        f"{key} {tuple(tensors[key].shape)} for {count} axes"
        for key, count in axes.items()
        if key in tensors and tensors[key].ndim != count
    ]
    if missing or shapes:
        raise ValueError(f"missing {missing}, of another shape {shapes}")
    (width, _, patch, _), (places, _), (_, embed_dim), *of_text = (tensors[key].shape for key in axes)
    vision = CLIPVisionCfg(
        layers=depth_of(tensors, visual), width=width, head_width=min(HEAD_WIDTH, width), patch_size=patch,
        image_size=patch * round((places - 1) ** 0.5),
    )  # fmt: skip
    language = CLIPTextCfg(context_length=4, vocab_size=4, width=HEAD_WIDTH, heads=1, layers=1)
    if text is not None:
        (vocabulary, width), (length, _) = of_text
        heads, depth = max(1, width // HEAD_WIDTH), depth_of(tensors, text)
        language = CLIPTextCfg(length, vocabulary, width=width, heads=heads, layers=depth)
    return CLIP(embed_dim, vision, language, quick_gelu=True)


def depth_of(tensors: Mapping[str, torch.Tensor], tower: str) -> int:
    """How many blocks of the tower the file has."""
    start = tower + "transformer.resblocks."
    return len({key[len(start) :].split(".")[0] for key in tensors if key.startswith(start)})
