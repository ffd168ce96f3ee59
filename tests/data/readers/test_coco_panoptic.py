"""The COCO panoptic reader on an invented set with large ids, crowds and void, and on files that lie."""

import io
import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from kit.real_data import found
from ovs_lite.data.readers.coco_panoptic import iter_coco_panoptic
from ovs_lite.data.readers.label_maps import read_panoptic_map
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import load_vocabulary

HEIGHT, WIDTH = 20, 30
DOG, CROWD, SKY = 18, 1, 187
IDS = {DOG: 5, CROWD: 256 * 7 + 3, SKY: 65536 * 200 + 256 * 13 + 255}  # one, two and three channels


def colours(ids):
    """(H, W) ids -> (H, W, 3) uint8, channel by channel as panopticapi's id2rgb writes them."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def ids_of(number):
    """Sky above, void below, a dog over both and in image 1 a crowd."""
    ids = np.zeros((HEIGHT, WIDTH), int)
    ids[:10] = IDS[SKY]
    if number == 1:
        ids[8:, 20:] = IDS[CROWD]
    ids[5:15, 4:9] = IDS[DOG]
    return ids


def segment(category, **changes):
    return {"id": IDS[category], "category_id": category, "iscrowd": 0, "area": -1, "bbox": [0, 0, 0, 0]} | changes


@pytest.fixture
def world(tmp_path):
    for folder in ("images", "maps"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), "green").save(tmp_path / "images" / f"{number}.jpg")
        Image.fromarray(colours(ids_of(number))).save(tmp_path / "maps" / f"{number}.png")
    names = ((1, "person"), (DOG, "dog"), (SKY, "sky-other-merged"), (118, "floor-wood"))
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": HEIGHT, "width": WIDTH} for k in (1, 2)],
        "categories": [{"id": key, "name": name, "isthing": int(key < 92)} for key, name in names],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1.png",
                "segments_info": [segment(SKY), segment(CROWD, iscrowd=1), segment(DOG)],
            },
            {"image_id": 2, "file_name": "2.png", "segments_info": [segment(DOG), segment(SKY)]},
        ],
    }
    captions = {"images": content["images"], "annotations": [{"id": 1, "image_id": 2, "caption": " A\ndog. "}]}
    return {"folder": tmp_path, "panoptic": content, "captions": captions}


def read(world, **options):
    folder, report = world["folder"], ReaderReport()
    for name in ("panoptic", "captions"):
        (folder / f"{name}.json").write_text(json.dumps(world[name]))
    source = iter_coco_panoptic(
        folder / "images", folder / "maps", folder / "panoptic.json", folder / "captions.json", report, **options
    )
    return {record["image_id"]: record for record in source}, report


def test_ids_in_colours_become_segments_with_the_vocabularys_classes(world):
    records, report = read(world)
    vocabulary = load_vocabulary("coco-panoptic")
    assert list(records) == ["1", "2"] and not report.skipped and not report.annotations_skipped
    record, ids = records["1"], ids_of(1)
    expected = np.select([ids == IDS[SKY], ids == IDS[CROWD], ids == IDS[DOG]], [1, 2, 3])
    assert np.array_equal(record["segments"], expected)
    found = [
        (i["id"], vocabulary.names[i["category_id"]], i["is_thing"], i["is_crowd"]) for i in record["segments_info"]
    ]
    assert found == [(1, "sky", False, False), (2, "person", True, True), (3, "dog", True, False)]
    assert [info["area"] for info in record["segments_info"]] == [(expected == n).sum() for n in (1, 2, 3)]
    assert record["segments_info"][2]["bbox"] == [4, 5, 5, 10]
    assert (record["captions"], records["2"]["captions"]) == ([], ["A dog."])
    assert (report.read, report.segments, report.crowds, report.annotations_read) == (2, 5, 1, 6)
    write_split(records.values(), world["folder"] / "out", progress=False)
    row = load_split(world["folder"] / "out")[0]
    classes = semantic_map(row["segments"], row["segments_info"])
    assert (classes[0, 0], classes[19, 0]) == (vocabulary.index("sky"), 255)


def test_an_id_is_red_plus_256_green_plus_65536_blue(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3], [255, 255, 255], [0, 0, 0]]], np.uint8)).save(tmp_path / "x.png")
    assert read_panoptic_map(tmp_path / "x.png").tolist() == [[1 + 2 * 256 + 3 * 65536, 2**24 - 1, 0]]


def jpeg_as_png(path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, "JPEG")


MAP_FAULTS = {
    "no map": (lambda w: (w["folder"] / "maps/1.png").unlink(), "no label map at"),
    "grey": (lambda w: Image.new("L", (WIDTH, HEIGHT)).save(w["folder"] / "maps/1.png"), "got mode 'L'"),
    "alpha": (lambda w: Image.new("RGBA", (WIDTH, HEIGHT)).save(w["folder"] / "maps/1.png"), "got mode 'RGBA'"),
    "jpeg": (lambda w: jpeg_as_png(w["folder"] / "maps/1.png"), "got JPEG, expected PNG"),
    "other size": (lambda w: Image.new("RGB", (9, 9)).save(w["folder"] / "maps/1.png"), "9 x 9 pixels, the JSON"),
    "an id that is not listed": (lambda w: w["panoptic"]["annotations"][0]["segments_info"].pop(2), r"ids \[5\]"),
    "no annotation": (lambda w: w["panoptic"]["annotations"].pop(0), "no annotation of the image"),
    "no list": (lambda w: w["panoptic"]["annotations"][0].update(segments_info=None), "no annotation of the image"),
    "outside": (lambda w: w["panoptic"]["annotations"][0].update(file_name="../maps/1.png"), "got file name"),
    "no image": (lambda w: (w["folder"] / "images/1.jpg").unlink(), "no image file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MAP_FAULTS)
def test_images_without_a_good_map_are_skipped_and_listed(world, fault):
    spoil, reason = MAP_FAULTS[fault]
    spoil(world)
    records, report = read(world)
    assert list(records) == ["2"]
    [(name, why)] = report.skipped
    assert name == "1.jpg"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(why)


SEGMENT_FAULTS = {
    "unknown category": (lambda info: info.update(category_id=999), "category id 999"),
    "iscrowd 2": (lambda info: info.update(iscrowd=2), "iscrowd 2"),
    "twice": (lambda info: info.update(id=IDS[SKY]), "comes twice"),
    "id of nobody": (lambda info: info.update(id=77), "no pixel"),
    "id 0": (lambda info: info.update(id=0), "0 is void"),
    "no id": (lambda info: info.pop("id"), "no integer id"),
    "id list": (lambda info: info.update(id=[5]), "no integer id"),
}


@pytest.mark.parametrize("fault", SEGMENT_FAULTS)
def test_bad_segments_become_void_and_are_listed(world, fault):
    spoil, reason = SEGMENT_FAULTS[fault]
    spoil(world["panoptic"]["annotations"][0]["segments_info"][2])
    if "id" in fault or fault == "twice":  # then the map must not show the dog either
        Image.fromarray(colours(np.where(ids_of(1) == IDS[DOG], 0, ids_of(1)))).save(world["folder"] / "maps/1.png")
    records, report = read(world)
    assert not report.skipped and [info["id"] for info in records["1"]["segments_info"]] == [1, 2]
    assert (records["1"]["segments"][ids_of(1) == IDS[DOG]] == 0).all()
    [(_, why)] = report.annotations_skipped
    assert reason in why


def test_maps_follow_the_orientation_of_the_image(world):
    """The JSON says the stored size: the map turns with the image. It says the upright one: the map stays."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, turned in ((1, False), (2, True)):
        Image.new("RGB", (WIDTH, HEIGHT)).save(world["folder"] / "images" / f"{number}.jpg", exif=exif)
        if turned:
            Image.fromarray(colours(np.rot90(ids_of(2), -1))).save(world["folder"] / "maps/2.png")
            world["panoptic"]["images"][1].update(height=WIDTH, width=HEIGHT)
    records, report = read(world)
    assert not report.skipped
    for number, dog in ((1, 3), (2, 1)):
        record = records[str(number)]
        assert np.array_equal(record["segments"] == dog, np.rot90(ids_of(number) == IDS[DOG], -1))
        assert Image.open(io.BytesIO(record["image"])).size == (HEIGHT, WIDTH)


