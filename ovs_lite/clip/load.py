"""From a name to a CLIP: the shipped miniatures, every model of open_clip, or a checkpoint file."""

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from ovs_lite.clip.dense import check_family
from ovs_lite.clip.lite import network as _lite_network  # noqa: F401 (registers ConvNeXt-Lite's network with timm)
from ovs_lite.clip.lite.files import LITE_MODELS, load_lite, shipped_path
from ovs_lite.clip.missing_weights import missing_weights
from ovs_lite.clip.model import Clip
from ovs_lite.config import RANDOM
from ovs_lite.tensors import check_kind, read_foreign, read_metadata

open_clip.add_model_config(Path(__file__).parent / "lite" / "configs")


def load_clip(name: str = "ViT-Lite-8", pretrained: str | None = "lite", device: str = "cpu") -> Clip:
    """Build a CLIP in evaluation mode.

    name: "ViT-Lite-8", "ConvNeXt-Lite" or an open_clip model of one of `ovs_lite.clip.dense.FAMILIES`.
    pretrained: "lite" for the shipped weights, None or "random" for random ones, an open_clip tag ("openai", needs its
        download), or the path of a checkpoint file (safetensors, or a torch file that holds plain tensors). No file
        says with which GELU its weights were trained, and a tag does: OpenAI's need the name that ends in "-quickgelu".
    Raises ValueError for unknown names, other families, damaged files and weights of another model, FileNotFoundError
    when weights are missing: for a tag that cannot be downloaded it says which file to put where.
    """
    config, pretrained = open_clip.get_model_config(name), None if pretrained == RANDOM else pretrained
    if config is None:
        known = f"{', '.join(LITE_MODELS)} or one of open_clip.list_models()"
        raise ValueError(f"got CLIP model {name!r}, expected {known}")
    check_family(name, config)
    tags = ["lite"] if name in LITE_MODELS else open_clip.list_pretrained_tags_by_model(name)
    known = ", ".join(tags) or "none"
    if pretrained == "lite" and name not in LITE_MODELS:
        advice = f"use a tag ({known}) or a file's path"
        raise ValueError(f"got pretrained='lite' for {name!r}, which is not shipped; {advice}")
    if pretrained not in (None, *tags) and not Path(pretrained).exists():
        raise FileNotFoundError(f"{pretrained}: no such checkpoint for {name}; use a tag ({known}) or a file's path")
    if pretrained == "lite":
        path = shipped_path(name)
        return _shipped(name, path, path.stat().st_mtime_ns).copied().to(device)
    return _built(name, pretrained, None if pretrained in (None, *tags) else Path(pretrained)).to(device)


@lru_cache(maxsize=len(LITE_MODELS))
def _shipped(name: str, path: Path, changed: int) -> Clip:
    """A shipped CLIP, read once per process. changed: when the file was written. Random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        return _built(name, None, path)


def _built(name: str, pretrained: str | None, path: Path | None) -> Clip:
    """A CLIP with the weights of a file (path), of a tag, or random ones; errors as `load_clip`."""
    # before a large network is built
    about = read_metadata(path) if path and (name in LITE_MODELS or check_kind(path)) else {}
    try:
        network = _network(name, pretrained, path)
    except Exception as error:  # open_clip and torch raise a dozen kinds
        if path is None and "Failed to download" in str(error):
            reason = " ".join(str(error).split())[-200:]
            raise FileNotFoundError(f"{missing_weights(name, pretrained)} ({reason})") from error
        if path is None:
            raise
        raise ValueError(_misfit(name, path, about, error)) from error
    # open_clip only warns when a tag's weights were trained with the other GELU (as OpenAI's were)
    if path and f"{name}-quickgelu" in open_clip.list_models():
        warnings.warn(
            f"{path}: {name} computes with GELU, and weights of OpenAI, MetaCLIP and DFN were trained with "
            f"QuickGELU; if it holds these, load it as {name}-quickgelu",
            stacklevel=3,
        )
    return wrap_clip(network, name).eval()


def _network(name: str, pretrained: str | None, path: Path | None) -> nn.Module:
    """The model of an open_clip name with its weights. path: where they lie, if not behind a tag."""
    if name not in LITE_MODELS:
        quick = bool((open_clip.get_pretrained_cfg(name, pretrained or "") or {}).get("quick_gelu"))
        return open_clip.create_model(name, pretrained=str(path) if path else pretrained, force_quick_gelu=quick)
    config = open_clip.get_model_config(name)
    network = open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    if path is not None:
        load_lite(network, path)
    return network


def _misfit(name: str, path: Path, about: Mapping[str, str], error: Exception) -> str:
    """Why a file's weights do not go into a model, and what to use instead. Raises ValueError for an unreadable one."""
    shapes = {key.removeprefix("module."): value.shape for key, value in read_foreign(path, "state_dict").items()}
    reason = " ".join(str(error).removeprefix(f"{path}: ").split())[:300]
    if "weights_only" in reason:
        reason = "objects next to its tensors"  # without torch's advice to trust the file
    return f"{path}: not weights of {name} that can be loaded; {_advice(name, shapes, about)} ({reason})"


def _advice(name: str, shapes: Mapping[str, torch.Size], about: Mapping[str, str]) -> str:
    """What tensors of these shapes belong to, and what to do about it."""
    if "method" in about or "recipe" in about:
        return f"they are of {about.get('method') or about['recipe']}, a method's own; give them as its checkpoint"
    if any(key.startswith("vision_model.") for key in shapes):
        return "they are in the layout of transformers; use those of open_clip"
    seen, models = _seen(shapes), open_clip.list_models()
    names = sorted((n for n in models if _image_tower(open_clip.get_model_config(n)) == seen), key=len)
    if name in names:
        return "they have its sizes; give the whole of its state_dict"
    if names:
        return f"they fit {', '.join(names[:3])}; give that model's name"
    return "give the name of the model that they belong to, and its whole state_dict"


def _image_tower(config: Mapping[str, Any]) -> tuple:
    """Sizes of a ViT: embedding, width, layers, patch, positions; other towers give numbers that no tensor has."""
    vision = config["vision_cfg"]
    width, layers, patch = (vision.get(key, 0) for key in ("width", "layers", "patch_size"))
    return config["embed_dim"], width, layers, patch, (vision.get("image_size", 224) // patch) ** 2 if patch else 0


def _seen(shapes: Mapping[str, torch.Size]) -> tuple | None:
    """The same sizes, of tensors."""
    kernel, positions = shapes.get("visual.conv1.weight"), shapes.get("visual.positional_embedding")
    if kernel is None or positions is None or "visual.proj" not in shapes:
        return None
    blocks = {key.split(".")[3] for key in shapes if key.startswith("visual.transformer.resblocks.")}
    return shapes["visual.proj"][-1], kernel[0], len(blocks), kernel[-1], positions[0] - 1


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
