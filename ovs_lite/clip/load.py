"""From a name to a CLIP: the shipped miniatures, every model of open_clip, or a checkpoint file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from torch import nn

from ovs_lite.clip.dense import check_family
from ovs_lite.clip.lite import network as _lite_network  # noqa: F401 (registers ConvNeXt-Lite's network with timm)
from ovs_lite.clip.lite.files import SHIPPED, load_lite, shipped_path
from ovs_lite.clip.model import Clip

open_clip.add_model_config(Path(__file__).parent / "lite" / "configs")


def load_clip(name: str = "ViT-Lite-8", pretrained: str | None = "lite", device: str = "cpu") -> Clip:
    """Build a CLIP in evaluation mode.

    name: "ViT-Lite-8", "ConvNeXt-Lite" or an open_clip model of one of `ovs_lite.clip.dense.FAMILIES`.
    pretrained: "lite" for the shipped weights, None for random ones, an open_clip tag ("openai", needs its download),
        or the path of a checkpoint file (safetensors, or a torch file that holds plain tensors). No file says with
        which GELU its weights were trained, and a tag does: OpenAI's need the name that ends in "-quickgelu".
    Raises ValueError for unknown names, other families and damaged files, FileNotFoundError when weights are missing.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(f"got CLIP model {name!r}, expected {', '.join(SHIPPED)} or one of open_clip.list_models()")
    check_family(name, config)
    tags = ["lite"] if name in SHIPPED else open_clip.list_pretrained_tags_by_model(name)
    known = ", ".join(tags) or "none"
    if pretrained == "lite" and name not in SHIPPED:
        raise ValueError(
            f"got pretrained='lite' for {name!r}, which is not shipped; use a tag ({known}) or a file's path"
        )
    if pretrained not in (None, *tags) and not Path(pretrained).exists():
        raise FileNotFoundError(f"{pretrained}: no such checkpoint for {name}; use a tag ({known}) or a file's path")
    if name in SHIPPED:
        with _no_random_weights_warning():
            network = open_clip.create_model(name, load_weights=False)
        if pretrained is not None:
            load_lite(network, shipped_path(name) if pretrained == "lite" else Path(pretrained))
    else:
        # open_clip only warns when a tag's weights were trained with the other GELU (as OpenAI's were)
        if pretrained not in (None, *tags) and f"{name}-quickgelu" in open_clip.list_models():
            warnings.warn(
                f"{pretrained}: {name} computes with GELU, and weights of OpenAI, MetaCLIP and DFN were trained with "
                f"QuickGELU; if it holds these, load it as {name}-quickgelu",
                stacklevel=2,
            )
        quick = bool((open_clip.get_pretrained_cfg(name, pretrained or "") or {}).get("quick_gelu"))
        network = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=quick)
    return wrap_clip(network, name).to(device).eval()


def wrap_clip(
    network: nn.Module, name: str, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> Clip:
    """Our wrapper around an open_clip model. name: of the model, or any other; then the tokenizer is the standard one.

    mean, std: of the images that it was trained with, RGB in [0, 1]; default the model's own, else OpenAI's.
    """
    visual = network.visual
    if hasattr(visual, "trunk"):
        visual.to(memory_format=torch.channels_last)  # small convolutions run twice as fast on a CPU
    mean = mean or getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN
    std = std or getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD
    return Clip(name, network, tuple(mean), tuple(std))


@contextmanager
def _no_random_weights_warning() -> Iterator[None]:
    """Hide open_clip's warning about random weights, which are asked for or about to be replaced, and nothing else."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded for model")

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)
