"""The COCO reader on a small invented set, on files that lie in every way we know, and on real images."""

import copy
import io
import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from kit.real_data import found
from ovs_lite.data.readers.coco import iter_coco
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.rle import encode_rle
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import load_vocabulary

HEIGHT, WIDTH = 40, 60


def box(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def instance(key, image_id, category_id, segmentation, **changes):
    entry = {"id": key, "image_id": image_id, "category_id": category_id, "segmentation": segmentation, "iscrowd": 0}
    return entry | {"area": -1, "bbox": [0, 0, 0, 0]} | changes


def crowd_rle():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:, :] = True
    runs = np.diff([0, *np.flatnonzero(np.diff(np.r_[0, mask.T.ravel().astype(int)])), mask.size]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": runs}


@pytest.fixture
def world(tmp_path):
    """Three pictures with instances (1: overlap and crowd, 2: one dog, 3: nothing) and one that only has a caption."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for key in (1, 2, 3, 4):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{key}.jpg")
    images = [{"id": k, "file_name": f"{k}.jpg", "height": HEIGHT, "width": WIDTH} for k in (1, 2, 3, 4)]
    instances = {
        "images": images[:3],
        "categories": [{"id": i, "name": n} for i, n in ((1, "person"), (18, "dog"), (90, "toothbrush"))],
        "annotations": [
            instance(11, 1, 90, box(10, 10, 4, 4)),
            instance(12, 1, 18, box(5, 5, 30, 20)),
            instance(13, 1, 1, crowd_rle(), iscrowd=1),
            instance(21, 2, 18, box(50, 30, 50, 50)),
        ],
    }
    captions = {
        "images": images,
        "annotations": [
            {"id": 1, "image_id": 1, "caption": " A dog\nand a brush. "},
            {"id": 3, "image_id": 1, "caption": "zwei \U0001f415\u200d\U0001f9ba \u05db\u05dc\u05d1"},
            {"id": 2, "image_id": 4, "caption": "Only words."},
        ],
    }
    return {"folder": tmp_path, "instances": instances, "captions": captions}


def read(world, report=None, captions=True, subset=False):
    folder = world["folder"]
    for name in ("instances", "captions"):
        (folder / f"{name}.json").write_text(json.dumps(world[name]))
    report = ReaderReport() if report is None else report
    captions_json = folder / "captions.json" if captions else None
    records = list(iter_coco(folder / "images", folder / "instances.json", captions_json, report, subset=subset))
    return {record["image_id"]: record for record in records}, report


def test_overlaps_crowds_and_captions(world):
    records, report = read(world)
    assert list(records) == ["1", "2", "3", "4"] and not report.skipped and not report.annotations_skipped
    segments, infos = records["1"]["segments"], records["1"]["segments_info"]
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    expected[20:] = 3
    expected[5:25, 5:35] = 2
    expected[10:14, 10:14] = 1  # the small one stays visible, the crowd lies at the bottom
    assert np.array_equal(segments, expected)
    assert [(i["id"], i["category_id"], i["is_crowd"]) for i in infos] == [(1, 79, False), (2, 16, False), (3, 0, True)]
    assert infos[1]["area"] == 30 * 20 - 16 and infos[1]["bbox"] == [5, 5, 30, 20]
    assert (report.read, report.segments, report.crowds, report.annotations_read) == (4, 4, 1, 7)
    assert records["1"]["captions"] == ["A dog and a brush.", "zwei \U0001f415\u200d\U0001f9ba \u05db\u05dc\u05d1"]
    assert set(np.unique(semantic_map(segments, infos)).tolist()) == {0, 16, 79, 255}


def test_clipping_and_images_without_instances_or_without_annotation(world):
    records, _ = read(world)
    assert records["2"]["segments_info"][0]["bbox"] == [50, 30, 10, 10]
    assert (records["3"]["segments"] == 0).all() and records["3"]["segments_info"] == []
    assert records["4"]["segments"] is None and records["4"]["segments_info"] is None
    assert records["4"]["captions"] == ["Only words."]
    assert list(read(world, captions=False)[0]) == ["1", "2", "3"]


def test_hidden_instances_are_dropped_and_counted(world):
    world["instances"]["annotations"] += [instance(10, 2, 1, box(0, 0, 8, 8)), instance(22, 2, 18, box(0, 0, 8, 8))]
    records, report = read(world)
    assert report.covered == 1 and not report.annotations_skipped
    assert [info["id"] for info in records["2"]["segments_info"]] == [2, 3]  # of equals the later one is on top


def test_a_crowd_lies_below_even_a_larger_instance(world):
    small_crowd = encode_rle(np.pad(np.ones((4, 20), bool), ((10, HEIGHT - 14), (25, WIDTH - 45))))
    world["instances"]["annotations"][2]["segmentation"] = small_crowd  # 80 pixels, 40 of them on the dog of 600
    records, _ = read(world)
    assert [info["area"] for info in records["1"]["segments_info"]] == [16, 600 - 16, 40]


def test_the_order_of_the_file_does_not_matter(world):
    forward, _ = read(world)
    for part in ("images", "annotations"):
        world["instances"][part].reverse()
        world["captions"][part].reverse()
    backward, _ = read(world)
    assert list(forward) == list(backward)
    for key, record in forward.items():
        assert record["captions"] == backward[key]["captions"]
        assert record["segments_info"] == backward[key]["segments_info"]
        assert np.array_equal(record["segments"], backward[key]["segments"])


def broken(folder, name, content):
    (folder / "images" / name).write_bytes(content)


PICTURE_FAULTS = {
    "missing": lambda w: (w["folder"] / "images" / "2.jpg").unlink(),
    "empty": lambda w: broken(w["folder"], "2.jpg", b""),
    "html": lambda w: broken(w["folder"], "2.jpg", b"<html>404</html>"),
    "truncated": lambda w: broken(w["folder"], "2.jpg", (w["folder"] / "images" / "2.jpg").read_bytes()[:900]),
    "other size": lambda w: w["instances"]["images"][1].update(height=41),
    "size as text": lambda w: w["instances"]["images"][1].update(height="40"),
    "no size": lambda w: w["instances"]["images"][1].pop("width"),
    "no name": lambda w: w["instances"]["images"][1].pop("file_name"),
    "name outside": lambda w: w["instances"]["images"][1].update(file_name="../images/2.jpg"),
    "absolute name": lambda w: w["instances"]["images"][1].update(file_name="/etc/passwd"),
    "name with NUL": lambda w: w["instances"]["images"][1].update(file_name="2.jpg\0"),
    "surrogate name": lambda w: w["instances"]["images"][1].update(file_name="\ud800.jpg"),
    "folder": lambda w: w["instances"]["images"][1].update(file_name="."),
}


@pytest.mark.parametrize("fault", PICTURE_FAULTS)
def test_bad_images_are_skipped_and_listed(world, fault):
    world = copy.deepcopy(world)
    PICTURE_FAULTS[fault](world)
    records, report = read(world)
    assert list(records) == ["1", "3", "4"] and report.read == 3
    assert len(report.skipped) == 1 and report.skipped[0][1]
    with pytest.raises(ValueError, match="1 of 4 images"):
        report.check()
    report.check(max_fraction=0.25)


def change(**changes):
    return lambda w: w["instances"]["annotations"][3].update(changes)


SHORT_RLE = {"size": [HEIGHT, WIDTH], "counts": [5, 9]}
ANNOTATION_FAULTS = {
    "two points": change(segmentation=[[1, 1, 5, 5]]),
    "NaN": change(segmentation=[[1, 1, 5, float("nan"), 9, 9]]),
    "nothing": change(segmentation=[]),
    "null": change(segmentation=None),
    "outside": change(segmentation=box(100, 100, 5, 5)),
    "short RLE": change(segmentation=SHORT_RLE, iscrowd=1),
    "RLE of another size": change(segmentation=encode_rle(np.ones((WIDTH, HEIGHT), bool))),
    "garbage RLE": change(segmentation={"size": [HEIGHT, WIDTH], "counts": "\u00ff~!"}),
    "empty RLE mask": change(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}),
    "category in a gap": change(category_id=12),
    "category without entry": change(category_id=2),
    "category as text": change(category_id="18"),
    "category list": change(category_id=[18]),
    "iscrowd 2": change(iscrowd=2),
    "dangling image": change(image_id=99),
    "image without instances entry": change(image_id=4),
    "image id list": change(image_id=[2]),
    "duplicate id": change(id=13),
    "no id": lambda w: w["instances"]["annotations"][3].pop("id"),
    "not an object": lambda w: w["instances"]["annotations"].__setitem__(3, "dog"),
    "renamed category": lambda w: w["instances"]["categories"][1].update(name="cat"),
}


@pytest.mark.parametrize("fault", ANNOTATION_FAULTS)
def test_bad_annotations_are_skipped_and_listed(world, fault):
    ANNOTATION_FAULTS[fault](world)
    records, report = read(world)
    assert list(records) == ["1", "2", "3", "4"] and not report.skipped
    assert records["2"]["segments_info"] == [] and (records["2"]["segments"] == 0).all()
    lost = 2 if fault == "renamed category" else 1  # the dog of picture 1 goes too
    assert len(report.annotations_skipped) == lost and report.annotations_read == 7 - lost
    with pytest.raises(ValueError, match=f"{lost} of 7 annotations"):
        report.check()


def test_bad_captions_and_image_entries(world):
    world["captions"]["annotations"] += [
        {"id": 5, "image_id": 2, "caption": "  "},
        {"id": 6, "image_id": 2, "caption": None},
        {"id": 7, "image_id": 77, "caption": "dangling"},
        {"id": 1, "image_id": 2, "caption": "duplicate"},
        {"id": 8, "image_id": 2, "caption": "nul\0 and \ud800"},
        {"id": 9, "image_id": 2, "caption": "long " * 2000},
    ]
    world["instances"]["images"] += [dict(world["instances"]["images"][0]), {"file_name": "5.jpg"}, None]
    world["instances"]["categories"] += [None, {"id": [1]}]
    records, report = read(world)
    assert len(report.annotations_skipped) == 4 and len(report.skipped) == 3
    assert records["2"]["captions"] == ["nul and", ("long " * 2000).strip()]
    assert write_split(records.values(), world["folder"] / "out", progress=False)["count"] == 4


OTHER_JSON = ["", "[]", "{", "[" * 100_000, '{"images": []}', '{"images": 1, "annotations": []}']


@pytest.mark.parametrize("content", OTHER_JSON, ids=["empty", "list", "cut", "deep", "half", "number"])
def test_json_of_another_kind_is_an_error(world, content):
    (world["folder"] / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json"):
        list(iter_coco(world["folder"] / "images", world["folder"] / "bad.json"))


def test_missing_files_are_named(world):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        list(iter_coco(world["folder"] / "images", world["folder"] / "none.json"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(iter_coco(world["folder"] / "nowhere", world["folder"] / "none.json"))


@pytest.mark.parametrize("json_size", ["stored", "upright"])
def test_masks_follow_the_orientation_of_the_image(world, json_size):
    """A red box is drawn into the stored pixels of a picture with EXIF 6; its mask must cover red after turning."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[3:9, 40:52] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(world["folder"] / "images" / "2.jpg", exif=exif, quality=95, subsampling=0)
    entry, annotation = world["instances"]["images"][1], world["instances"]["annotations"][3]
    annotation["segmentation"] = box(40, 3, 12, 6)
    if json_size == "upright":
        entry.update(height=WIDTH, width=HEIGHT)
        annotation["segmentation"] = box(HEIGHT - 9, 40, 6, 12)
    records, report = read(world, captions=False)
    assert not report.skipped
    red = np.asarray(Image.open(io.BytesIO(records["2"]["image"])))[..., 0] > 128
    assert red.shape == (WIDTH, HEIGHT) and np.array_equal(records["2"]["segments"] == 1, red)


PART = "polygon 2 of 2: got a polygon of 2 values, expected x, y of three points or more"


def test_one_stray_point_costs_the_object_nothing(world):
    """Two objects: one has a stray point next to its polygon, the other nothing but one."""
    world["instances"]["annotations"][3]["segmentation"].append([20.0, 15.0])
    world["instances"]["annotations"].append(instance(22, 2, 18, [[20.0, 15.0]]))
    records, report = read(world)
    assert [(info["area"], info["bbox"]) for info in records["2"]["segments_info"]] == [(100, [50, 30, 10, 10])]
    assert report.parts == [("instance 21 of image 2", PART)]
    assert f"skipped part of instance 21 of image 2: {PART}" in report.summary()
    assert [name for name, _ in report.annotations_skipped] == ["instance 22 of image 2"]
    report.check(max_fraction=1 / 8)


PANOPTIC = {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 5, "category_id": 17, "iscrowd": 0}]}


