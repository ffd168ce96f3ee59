"""The released TCL checkpoint (tcl.pth) as a method of this kit.

Layout as the authors' code writes it: the grounder under `masker.`, its frozen CLIP (often left out of the file) under
`clip_image_encoder.` and `clip_text_encoder.`. Sizes are inferred from the tensors: heads = width / 64, as CLIP has it.
"""

import copy
import re
import warnings
from pathlib import Path

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from ovs_lite.clip import Clip, load_clip, wrap_clip
from ovs_lite.clip.from_tensors import build_like
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.tensors import read_foreign

TEMPLATES = "tcl9"
BLOCK = "masker.image_encoder.backbone.transformer.resblocks."
DECODER, PROJECTION = "masker.image_encoder.decoder.decoder.net.", "masker.image_encoder.decoder.image_proj."
CLIP_VISUAL, CLIP_PROJECTION = "clip_image_encoder.clip_visual.", "clip_image_encoder.clip_proj."
CLIP_TEXT, TOKENS = "clip_text_encoder.", "token_embedding.weight"
TEMPERATURES = ("tcli_loss.logit_scale", "tclf_loss.logit_scale")  # read where they are there
IGNORED = ("pamr.", "tcli_loss.", "tclf_loss.")  # PAMR's kernels are constants
GROUNDER = {
    "scale": "masker.sim2mask.w", "bias": "masker.sim2mask.b", "proj": PROJECTION + "proj",
    "norm.weight": PROJECTION + "ln.weight", "norm.bias": PROJECTION + "ln.bias",
    "image_scale": TEMPERATURES[0], "feature_scale": TEMPERATURES[1],
}  # fmt: skip
LAST_LAYER = {name: CLIP_PROJECTION + name.replace("_post", "") for name in ("ln_post.weight", "ln_post.bias", "proj")}

Tensors = dict[str, torch.Tensor]
Names = dict[str, str]  # where a tensor goes in a `Tcl` -> its key in the file


def load_official_tcl(path: str | Path, clip: Clip | nn.Module | str | None = None) -> Tcl:
    """Read a released checkpoint into a `Tcl` that predicts what the released code predicts, in evaluation mode.

    path: a torch file, or the same tensors as safetensors. No code of the file runs: its configuration object is
    skipped. clip: the CLIP underneath, one of ours, an open_clip model, or an open_clip name whose OpenAI weights are
    fetched; a tower that the file itself holds replaces it (with both in the file, None will do). The method's `clip`
    normalises with ImageNet's statistics and `templates` is TCL's set of nine.
    Raises FileNotFoundError, and ValueError naming the file's keys that are missing, unexpected or of another shape.
    """
    path = Path(path)
    tensors = {key.removeprefix("module."): value for key, value in read_foreign(path, "model").items()}
    if not any(key.startswith("masker.") for key in tensors):
        raise ValueError(f"{path}: unexpected keys {sorted(tensors)[:5]}, none under 'masker.'; is this TCL's file?")
    text = _text_prefix(tensors, path)
    method = Tcl(_clip(tensors, text, clip, path))
    state = method.state_dict()
    names = _names(state, tensors, text)
    _check(names, state, tensors, text, path)
    found = {ours: tensors[theirs].reshape(state[ours].shape) for ours, theirs in names.items() if theirs in tensors}
    method.load_state_dict({**state, **found})
    method.templates = TEMPLATES
    return method.to(method.clip.device).eval()


def _names(state: Tensors, tensors: Tensors, text: str | None) -> Names:
    """Of the grounder, and of the towers that the file holds. text: prefix of the text tower in it."""
    numbers = [int(found[1]) for key in tensors if (found := re.match(re.escape(BLOCK) + r"(\d+)\.", key))]
    block = f"{BLOCK}{max(numbers, default='N')}."
    visual, names = _holds_visual(tensors), {}
    for ours in state:
        part = ours.removeprefix("clip.network.")
        if ours.startswith("grounder."):
            names[ours] = _of_grounder(ours.removeprefix("grounder."), block)
        elif part.startswith("visual."):
            if visual:
                part = part.removeprefix("visual.")
                names[ours] = LAST_LAYER.get(part, CLIP_VISUAL + part)
        elif text is not None and part != "logit_scale":
            names[ours] = text + part
    return names