def test_other_layouts_and_categories_are_one_error(world):
    info = world["panoptic"]["annotations"]
    world["panoptic"]["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 18, "segmentation": [[1, 1, 5, 5, 9, 1]]}
    ]
    with pytest.raises(
        ValueError, match=r"looks like COCO's instances layout.*iter_coco\(images_dir, instances_json\)"
    ):
        read(world)
    world["panoptic"]["annotations"] = info
    for category in world["panoptic"]["categories"]:
        category["id"] += 1
    with pytest.raises(
        ValueError, match="category 2, 'person' in the JSON and 'bicycle' in 'coco-panoptic'.*vocabulary="
    ):
        read(world)
    with pytest.raises(FileNotFoundError, match="no panoptic map folder at .*nowhere"):
        list(
            iter_coco_panoptic(
                world["folder"] / "images", world["folder"] / "nowhere", world["folder"] / "panoptic.json"
            )
        )


def test_of_a_subset_images_that_are_not_on_disk_are_no_fault(world):
    (world["folder"] / "images/1.jpg").unlink()
    records, report = read(world, subset=True)
    assert list(records) == ["2"] and report.absent == 1 and not report.skipped
    report.check()


@pytest.mark.real
def test_real_images():
    split = next((split for split in found(find_coco, "COCO 2017") if split.panoptic and split.maps), None)
    if split is None:
        pytest.skip("OVS_REAL_DATA has no annotations/panoptic_*.json with its folder of PNGs")
    report = ReaderReport()
    source = iter_coco_panoptic(split.images, split.maps, split.panoptic, report=report, subset=True)
    areas = {
        entry["image_id"]: entry["segments_info"] for entry in json.loads(split.panoptic.read_text())["annotations"]
    }
    for record in islice(source, 80):
        expected = [info["area"] for info in areas[int(record["image_id"])]]
        assert [info["area"] for info in record["segments_info"]] == expected
    report.check()
    assert not report.skipped and not report.annotations_skipped