@pytest.mark.parametrize(
    ("part", "annotation", "message"),
    [
        ("instances", PANOPTIC, r"panoptic layout .*'segments_info'.*expected instances; iter_coco_panoptic\("),
        ("instances", {"id": 1, "image_id": 1, "caption": "a dog"}, r"captions layout .*captions_json\)"),
        ("captions", instance(1, 1, 18, box(1, 1, 5, 5)), "instances layout .*'segmentation'"),
        ("captions", PANOPTIC, "panoptic layout"),
    ],
)  # fmt: skip
def test_another_layout_is_named_with_the_call_that_reads_it(world, part, annotation, message):
    world[part]["annotations"] = [annotation]
    with pytest.raises(ValueError, match=rf"{part}\.json looks like COCO's {message}"):
        read(world)


@pytest.mark.parametrize(
    ("categories", "shown"),
    [
        ([{"id": 18, "name": "Dog"}], "category 18, 'Dog' in the JSON and 'dog' in 'coco'"),
        ([{"id": 18, "name": "dog "}], "category 18, 'dog ' in the JSON and 'dog' in 'coco'"),
        ([{"id": 1, "name": "dog"}], "category 1, 'dog' in the JSON and 'person' in 'coco'"),
        ([{"id": 1000, "name": "dog"}], "category 1000, 'dog' in the JSON and unknown in 'coco'"),
        ([{"id": i + 1, "name": n} for i, n in enumerate(load_vocabulary("coco").names)],
         "category 12, 'stop sign' in the JSON and unknown in 'coco'"),
        ([], "no category at all"),
    ],
)  # fmt: skip
def test_categories_of_another_kind_are_one_error_with_both_names(world, categories, shown):
    world["instances"]["categories"] = categories
    with pytest.raises(ValueError, match="instances.json does not fit vocabulary 'coco'") as error:
        read(world)
    assert f"got {shown}" in str(error.value) and "vocabulary=" in str(error.value) and "\n" not in str(error.value)
    world["instances"]["annotations"] = []
    assert len(read(world)[0]) == 4, "nothing annotated, nothing to contradict"