def _of_grounder(name: str, block: str) -> str:
    """A name in `TextGrounder` -> masker.image_encoder... block: where the file has the copy of CLIP's last block."""
    if name in GROUNDER:
        return GROUNDER[name]
    if name.startswith("block."):
        return block + name.removeprefix("block.")
    stage, conv, leaf = re.fullmatch(r"decoder\.stages\.(\d+)\.([12])\.(.+)", name).groups()
    return f"{DECODER}{stage}.{'conv' if conv == '1' else 'conv2'}." + ("gate.gate" if leaf == "gate" else leaf)


def _check(names: Names, state: Tensors, tensors: Tensors, text: str | None, path: Path) -> None:
    """Raises ValueError unless the file holds all that is named, in the right shapes, and nothing else."""
    ignored = IGNORED if text is None else (*IGNORED, text + "logit_scale", text + "attn_mask")
    missing = sorted(key for key in names.values() if key not in tensors and key not in TEMPERATURES)
    unexpected = sorted(key for key in tensors.keys() - names.values() if not key.startswith(ignored))
    shapes = [f"{key} {tuple(tensors[key].shape)} for {tuple(state[ours].shape)}" for ours, key in names.items()
              if key in tensors and not _fits(tensors[key], state[ours])]  # fmt: skip
    if missing or unexpected or shapes:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}, of another shape {shapes}")


def _fits(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    return given.shape == wanted.shape or (wanted.ndim == 0 and given.numel() == 1)


def _clip(tensors: Tensors, text: str | None, given: Clip | nn.Module | str | None, path: Path) -> Clip:
    """The CLIP underneath, with ImageNet's statistics: towers of the file's sizes where it has them, else the given."""
    visual = _holds_visual(tensors)
    if text is not None and not visual:
        raise ValueError(f"{path}: holds a text tower but no image tower ({CLIP_VISUAL}...); expected both or neither")
    if text is not None:
        network, name = _build(tensors, text, path), "official-tcl"
        device = given.device if isinstance(given, Clip) else "cpu"
    else:
        base = _given(given, path)
        network, name, device = copy.deepcopy(base.network), base.name, base.device
        if visual:
            network.visual = _build(tensors, None, path).visual
            if network.visual.output_dim != base.embed_dim:
                sizes = f"an image tower of {network.visual.output_dim} dimensions, and {name} one of {base.embed_dim}"
                raise ValueError(f"{path}: holds {sizes}; give the CLIP that it was trained on")
    return wrap_clip(network.float(), name, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).to(device).eval()


def _given(clip: Clip | nn.Module | str | None, path: Path) -> Clip:
    if clip is None:
        raise ValueError(f"{path}: holds no whole CLIP of its own; pass clip=..., for the released file 'ViT-B-16'")
    if isinstance(clip, str):
        return load_clip(clip, "openai")
    wrapped = clip if isinstance(clip, Clip) else wrap_clip(clip, "open_clip model")
    if any(isinstance(module, nn.GELU) for module in wrapped.network.visual.modules()):
        warnings.warn(f"{path}: trained on OpenAI's CLIP with QuickGELU, {wrapped.name} has GELU", stacklevel=4)
    return wrapped


def _holds_visual(tensors: Tensors) -> bool:
    return any(key.startswith((CLIP_VISUAL, CLIP_PROJECTION)) for key in tensors)


def _text_prefix(tensors: Tensors, path: Path) -> str | None:
    """What stands before the text tower's names, whatever the module that holds it is called; None without one."""
    keys = [key for key in tensors if key.startswith(CLIP_TEXT)]
    found = [key.removesuffix(TOKENS) for key in keys if key.endswith(TOKENS)]
    if keys and not found:
        raise ValueError(f"{path}: missing {[CLIP_TEXT + TOKENS]}, though it has {keys[0]}")
    return found[0] if found else None


def _build(tensors: Tensors, text: str | None, path: Path) -> nn.Module:
    """An open_clip model of the file's sizes, with random weights. Without `text` its text tower is a dummy."""
    try:
        return build_like(tensors, CLIP_VISUAL, text, LAST_LAYER["proj"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
