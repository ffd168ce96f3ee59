"""What the numbers in every set's label maps mean: off by one, gaps, several kinds of void, 16 bits, background."""

import numpy as np
import pytest
from PIL import Image

from ovs_lite.data.readers.label_maps import class_map, read_label_map
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.semantic import iter_label_maps
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import load_vocabulary


def world_of(folder, numbers, endings=("", ""), suffix=".png", dtype=np.uint8):
    """An image a with a map whose only row holds the numbers."""
    values = np.array([numbers], dtype)
    for name in ("images", "maps"):
        (folder / name).mkdir()
    Image.new("RGB", (len(numbers), 1)).save(folder / "images" / f"a{endings[0]}.png")
    Image.fromarray(values).save(folder / "maps" / f"a{endings[1]}{suffix}")
    return folder / "images", folder / "maps"


def classes_of(folders, name, **options):
    report, vocabulary = ReaderReport(), load_vocabulary(name)
    images, maps = folders
    found = list(iter_label_maps(images, maps, vocabulary, report, **options))
    if report.skipped:
        return report.skipped[0][1]
    (record,) = found
    assert all(info["is_thing"] == vocabulary.is_thing[info["category_id"]] for info in record["segments_info"])
    return semantic_map(record["segments"], record["segments_info"], vocabulary.ignore_index)[0].tolist()


RULES = {  # numbers in a map of the set -> class ids, ignored ones as the vocabulary's ignore_index
    "voc20": ([0, 1, 15, 20, 255], [255, 0, 14, 19, 255]),  # off by one, two kinds of void
    "voc21": ([0, 1, 15, 20, 255], [0, 1, 15, 20, 255]),
    "context59": ([0, 1, 59], [255, 0, 58]),
    "context60": ([0, 1, 59], [0, 1, 59]),  # nothing is ignored
    "ade150": ([0, 1, 150], [255, 0, 149]),
    "coco-stuff": ([0, 10, 12, 89, 91, 181, 255], [0, 10, 11, 79, 80, 170, 255]),  # gaps in the numbering
    "coco-object": ([0, 10, 12, 89, 91, 181, 255], [1, 11, 12, 80, 0, 0, 0]),  # stuff and void are background
    "cityscapes": ([0, 4, 7, 8, 9, 11, 29, 33], [255, 255, 0, 1, 255, 2, 255, 18]),
}


@pytest.mark.parametrize("name", RULES)
def test_numbers_mean_what_the_set_says(tmp_path, name):
    numbers, expected = RULES[name]
    assert classes_of(world_of(tmp_path, numbers), name) == expected


STRAYS = {
    "voc20": 21,
    "voc21": 22,
    "context59": 60,
    "context60": 255,
    "ade150": 255,
    "coco-stuff": 11,
    "cityscapes": 34,
}


@pytest.mark.parametrize("name", STRAYS)
def test_a_number_that_means_nothing_is_no_class_and_no_void(tmp_path, name):
    told = classes_of(world_of(tmp_path, [1, STRAYS[name]]), name)
    assert f"a.png: got numbers [{STRAYS[name]}], expected" in told and f"of '{name}'" in told


@pytest.mark.parametrize(("name", "dtype", "suffix", "void"), [
    ("ade847", np.uint16, ".tif", 65535), ("ade847", np.uint16, ".png", 65535), ("ade150", np.uint8, ".png", 255),
    ("voc20", np.uint8, ".png", 255), ("cityscapes", np.uint8, ".png", 255), ("coco-stuff", np.uint8, ".tif", 255),
])  # fmt: skip
def test_prepared_maps_hold_class_ids_and_the_ignored_value(tmp_path, name, dtype, suffix, void):
    last = len(load_vocabulary(name)) - 1
    folders = world_of(tmp_path, [0, last, void], suffix=suffix, dtype=dtype)
    assert classes_of(folders, name, numbers="class") == [0, last, void]


def test_prepared_maps_of_another_set_are_noticed(tmp_path):
    told = classes_of(world_of(tmp_path, [0, 150, 255]), "ade150", numbers="class")
    assert "got numbers [150], expected 255 (void) and 0..149 of 'ade150'" in told
    with pytest.raises(ValueError, match="numbers='both', expected one of source, class"):
        class_map(np.zeros((1, 1), int), load_vocabulary("ade150"), "both")
    with pytest.raises(ValueError, match="for want of a source_id"):
        class_map(np.zeros((1, 1), int), load_vocabulary("icon-voc20"))


def test_class_map_equals_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    for name in RULES:
        vocabulary = load_vocabulary(name)
        meanings = vocabulary.by_source_id() | dict.fromkeys(vocabulary.void, -1)
        values = rng.choice(list(meanings), (5, 7))
        expected = [[meanings[value] for value in row] for row in values.tolist()]
        assert class_map(values, vocabulary).tolist() == expected
        assert class_map(values.T[::-1], vocabulary).tolist() == np.array(expected).T[::-1].tolist()
        assert class_map(values[:0], vocabulary).shape == (0, 7)


def test_endings_and_a_list_choose_the_files(tmp_path):
    endings = ("_leftImg8bit", "_gtFine_labelIds")
    folders = world_of(tmp_path, [7, 0], endings)
    Image.fromarray(np.zeros((1, 2), np.uint16)).save(tmp_path / "maps" / "a_gtFine_instanceIds.png")
    assert classes_of(folders, "cityscapes", endings=endings) == [0, 255]
    vocabulary = load_vocabulary("cityscapes")
    for only, expected in (({"a"}, ["a"]), ({"b"}, [])):
        found = iter_label_maps(*folders, vocabulary, subset=True, endings=endings, only=only)
        assert [record["image_id"] for record in found] == expected


def test_tiffs_that_change_numbers_are_refused(tmp_path):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name, options in {"jpeg": {"compression": "jpeg"}, "bit": {}}.items():
        image = Image.fromarray(values > 30) if name == "bit" else Image.fromarray(values)
        image.save(tmp_path / f"{name}.tif", **options)
        with pytest.raises(ValueError, match=f"{name}.tif .*expected 8 or 16 bits without loss"):
            read_label_map(tmp_path / f"{name}.tif")
    Image.fromarray(values).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "inverted.tif") as image:
        assert image.tag_v2[262] == 0
    with pytest.raises(ValueError, match="with inverted numbers"):
        read_label_map(tmp_path / "inverted.tif")
    Image.fromarray(values).save(tmp_path / "x.tif", "PNG")
    with pytest.raises(ValueError, match="got PNG, expected TIFF"):
        read_label_map(tmp_path / "x.tif")
