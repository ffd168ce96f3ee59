"""Where COCO lies below a folder of the user's (OVS_REAL_DATA), in the layouts in which it unpacks.

Looked for at most two folders below the given one, so that OVS_REAL_DATA may be the data set itself or hold several.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COCO_KINDS = ("instances", "captions", "panoptic")


@dataclass(frozen=True)
class CocoSplit:
    """The files of one split of COCO 2017, None where they are not there.

    images: NAME/ or images/NAME/. instances, captions, panoptic: annotations/KIND_NAME.json.
    maps: annotations/panoptic_NAME/, the PNGs.
    """

    name: str
    images: Path
    instances: Path | None
    captions: Path | None
    panoptic: Path | None
    maps: Path | None


def find_coco(root: str | Path) -> list[CocoSplit]:
    """Splits of COCO with a folder of images and one annotation file or more, in the order of their paths."""
    splits = []
    for folder in annotation_folders(root):
        paths = [path for path in folder.glob("*.json") if path.stem.partition("_")[0] in COCO_KINDS]
        for name in sorted({path.stem.partition("_")[2] for path in paths}):
            images = [path for path in (folder.parent / name, folder.parent / "images" / name) if path.is_dir()]
            kinds = [folder / f"{kind}_{name}.json" for kind in COCO_KINDS]
            maps = folder / f"panoptic_{name}"
            found = [path if path.exists() else None for path in (*kinds, maps)]
            splits += [CocoSplit(name, images[0], *found)] if images else []
    return splits


def annotation_folders(root: str | Path) -> Iterator[Path]:
    """Folders called annotations, in `root` itself first, sorted at each depth."""
    for pattern in ("annotations", "*/annotations", "*/*/annotations"):
        yield from sorted(path for path in Path(root).glob(pattern) if path.is_dir())
