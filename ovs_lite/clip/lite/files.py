"""The shipped weights: half precision, and of the token table only the rows that IconWorld's captions use.

The table of 49,408 tokens is most of a miniature CLIP (6.3 of 8 million numbers), and about a thousand are used. The
other rows are never trained; on loading they are drawn from a fixed seed.
"""

from pathlib import Path

import torch
from torch import nn

from ovs_lite.tensors import load_exactly, read_tensors, write_tensors

LITE_MODELS = ("ViT-Lite-8", "ConvNeXt-Lite")
TABLE = "text.token_embedding.weight"
ROWS, ROW_IDS = "text.token_embedding.rows", "text.token_embedding.row_ids"


def shipped_path(name: str) -> Path:
    """Where the weights of a shipped model lie. Raises FileNotFoundError with the command that makes them."""
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: reinstall ovs-lite, or train it with: ovs-lite train clip {name}")
    return path


def save_lite(network: nn.Module, path: str | Path, token_ids: torch.Tensor, metadata: dict[str, str]) -> None:
    """Write a miniature model, atomically. token_ids: (n,) int64, the rows of the token table to keep."""
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    table = tensors.pop(TABLE)
    tensors[ROWS], tensors[ROW_IDS] = table[token_ids].clone(), token_ids.to(torch.int32)
    write_tensors(path, tensors, metadata)


def load_lite(network: nn.Module, path: Path) -> None:
    """Load what `save_lite` wrote into a network of the same architecture; errors as `read_tensors`, `load_exactly`."""
    tensors, _ = read_tensors(path)
    tensors[TABLE] = _full_table(tensors, network, path)
    load_exactly(network, tensors, path)


def _full_table(tensors: dict[str, torch.Tensor], network: nn.Module, path: Path) -> torch.Tensor:
    if ROWS not in tensors or ROW_IDS not in tensors:
        raise ValueError(f"{path}: expected the tensors {ROWS} and {ROW_IDS} of a shipped miniature CLIP")
    shape = network.state_dict()[TABLE].shape
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    rows, row_ids = tensors.pop(ROWS).float(), tensors.pop(ROW_IDS).long()
    fits = rows.shape == (len(row_ids), shape[1]) and row_ids.ndim == 1
    if not fits or (len(row_ids) and not 0 <= row_ids.min() <= row_ids.max() < shape[0]):
        raise ValueError(f"{path}: got {tuple(rows.shape)} rows for {len(row_ids)} tokens of a {tuple(shape)} table")
    table[row_ids] = rows
    return table
