"""Public data sets are found as they unpack, whether the folder is one of them or holds several."""

import pytest

from kit.real_data import find_ade20k
from ovs_lite.data.readers.real_data import find_coco


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"")


COCO = """train2017/1.jpg val2017/2.jpg annotations/instances_train2017.json annotations/captions_train2017.json
annotations/panoptic_val2017.json annotations/panoptic_val2017/2.png annotations/person_keypoints_val2017.json
annotations/instances_test2017.json""".split()
ADE = ["images/training/a.jpg", "images/validation/b.jpg", "annotations/training/a.png", "objectInfo150.txt"]


@pytest.mark.parametrize("below", ["", "coco", "sets/coco"])
def test_coco_is_found_as_it_unpacks(tmp_path, below):
    root = tmp_path / below
    tree(root, *COCO)
    tree(root.parent if below else tmp_path, "other/annotations/notes.txt")
    train, val = find_coco(tmp_path)
    assert (train.name, train.images, train.maps) == ("train2017", root / "train2017", None)
    assert train.instances == root / "annotations/instances_train2017.json" and train.panoptic is None
    assert train.captions == root / "annotations/captions_train2017.json"
    assert (val.instances, val.captions) == (None, None)
    assert val.panoptic == val.maps.with_suffix(".json") == root / "annotations/panoptic_val2017.json"
    assert not find_ade20k(tmp_path)


def test_images_may_lie_one_folder_deeper(tmp_path):
    tree(tmp_path, "coco/images/val2017/1.jpg", "coco/annotations/instances_val2017.json")
    [split] = find_coco(tmp_path)
    assert split.images == tmp_path / "coco/images/val2017" and not find_ade20k(tmp_path)


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016", "sets/ADEChallengeData2016"])
def test_ade20k_is_found_as_it_unpacks(tmp_path, below):
    tree(tmp_path / below, *ADE)
    assert find_ade20k(tmp_path) == [(tmp_path / below / "images", tmp_path / below / "annotations")]
    assert not find_coco(tmp_path)


def test_flat_folders_are_found_and_empty_ones_are_not(tmp_path):
    tree(
        tmp_path,
        "ade20k/images/a.jpg",
        "ade20k/annotations/a.png",
        "b/images/a.jpg",
        "b/annotations/c/",
        "d/annotations/a.png",
    )
    assert find_ade20k(tmp_path) == [(tmp_path / "ade20k/images", tmp_path / "ade20k/annotations")]
    assert find_coco(tmp_path) == find_coco(tmp_path / "nowhere") == find_ade20k(tmp_path / "nowhere") == []
