"""Data sets of the user's, for tests marked `real`, and the layout of ADE20K's 150-class release."""

import os

import pytest

from ovs_lite.data.readers.real_data import annotation_folders
from ovs_lite.data.readers.semantic import iter_label_maps
from ovs_lite.data.vocabulary import load_vocabulary


def found(find, what):
    """What a finder, such as `find_coco`, sees below OVS_REAL_DATA; without any the test is skipped."""
    root = os.environ.get("OVS_REAL_DATA")
    there = find(root) if root else []
    return there or pytest.skip(f"set OVS_REAL_DATA to a folder with {what}, in its own layout")


def find_ade20k(root):
    """(images, annotations) folders for `iter_ade20k`: those of ADEChallengeData2016, or flat ones."""
    folders = [folder for folder in annotation_folders(root) if not any(folder.glob("*.json"))]
    pairs = [(folder.parent / "images", folder) for folder in folders]
    return [pair for pair in pairs if pair[0].is_dir() and any(pair[1].rglob("*.png"))]


def iter_ade20k(images, annotations, report=None, subset=False):
    """`iter_label_maps` of ADE20K with 150 classes: flat folders, or with training/ and validation/ below."""
    return iter_label_maps(images, annotations, load_vocabulary("ade150"), report, subset)
