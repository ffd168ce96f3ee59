"""Named tensors on disk: written atomically, read strictly, foreign files read without running anything in them."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ovs_lite.files import replacing

DIGEST = "sha256"  # key in a file's metadata
TORCHSCRIPT = "a TorchScript archive, which is a program; use pretrained='openai' for OpenAI's CLIP, or a state_dict"
OTHERS = {  # how files that are often taken for weights begin: what they are, and what to use instead
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch that with: git lfs pull",
    b"<": "a web page (a failed download?), not weights; fetch the file again",
    b"\x89HDF": "an HDF5 file (Keras); use weights of PyTorch",
    b"GGUF": "a GGUF file; use safetensors or a torch file",
}


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, atomically. The same tensors and metadata give the same bytes.

    The metadata gets a digest of all the rest, which `read_tensors` and `read_foreign` compare.
    Raises OSError where the file cannot be written.
    """
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(stored, temporary, {**(metadata or {}), DIGEST: "0" * 64})
        except SafetensorError as error:  # a full disk, in the library's words
            raise OSError(str(error)) from error
        with open(temporary, "r+b") as file:  # safetensors writes metadata in a random order; sorted it is as long
            header, digest = _digest(file)
            header["__metadata__"] = dict(sorted({**header["__metadata__"], DIGEST: digest}.items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            file.write(text.ljust(length))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The named tensors of a safetensors file and its metadata. Errors as `read_metadata`, and ValueError for a file
    that another process replaces meanwhile."""
    about = read_metadata(path)
    try:
        with safe_open(path, "pt") as file:
            # copies: what is mapped into memory changes with the file, and Windows neither replaces nor removes it
            return {key: file.get_tensor(key).clone() for key in file.keys()}, about
    except (SafetensorError, RuntimeError) as error:  # the library reads the header of one and maps the other
        raise ValueError(f"{path}: changed while it was read ({error}); read it again") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, whose digest is compared with it where it has one (those of others do not).

    Raises FileNotFoundError, and ValueError naming the file where it is damaged or something else.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such weights")
    if not check_kind(path):
        given = "it does not begin as one; a torch file?"
        raise ValueError(f"{path}: not a readable safetensors file ({given}); fetch or train it again")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError) as error:  # the last where another process replaces it meanwhile
        raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch or train it again") from error
    if DIGEST in about:
        with open(path, "rb") as file:
            if _digest(file)[1] != about[DIGEST]:
                raise ValueError(f"{path}: damaged, its {DIGEST} is not that of its metadata; fetch or train it again")
    return about


def tensors_digest(about: str, tensors: Iterable[torch.Tensor]) -> str:
    """A name of 24 letters for tensors in this order, and what is said about them."""
    digest = hashlib.sha256(about.encode())
    for value in tensors:
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


def _digest(file: BinaryIO) -> tuple[dict[str, Any], str]:
    """Header of a valid safetensors file without its digest, and the SHA-256 of that (keys sorted) and the body."""
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header["__metadata__"].pop(DIGEST)
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for block in iter(lambda: file.read(1 << 20), b""):
        total.update(block)
    return header, total.hexdigest()


def check_kind(path: Path) -> bool:
    """Whether a file begins as safetensors does.

    Raises ValueError that says what it is and what to use instead where it can be no weights.
    """
    if path.is_dir():
        inside = min(path.glob("*.safetensors"), default="the file of weights in it")
        raise ValueError(f"{path}: a folder; give {inside}")
    if not path.is_file():
        raise ValueError(f"{path}: not a file (a pipe or a device?); give the file of weights itself")
    with open(path, "rb") as file:
        begin = file.read(64)
    if begin[8:9] == b"{":
        return True
    found = next((what for start, what in OTHERS.items() if begin.lstrip().startswith(start)), None)
    if not begin:
        found = "an empty file; fetch or train it again"
    if names := _archived(path) if begin.startswith(b"PK") else []:
        if any(name.endswith("/constants.pkl") for name in names):
            found = TORCHSCRIPT
        elif all(name.endswith(".npy") for name in names):
            found = "a NumPy archive; use safetensors or a torch file"
    if found:
        raise ValueError(f"{path}: {found}")
    return False


def _archived(path: Path) -> list[str]:
    """Names in a zip archive, none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile and struct raise half a dozen kinds
        return []


def load_exactly(module: nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Fill a module with named tensors, each in the module's own type.

    Raises ValueError naming the file and the tensors that are missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    shapes = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors)
        if expected[key].shape != tensors[key].shape
    ]
    if missing or unexpected or shapes:
        missing, unexpected, shapes = map(_first, (missing, unexpected, shapes))
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}, of another shape {shapes}")
    module.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()})


def _first(names: list[str], most: int = 5) -> str:
    """A list as text, in one line whatever its length."""
    return f"{names[:most]}" + (f" and {len(names) - most} more" if len(names) > most else "")


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32, float64 as it is: sums over pixels overflow half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(..., N, D), (..., M, D) -> (..., N, M) products of vectors, in float32 or wider, also under autocast, which
    casts what a matrix product is given: cosines times 100 would be off by tenths."""
    first = at_least_float32(first)
    with torch.autocast(first.device.type, enabled=False):
        return first @ second.to(first.dtype).mT


def nothing_learned(*tensors: torch.Tensor) -> torch.Tensor:
    """The loss of a batch that has nothing to learn from: a scalar 0, with gradients of 0 to each of the tensors.

    Unlike 0 * tensor.sum() it stays 0 where a sum overflows or padding is NaN.
    """
    return sum(at_least_float32(tensor.flatten()[:0]).sum() for tensor in tensors)


class _Skipped:
    """Stands where a file names a class that we do not trust: takes any state and does nothing with it."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_foreign(path: str | Path, *parts: str) -> dict[str, torch.Tensor]:
    """Named tensors of a torch file or a safetensors file. parts: keys under which a torch file may keep them.

    Objects of other classes (configurations, optimisers) are replaced by inert stand-ins while torch's restricted
    reader goes over them. Raises FileNotFoundError, and ValueError naming the file where it holds no tensors.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if check_kind(path):
        return read_tensors(path)[0]
    try:
        content = _read_torch(path)
    except Exception as error:  # on damaged files torch's reader, zipfile and struct raise a dozen kinds
        reason = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]  # without advice
        reason = f"{type(error).__name__}: {' '.join(reason.split())[:300]}"
        raise ValueError(f"{path}: not a readable checkpoint ({reason}); fetch it again, or as safetensors") from error
    found = next((content[p] for p in parts if p in content), content) if isinstance(content, dict) else {}
    named = found.items() if isinstance(found, dict) else ()
    tensors = {key: value for key, value in named if isinstance(key, str) and torch.is_tensor(value)}
    if not tensors:
        raise ValueError(f"{path}: no named tensors in it, nor under {' or '.join(map(repr, parts))}")
    return tensors


def _read_torch(path: Path) -> Any:
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    # an open file: by its name torch would hand a file called *.safetensors to another reader
    with torch.serialization.safe_globals([(_Skipped, name) for name in unknown]), open(path, "rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)
