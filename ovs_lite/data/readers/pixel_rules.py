"""How a set's own label files become numbers of its vocabulary: plain maps, ADE20K's colours, PASCAL-Context's MATLAB.

Legend: H, W pixels as stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io

from ovs_lite.config import lookup
from ovs_lite.data.images import check_pixels
from ovs_lite.data.readers.class_list import class_list
from ovs_lite.data.readers.label_maps import read_colours, read_label_map
from ovs_lite.data.vocabulary import Vocabulary, parse_vocabulary

MAT_KEY, MAX_MAT_BYTES = "LabelMap", 50_000_000
CONTEXT_CLASSES = 459
CONTEXT_SOURCE = (
    "PASCAL-Context, all 459 classes, as its labels.txt numbers them; source_id is the value in its label maps"
)


@dataclass(frozen=True)
class PixelRule:
    """read: path -> (H, W) integers. numbers: what they are, see `class_map`. Suffixes of the files, in lower case."""

    read: Callable[[str | Path], np.ndarray]
    numbers: str = "source"
    map_suffixes: tuple[str, ...] = (".png", ".tif", ".tiff")
    image_suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")


STORED = PixelRule(read_label_map)


def pixel_rule(name: str | None, vocabulary: Vocabulary, labels: str | Path | None = None) -> PixelRule:
    """A rule by the catalogue's name: None, "ade-full", or "mat", which needs the labels.txt of PASCAL-Context.

    Raises ValueError for an unknown name, or where labels.txt lacks classes of the vocabulary.
    """
    rule = lookup({"stored": _stored, "ade-full": _ade_full, "mat": _mat}, name or "stored", "rule of pixels")
    return rule(vocabulary, labels)


def context_vocabulary(labels: str | Path) -> Vocabulary:
    """The vocabulary of PASCAL-Context's 459 classes, from its labels.txt. Raises as `class_list`."""
    return parse_vocabulary(class_list(labels, "context459", CONTEXT_SOURCE, CONTEXT_CLASSES))


def _stored(vocabulary: Vocabulary, labels: str | Path | None) -> PixelRule:
    return STORED


def _ade_full(vocabulary: Vocabulary, labels: str | Path | None) -> PixelRule:
    """ADE20K's NAME_seg.png: a class's number is red // 10 * 256 + green; one that is no class has no label."""
    table = np.full(26 * 256, vocabulary.ignore_index, np.int32)
    for number, index in vocabulary.by_source_id().items():
        table[number] = index
    return PixelRule(partial(_read_ade_full, table), "class", (".png",), (".jpg", ".jpeg"))


def _read_ade_full(table: np.ndarray, path: str | Path) -> np.ndarray:
    colours = read_colours(path)
    return table[colours[..., 0] // 10 * 256 + colours[..., 1]]


def _mat(vocabulary: Vocabulary, labels: str | Path | None) -> PixelRule:
    """PASCAL-Context's NAME.mat with 1..459, 0 without a label; of fewer classes those that have their names."""
    if labels is None:
        raise ValueError("got no labels.txt, which says what the numbers in PASCAL-Context's maps mean")
    numbers = dict(zip(*_by_name(context_vocabulary(labels)), strict=True))
    own = {n: s for n, s in zip(*_by_name(vocabulary), strict=True) if s}  # 0 is the background, or no label
    if missing := [name for name in own if name not in numbers]:
        raise ValueError(f"{labels} has no {', '.join(missing[:5])} ({len(missing)} of {len(own)} names missing)")
    table = np.zeros(CONTEXT_CLASSES + 1, np.int32)
    for name, source in own.items():
        table[numbers[name]] = source
    return PixelRule(partial(_read_mat, table), map_suffixes=(".mat",))


def _by_name(vocabulary: Vocabulary) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
    return vocabulary.source_names, vocabulary.source_id


def _read_mat(table: np.ndarray, path: str | Path) -> np.ndarray:
    """(H, W) numbers of a MATLAB 5 file. Its reader knows numbers and text, and runs nothing."""
    try:
        if Path(path).stat().st_size > MAX_MAT_BYTES:
            raise ValueError(f"more than {MAX_MAT_BYTES} bytes")
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(str(path))}
        if len(shapes.get(MAT_KEY, ())) != 2:
            raise ValueError(f"got {sorted(shapes)}, expected a matrix {MAT_KEY}")
        check_pixels(shapes[MAT_KEY][1], shapes[MAT_KEY][0], "a map")
        values = scipy.io.loadmat(str(path), variable_names=[MAT_KEY])[MAT_KEY]
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= len(table):
            raise ValueError(f"got {values.dtype} numbers up to {values.max()}, expected 0..{len(table) - 1}")
    except FileNotFoundError:
        raise FileNotFoundError(f"no label map at {path}") from None
    except Exception as error:  # damaged files raise ValueError, TypeError, struct.error, zlib.error, MatReadError, ...
        raise ValueError(f"{path} cannot be read as a label map: {error}") from None
    return table[values]
