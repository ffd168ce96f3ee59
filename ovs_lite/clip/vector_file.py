"""Many short vectors as one safetensors file, written at once.

`ovs_lite.tensors.write_tensors` hands every tensor to the library for itself, 45 microseconds each: a new word among
a thousand cached ones would wait for the file longer than for the text tower. Here the format, which is plain, is
written directly, and the bytes are the same.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ovs_lite.files import replacing
from ovs_lite.tensors import DIGEST

ALIGNED = 8  # bytes: the length of a header is a multiple


def write_vectors(path: str | Path, vectors: Mapping[str, torch.Tensor]) -> None:
    """Name -> (D,) float32, at least one, written atomically, byte for byte as `write_tensors` does.

    Raises OSError where the file cannot be written.
    """
    names = sorted(vectors, key=lambda name: name.encode())
    body = torch.stack([vectors[name] for name in names]).numpy().astype("<f4")
    size, shape = body[0].nbytes, list(body[0].shape)
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [row * size, (row + 1) * size]}
        for row, name in enumerate(names)
    }
    known = json.dumps({"__metadata__": {}} | header, sort_keys=True)
    digest = hashlib.sha256(known.encode() + body.tobytes()).hexdigest()
    text = json.dumps({"__metadata__": {DIGEST: digest}} | header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // ALIGNED) * ALIGNED)
    with replacing(path) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + body.tobytes())
