"""The released mask-adapted CLIP as a `MaskPromptedClip`.

Layout as the authors' trainer writes it, an open_clip state dict with the prompts under `visual.mask_embedding`; their
whole model holds the same under `clip_adapter.clip_model.`. Departure: a file without prompts, which their inference
reads as prompts of zeros, is an error.
"""

import copy
import warnings
from pathlib import Path

import open_clip
import torch
from torch import nn

from ovs_lite.clip import Clip, load_clip, wrap_clip
from ovs_lite.clip.from_tensors import build_like
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.tensors import read_foreign

PROMPTS = "visual.mask_embedding"
WHOLE_MODEL = "clip_adapter.clip_model."
SIZES = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's files: numbers, no weights
SCALE = "logit_scale"  # of both towers, and of neither alone

Tensors = dict[str, torch.Tensor]


def load_official_ovseg_clip(
    path: str | Path, mask_prompt_depth: int, clip: Clip | nn.Module | str | None = None
) -> MaskPromptedClip:
    """Read a released mask-adapted CLIP, in evaluation mode; `encode_masked` computes what the released code computes.

    path: a torch file, or the same tensors as safetensors. No code of the file runs.
    mask_prompt_depth: layers with prompts, which the file must have; 3 in the paper.
    clip: the CLIP underneath, one of ours, an open_clip model, or an open_clip name (then with QuickGELU, as all of the
        released weights; OpenAI's are fetched if the file does not hold both towers). A tower that the file holds
        replaces it. None: sizes and weights are the file's, which must hold both towers.
    Raises FileNotFoundError, and ValueError naming the keys that are missing, unexpected or of another shape.
    """
    path = Path(path)
    tensors = {key.removeprefix("module."): value for key, value in read_foreign(path, "state_dict", "model").items()}
    if any(key.startswith(WHOLE_MODEL) for key in tensors):
        inside = {key: value for key, value in tensors.items() if key.startswith(WHOLE_MODEL)}
        tensors = {key.removeprefix(WHOLE_MODEL): value for key, value in inside.items()}
    tensors = {key: value for key, value in tensors.items() if key not in SIZES}
    prompts = tensors.pop(PROMPTS, None)
    if prompts is None:
        advice = "a CLIP without mask prompts is read by load_clip(name, path)"
        raise ValueError(f"{path}: missing {PROMPTS}, has {sorted(tensors)[:3]} and others; {advice}")
    if prompts.ndim != 3 or len(prompts) != mask_prompt_depth:
        given = f"{PROMPTS} {tuple(prompts.shape)}"
        raise ValueError(
            f"{path}: got {given}, expected mask_prompt_depth={mask_prompt_depth} layers, places and width"
        )
    base = _base(tensors, clip, path)
    found = MaskPromptedClip(base, mask_prompt_depth)
    if found.mask_embedding.shape != prompts.shape:
        given = f"{PROMPTS} {tuple(prompts.shape)} for {tuple(found.mask_embedding.shape)}"
        raise ValueError(f"{path}: of another shape {given} of {base.name}")
    with torch.no_grad():
        found.mask_embedding.copy_(prompts)
    return found.eval()


def _base(tensors: Tensors, clip: Clip | nn.Module | str | None, path: Path) -> Clip:
    """The CLIP without prompts, with the file's towers in it."""
    base = _underneath(tensors, clip, path)
    state, held = base.network.state_dict(), _towers(tensors)
    missing = sorted(key for key in state if key not in tensors and key != SCALE and _of_image(key) in held)
    unexpected = sorted(key for key in tensors if key not in state)
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(state[key].shape)}"
        for key, value in tensors.items()
        if key in state and value.numel() != state[key].numel()
    ]
    if missing or unexpected or shapes:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}, of another shape {shapes}")
    base.network.load_state_dict(state | {key: value.reshape(state[key].shape) for key, value in tensors.items()})
    base.network.float()
    return base


def _underneath(tensors: Tensors, clip: Clip | nn.Module | str | None, path: Path) -> Clip:
    """A CLIP that may be written into: of the file's sizes, by name, or a copy of the given one."""
    if clip is None:
        try:
            return wrap_clip(build_like(tensors, "visual.", ""), "official-ovseg")
        except ValueError as error:
            raise ValueError(f"{path}: {error}; give the CLIP underneath as clip=...") from error
    if isinstance(clip, str):
        return _by_name(clip) if len(_towers(tensors)) == 2 else load_clip(clip, "openai")
    base = clip.copied() if isinstance(clip, Clip) else wrap_clip(copy.deepcopy(clip), "open_clip model")
    if any(isinstance(module, nn.GELU) for module in base.network.visual.modules()):
        warnings.warn(f"{path}: released weights were trained with QuickGELU, {base.name} has GELU", stacklevel=4)
    return base


def _by_name(name: str) -> Clip:
    """An open_clip model with QuickGELU and random weights, which the file's replace."""
    if open_clip.get_model_config(name) is None:
        return load_clip(name)  # raises, or a shipped one
    return wrap_clip(open_clip.create_model(name, force_quick_gelu=True), name)


def _towers(tensors: Tensors) -> set[bool]:
    """Which towers the file holds: True for the image's, False for the text's."""
    return {_of_image(key) for key in tensors if key != SCALE}


def _of_image(key: str) -> bool:
    return key.startswith("visual.")
