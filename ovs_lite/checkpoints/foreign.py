"""Reading tensors from files that others wrote, without running anything that is in them."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


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