def test_a_category_that_is_skipped_shows_both_names(world):
    world["instances"]["categories"] += [{"id": 92, "name": "banner"}]
    world["instances"]["categories"][1]["name"] = "cat"
    world["instances"]["annotations"][0]["category_id"] = 92
    _, report = read(world)
    reasons = dict(report.annotations_skipped)
    assert reasons["instance 12 of image 1"] == "got category 18, 'cat' in the JSON and 'dog' in 'coco'"
    assert reasons["instance 11 of image 1"] == "got category 92, 'banner' in the JSON and unknown in 'coco'"


def test_of_a_subset_images_that_are_not_on_disk_are_counted_and_no_fault(world):
    (world["folder"] / "images" / "2.jpg").unlink()
    broken(world["folder"], "3.jpg", b"<html>404</html>")
    _, report = read(world, subset=True)
    assert (report.read, report.absent, [name for name, _ in report.skipped]) == (2, 1, ["3.jpg"])
    assert "passed over, as in any subset: 1" in report.summary()
    for name in ("1.jpg", "3.jpg", "4.jpg"):
        (world["folder"] / "images" / name).unlink()
    with pytest.raises(ValueError, match="no image could be read"):
        read(world, subset=True)[1].check()


@pytest.mark.real
def test_real_images(tmp_path):
    """The first 80 images on disk of any subset of COCO."""
    split = next(iter([split for split in found(find_coco, "COCO 2017") if split.instances]), None)
    if split is None:
        pytest.skip("OVS_REAL_DATA has no annotations/instances_*.json of COCO")
    report, vocabulary = ReaderReport(), load_vocabulary("coco")
    source = iter_coco(split.images, split.instances, split.captions, report, subset=True)
    write_split(islice(source, 80), tmp_path / "coco", progress=False)
    report.check()
    content = json.loads(split.instances.read_text())
    on_disk = {entry["id"] for entry in content["images"] if (split.images / entry["file_name"]).exists()}
    assert report.read == min(80, len(on_disk)) and not report.skipped and not report.annotations_skipped
    dataset = load_split(tmp_path / "coco", verify=True)
    taken = {int(key) for key in dataset["image_id"]}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in taken]
    assert report.segments + report.covered == len(annotations)
    assert report.crowds == sum(entry["iscrowd"] for entry in annotations)
    texts = json.loads(split.captions.read_text())["annotations"] if split.captions else []
    captions = Counter(str(entry["image_id"]) for entry in texts)
    sizes = {str(entry["id"]): (entry["width"], entry["height"]) for entry in content["images"]}
    total = 0
    for row in dataset:
        assert row["image"].size == row["segments"].size == sizes[row["image_id"]]
        assert len(row["captions"]) == captions[row["image_id"]]
        classes = semantic_map(row["segments"], row["segments_info"])
        total += sum(info["area"] for info in row["segments_info"])
        assert classes[classes != 255].max(initial=0) < len(vocabulary)
        assert (classes != 255).sum() == sum(info["area"] for info in row["segments_info"])
    if len(taken) >= 20:  # overlaps cost a little, small objects' areas are rounded
        assert 0.8 * sum(entry["area"] for entry in annotations) < total <= 1.01 * sum(e["area"] for e in annotations)
