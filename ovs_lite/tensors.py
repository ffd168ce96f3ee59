"""Named tensors on disk: written atomically, read strictly, foreign files read without running anything in them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ovs_lite.files import replacing


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, atomically. Raises OSError where they cannot be written."""
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(stored, temporary, metadata)
        except SafetensorError as error:  # a full disk, in the library's words
            raise OSError(str(error)) from error


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The named tensors of a safetensors file and its metadata.

    Raises FileNotFoundError, and ValueError naming the file where it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch or train it again") from error


def load_exactly(module: nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Fill a module with named tensors, each in the module's own type.

    Raises ValueError naming the file and every tensor that is missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    shapes = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors)
        if expected[key].shape != tensors[key].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}, of another shape {shapes}")
    module.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()})


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32, float64 as it is: sums over pixels overflow half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


class _Skipped:
    """Stands where a file names a class that we do not trust: takes any state and does nothing with it."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_foreign(path: str | Path, part: str) -> dict[str, torch.Tensor]:
    """Named tensors of a torch file or a safetensors file. part: key under which a torch file may keep them.

    Objects of other classes (configurations, optimisers) are replaced by inert stand-ins while torch's restricted
    reader goes over them. Raises FileNotFoundError, and ValueError naming the file where it holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        content = _read_torch(path)
    except Exception as error:  # on damaged files torch's reader, zipfile and struct raise a dozen kinds
        reason = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]  # without advice
        reason = f"{type(error).__name__}: {' '.join(reason.split())[:300]}"
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error
    found = content.get(part, content) if isinstance(content, dict) else {}
    named = found.items() if isinstance(found, dict) else ()
    tensors = {key: value for key, value in named if isinstance(key, str) and torch.is_tensor(value)}
    if not tensors:
        raise ValueError(f"{path}: no named tensors in it, nor under {part!r}")
    return tensors


def _read_torch(path: Path) -> Any:
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    with torch.serialization.safe_globals([(_Skipped, name) for name in unknown]):
        return torch.load(path, map_location="cpu", weights_only=True)
