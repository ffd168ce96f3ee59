"""A method's own trained weights: one safetensors file, in half precision, that knows which CLIP it belongs to."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ovs_lite.checkpoints.official_tcl import load_official_tcl
from ovs_lite.clip import Clip
from ovs_lite.files import write_tensors
from ovs_lite.methods import Method, method_class

SHIPPED = Path(__file__).parents[1] / "methods" / "weights"  # NAME.safetensors, trained on the shipped ViT-Lite-8


def save_method(method: Method, path: str | Path, notes: dict[str, str] | None = None) -> None:
    """Write what a method trained, with the name of its CLIP and a fingerprint of that CLIP's weights. Atomic.

    notes: kept in the file's metadata (steps, data, command). Raises ValueError for a method that trains nothing.
    """
    part = method.trained_part()
    if part is None:
        raise ValueError(f"got the method {method.name}, expected one with trained weights of its own")
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in part.state_dict().items()}
    about = {"method": method.name, "clip": method.clip.name, "clip_fingerprint": _fingerprint(method.clip)}
    write_tensors(path, tensors, {**(notes or {}), **about})


def load_method(name: str, clip: Clip, checkpoint: str | Path | None = None) -> Method:
    """A method by name on a CLIP, with its trained weights, in evaluation mode.

    checkpoint: what `save_method` wrote; for tcl also the released tcl.pth. None: the shipped weights, where the method
    has weights. Raises ValueError for an unknown method, for a checkpoint of a method that trains nothing, for weights
    of another method or CLIP and for damaged files, FileNotFoundError for missing ones.
    """
    kind, path = method_class(name), check_checkpoint(name, checkpoint)
    if path is None:
        return kind(clip).eval()
    if name == "tcl" and not _is_ours(path):
        return load_official_tcl(path, clip)
    method = kind(clip)
    _fill(method, path)
    return method.to(clip.device).eval()


def check_checkpoint(name: str, checkpoint: str | Path | None) -> Path | None:
    """Which file holds a method's weights; None for a method that trains nothing. Errors as `load_method`."""
    if not method_class(name).trains:
        if checkpoint is None:
            return None
        raise ValueError(
            f"got checkpoint={str(checkpoint)!r}, but {name} has no trained weights of its own; "
            "give CLIP weights as pretrained=..."
        )
    path = SHIPPED / f"{name}.safetensors" if checkpoint is None else Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights; train them with: ovs-lite train {name}")
    return path


def _is_ours(path: Path) -> bool:
    """Whether a file is for `_fill` to read or to refuse, rather than a released layout."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            return not any(key.startswith(("masker.", "module.masker.")) for key in file.keys())
    except (SafetensorError, OSError):
        return True


def _fingerprint(clip: Clip) -> str:
    return f"{clip.fingerprint()}-{clip.image_fingerprint()}"


def _fill(method: Method, path: Path) -> None:
    """Raises ValueError naming the file and what does not fit."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch or train it again") from error
    if about.get("method") != method.name:
        raise ValueError(f"{path}: weights of {about.get('method', 'no method')!r}, expected those of {method.name!r}")
    if about.get("clip_fingerprint") != _fingerprint(method.clip):
        raise ValueError(
            f"{path}: trained on the CLIP {about.get('clip')!r}, whose weights are not those of the given "
            f"{method.clip.name!r}; give that CLIP, or train {method.name} on this one and pass checkpoint=..."
        )
    part = method.trained_part()
    expected = part.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    shapes = sorted(key for key in expected.keys() & tensors if expected[key].shape != tensors[key].shape)
    if missing or unexpected or shapes:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}, of another shape {shapes}")
    part.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()})
