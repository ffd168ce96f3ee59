"""A method's own trained weights: one safetensors file, in half precision, that knows which CLIP it belongs to."""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import LITE_MODELS
from ovs_lite.clip.model import TOWERS
from ovs_lite.methods.base import Method
from ovs_lite.methods.recipe import Recipe, Task
from ovs_lite.methods.registry import method_class
from ovs_lite.tensors import check_kind, load_exactly, read_metadata, read_tensors, write_tensors

DEFAULT_CLIP = Method.default_clip


def save_method(method: Method, path: str | Path, notes: dict[str, str] | None = None) -> None:
    """Write what a method trained, with the name of its CLIP and a fingerprint of that CLIP. Atomic.

    notes: kept in the file's metadata (steps, data, command). Raises ValueError for a method that trains nothing.
    """
    part = method.trained_part()
    if part is None:
        raise ValueError(f"got the method {method.name}, expected one with trained weights of its own")
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in part.state_dict().items()}
    about = {"method": method.name, "clip": method.clip.name, "clip_fingerprint": _fingerprint(method.clip)}
    write_tensors(path, tensors, {**(notes or {}), **method.about(), **about})


def load_method(
    name: str,
    clip: Clip | tuple[str, str | None] | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Method:
    """A method by name on a CLIP, with its trained weights, in evaluation mode.

    clip: a CLIP, or (name, pretrained) of `load_clip`, which is loaded on the device once the checkpoint was found.
        None: the shipped one that the weights belong to, or the encoder that the method brings itself.
    checkpoint: what `save_method` wrote, or the layout that the method's authors released, where it can be read. None:
        the shipped weights, where the method has weights.
    Raises ValueError for an unknown method, for a CLIP that the method would not use, for a checkpoint of a method that
    trains nothing, for weights of another method or CLIP and for damaged files, FileNotFoundError for missing ones.
    """
    kind = method_class(name)
    if kind.load_own is not None:
        if clip is not None:
            given = clip.name if isinstance(clip, Clip) else clip
            raise ValueError(f"got the CLIP {given}, but {name} has an encoder of its own; leave the CLIP out")
        return kind.load_own(checkpoint, device)
    path = check_checkpoint(name, checkpoint)
    if not isinstance(clip, Clip):
        clip = load_clip(*(clip or _shipped_clip(kind, path)), device)
    if path is None:
        return kind(clip).eval()
    if kind.load_released is not None and not _is_ours(path):
        return kind.load_released(path, clip)
    tensors, about = read_tensors(path)
    if about.get("method") != (wanted := kind.weights_of or name):
        raise ValueError(f"{path}: weights of {about.get('method', 'no method')!r}, expected those of {wanted!r}")
    if not _belongs(about, clip, kind.tied_to):
        raise ValueError(
            f"{path}: trained on the CLIP {about.get('clip')!r}, whose weights or configuration are not those of the "
            f"given {clip.name!r}; give that CLIP, or train {name} on this one and pass checkpoint=..."
        )
    try:
        method = kind.stored(clip, about)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not weights that `ovs-lite train {name}` writes ({error})") from error
    load_exactly(method.trained_part(), tensors, path)
    return method.to(clip.device).eval()


def method_recipe(kind: type[Method], **own: Any) -> Recipe:
    """The recipe of a method whose task has it as `method`: NAME.safetensors, which `load_method` reads on the
    configuration's CLIP. The file says steps, seed and data, and what the task is `about`. own: the other fields."""

    def save(task: Task, path: Path, config: Any) -> None:
        data = config.data if isinstance(config.data, str) else " ".join(config.data)
        notes = {"steps": str(config.loop.steps), "seed": str(config.loop.seed), "data": data}
        save_method(task.method, path, notes | task.about())

    return Recipe(
        name=kind.name,
        save=save,
        load=lambda path, config: load_method(kind.name, load_clip(config.clip, config.pretrained), path),
        weights=lambda config: f"{kind.name}.safetensors",
        **own,
    )


def check_checkpoint(name: str, checkpoint: str | Path | None) -> Path | None:
    """Which file holds a method's weights; None for a method that trains nothing. Errors as `load_method`."""
    kind = method_class(name)
    if not kind.trains:
        if checkpoint is None:
            return None
        own = f"{name} has no trained weights of its own; give CLIP weights as pretrained=..."
        raise ValueError(f"got checkpoint={str(checkpoint)!r}, but {own}")
    path = shipped_weights(kind) if checkpoint is None else Path(checkpoint)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such weights; train them with: ovs-lite train {kind.weights_of or name}")
    check_kind(path)
    return path


def shipped_weights(kind: type[Method]) -> Path:
    """Where a trained method's shipped weights lie: weights/NAME.safetensors in its folder."""
    return (
        Path(sys.modules[kind.__module__].__file__).parent / "weights" / f"{kind.weights_of or kind.name}.safetensors"
    )


def _shipped_clip(kind: type[Method], path: Path | None) -> tuple[str, str | None]:
    """The shipped CLIP that a file of weights names, else the method's default."""
    tied = path is not None and kind.tied_to and _is_ours(path)
    named = read_metadata(path).get("clip") if tied else None
    return (named, "lite") if named in LITE_MODELS else kind.default_clip


def _is_ours(path: Path) -> bool:
    """Whether the file is in this kit's own layout, or damaged, as opposed to the authors' release."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            return "method" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True


def _fingerprint(clip: Clip) -> str:
    return f"{clip.fingerprint()}-{clip.image_fingerprint()}"


def _belongs(about: dict[str, str], clip: Clip, towers: tuple[str, ...]) -> bool:
    """Whether these towers of a CLIP are those that the weights were trained on."""
    known = dict(zip(TOWERS, about.get("clip_fingerprint", "").split("-"), strict=False))
    found = dict(zip(TOWERS, _fingerprint(clip).split("-"), strict=True))
    return all(known.get(tower) == found[tower] for tower in towers)
