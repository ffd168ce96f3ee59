"""Every public set from its real layout to records, on tiny files: what numbers mean, what is left out, and twice."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from kit.public_sets import SIZE, ade_full, cityscapes, coco_stuff, context, label_map, pairs, picture, sa1b, voc
from kit.real_data import find_ade20k, found
from ovs_lite.data import prepare as module
from ovs_lite.data.catalogue import READERS, load_catalogue
from ovs_lite.data.parts import Share
from ovs_lite.data.prepare import prepare
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.data.record import load_split, read_creator
from ovs_lite.data.rle import decode_rle
from ovs_lite.data.segments import record_masks, semantic_map
from ovs_lite.data.sources import RECORDS
from ovs_lite.data.vocabulary import load_vocabulary


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))


def prepared(name, root, split="val", **options):
    """(records, what `prepare` says) of one split."""
    (done,) = prepare(load_catalogue().find(name), root, [split], progress=False, **options)
    return (None if "shards.json" in os.listdir(done.folder) else list(load_split(done.folder))), done


def classes_of(record, ignore=-1):
    """The class ids in the first row of a record's map, `ignore` where there is none."""
    return semantic_map(record["segments"], record["segments_info"], ignore)[0].tolist()


def test_every_reader_of_the_catalogue_is_there():
    assert set(RECORDS) == set(READERS)


@pytest.mark.parametrize(("name", "expected"), [
    ("voc20", [-1, 0, 14, 19, -1, -1]),  # off by one; background and borders are void
    ("voc21", [0, 1, 15, 20, -1, -1]),
])  # fmt: skip
def test_voc(tmp_path, name, expected):
    records, done = prepared(name, voc(tmp_path))
    assert [record["image_id"] for record in records] == ["2007_000032", "2007_000033"]
    assert classes_of(records[0]) == expected
    assert done.count == 2 and "2 images read, 0 skipped" in done.report


def test_a_list_chooses_and_what_it_lists_must_be_there(tmp_path):
    root = voc(tmp_path, listed=["2007_000033"])
    assert [record["image_id"] for record in prepared("voc20", root)[0]] == ["2007_000033"]
    voc(tmp_path, listed=["2007_000032", "2007_000033", "2007_000034"])
    with pytest.raises(ValueError, match="1 of 3 images are unusable .*\n.*\n.* 2007_000034: .*neither an image nor"):
        prepared("voc20", root, fresh=True)
    assert len(prepared("voc20", root, subset=True)[0]) == 2


@pytest.mark.parametrize(("name", "expected"), [
    ("context459", [1, 8, 457, 0, -1, -1]),  # 1..459, 0 without a label, less one
    ("context59", [0, 1, 58, -1, -1, -1]),  # found by name; the other classes of the 459 are void
    ("context60", [1, 2, 59, 0, 0, 0]),  # there they are background
])  # fmt: skip
def test_pascal_context_from_matlab_files(tmp_path, name, expected):
    vocabulary = load_vocabulary("context59")
    records, done = prepared(name, context(tmp_path, vocabulary.source_names))
    assert classes_of(records[0]) == expected
    made = done.folder.parent / "vocabulary.json"
    assert made.exists() == (name == "context459")
    if made.exists():
        own = load_vocabulary(made)
        assert (own.names[1], own.ignore_index, len(own)) == ("aeroplane", 65535, 459)


def test_pascal_context_with_other_labels_or_numbers_is_refused(tmp_path):
    root = context(tmp_path, load_vocabulary("context59").source_names[:-5], rows=[(2, 460, 0, 0, 0, 0)])
    with pytest.raises(ValueError, match=r"labels.txt has no .*names missing"):
        prepared("context59", root)
    with pytest.raises(ValueError, match="expected 0..459"):
        prepared("context459", root)
    for content in (b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"cos\nsystem\n(S'touch /tmp/mat-was-unpickled'\ntR."):
        (root / "pascal-context" / "trainval" / "2008_000000.mat").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a label map"):
            prepared("context459", root)
    assert not os.path.exists("/tmp/mat-was-unpickled")


def test_ade20k_full_from_its_colours(tmp_path):
    records, done = prepared("ade847", ade_full(tmp_path))
    assert [record["image_id"] for record in records] == ["home/kitchen/ADE_val_00000001"]
    assert classes_of(records[0]) == [0, 0, 2, -1, -1, 2]  # what is none of the 847 is void, not an error
    assert not os.path.exists("/tmp/ade-was-unpickled"), "its index is a pickle, and is never opened"


def test_ade20k_full_is_shrunk_to_512_and_invents_no_class(tmp_path):
    records, _ = prepared("ade847", ade_full(tmp_path, size=(1200, 600)))
    assert records[0]["image"].size == (1024, 512) == records[0]["segments"].size
    assert {info["category_id"] for info in records[0]["segments_info"]} == {0, 2}
    row = np.array(classes_of(records[0]))
    expected = np.repeat([0, 0, 2, -1, -1, 2], [171, 170, 171, 171, 170, 171])
    assert (row != expected).sum() <= 5, "borders may move by a pixel"


def test_cityscapes(tmp_path):
    records, done = prepared("cityscapes", cityscapes(tmp_path))
    assert [record["image_id"] for record in records] == ["town/town_000000_000001", "town/town_000000_000002"]
    assert classes_of(records[0]) == [-1, -1, 0, 1, 18, 2]


@pytest.mark.parametrize(("name", "expected"), [
    ("coco-stuff", [0, 10, 11, 80, 170, -1]),  # counted from 0, with gaps
    ("coco-object", [1, 11, 12, 0, 0, 0]),  # stuff and unlabelled are background
])  # fmt: skip
def test_coco_stuff_and_coco_object(tmp_path, name, expected):
    assert classes_of(prepared(name, coco_stuff(tmp_path))[0][0]) == expected


def test_maps_of_panoptic_numbers_are_not_taken_for_coco_stuff(tmp_path):
    """The number 11 is no class of stuffthingmaps: maps that count from 1, or hold category ids, are seen."""
    with pytest.raises(ValueError, match=r"got numbers \[11, 182\]"):
        prepared("coco-stuff", coco_stuff(tmp_path, (1, 11, 12, 13, 92, 182)))


def test_ade150(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    picture(base / "images" / "validation" / "ADE_val_00000001.jpg")
    label_map(base / "annotations" / "validation" / "ADE_val_00000001.png", (0, 1, 2, 150, 150, 0))
    assert classes_of(prepared("ade150", tmp_path)[0][0]) == [-1, 0, 1, 149, 149, -1]


def coco(root, panoptic=True):
    """Two images, the second a crowd beside a thing; ids in the PNG need all three colours."""
    images, annotations = [], []
    for number in (9, 25):
        name = f"{number:012d}.jpg"
        picture(root / "val2017" / name)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        ids = np.tile(np.array([0, 0, 70000, 70000, 300, 300]), (SIZE[1], 1))
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        maps = root / "annotations" / "panoptic_val2017"
        maps.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(maps / name.replace("jpg", "png"))
        infos = [{"id": 70000, "category_id": 1, "iscrowd": int(number == 25)},
                 {"id": 300, "category_id": 200, "iscrowd": 0}]  # fmt: skip
        annotations.append({"image_id": number, "file_name": name.replace("jpg", "png"), "segments_info": infos})
    categories = [{"id": 1, "name": "person"}, {"id": 200, "name": "rug-merged"}]
    captions = [{"id": 1, "image_id": 9, "caption": "a person on a rug"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return root


def test_coco_panoptic(tmp_path):
    vocabulary = load_vocabulary("coco-panoptic")
    rug = vocabulary.by_source_id()[200]
    records, _ = prepared("coco-panoptic", coco(tmp_path))
    assert [record["captions"] for record in records] == [["a person on a rug"], []]
    assert classes_of(records[1]) == [-1, -1, 0, 0, rug, rug]
    assert [info["is_crowd"] for info in records[1]["segments_info"]] == [True, False]
    masks, labels = record_masks(records[1])
    assert labels.tolist() == [rug] and masks.sum() == 8, "a crowd is no segment to find"


def test_localized_narratives(tmp_path):
    picture(tmp_path / "val2017" / "000000000139.jpg")
    lines = [
        {"image_id": "139", "caption": "In this picture we can see a cat.", "traces": [[{"x": 0.1}]]},
        {"image_id": 139, "caption": "A cat sits on a mat."},
        {"image_id": "140", "caption": "An image that is not there."},
    ]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "coco_val_localized_narratives.jsonl").write_text(text)
    with pytest.raises(ValueError, match="no image file at .*000000000140.jpg"):
        prepared("localized-narratives", tmp_path)
    (record,), done = prepared("localized-narratives", tmp_path, subset=True)
    assert record["image_id"] == "139" and record["segments"] is None
    assert record["captions"] == ["In this picture we can see a cat.", "A cat sits on a mat."]
    assert "1 whose file" in done.report


def test_sa1b(tmp_path):
    sa1b(tmp_path / "sa_000001.tar", ["sa_1", "sa_2"])
    sa1b(tmp_path / "sa_000000.tar", ["sa_0"])
    records, done = prepared("sa1b", tmp_path, "train")
    assert [record["image_id"] for record in records] == ["sa_0", "sa_1", "sa_2"]
    left, whole = (decode_rle(rle, SIZE[1], SIZE[0]) for rle in records[0]["masks"])
    assert left.sum() == 8 and left[:, :2].all() and whole.all(), "masks may overlap"
    assert records[0]["segments"] is None and "6 annotations read" in done.report


def content(folder):
    """The bytes of a split's files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def narratives(root):
    lines = [{"image_id": str(number), "caption": f"picture {number}"} for number in (3, 1, 4, 5, 9)]
    for line in lines:
        picture(root / "val2017" / f"{int(line['image_id']):012d}.jpg")
    (root / "coco_val_localized_narratives.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def archives(root):
    for number in range(5):
        sa1b(root / f"sa_{number:06d}.tar", [f"sa_{2 * number}", f"sa_{2 * number + 1}"])
    return root


def instances(root):
    """Two images, each with one person and a caption."""
    coco(root)
    listed = json.loads((root / "annotations" / "captions_val2017.json").read_text())["images"]
    shape = {"category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}
    content = {"images": listed, "categories": [{"id": 1, "name": "person"}]}
    content["annotations"] = [shape | {"id": number, "image_id": entry["id"]} for number, entry in enumerate(listed)]
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


JOBS = {  # set -> how its files are made, split, images or archives, and those of a part
    "sa1b": (archives, "train", 5, 1), "localized-narratives": (narratives, "val", 5, 2),
    "voc20": (voc, "val", 2, 1), "coco-panoptic": (coco, "val", 2, 1), "coco": (instances, "val", 2, 1),
    "context459": (lambda root: context(root, load_vocabulary("context59").source_names), "val", 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_jobs_have_the_bytes_of_one_process(tmp_path, monkeypatch, name):
    make, split, total, size = JOBS[name]
    monkeypatch.setattr(module, "IMAGES", size)
    root, count = make(tmp_path), -(-total // size)
    _, one = prepared(name, root, split)
    expected, vocabulary = content(one.folder), one.folder.parent / "vocabulary.json"
    beside = vocabulary.exists() and vocabulary.read_bytes()
    shutil.rmtree(one.folder.parent)
    sets, options = load_catalogue().find(name), {"splits": [split], "progress": False}
    for job in range(count - 1, 0, -1):
        (done,) = prepare(sets, root, share=Share(job, count), **options)
        assert not done.folder.exists() and done.report.startswith(f"made part {job}/{count}, {size} ")
    with pytest.raises(FileNotFoundError, match=f"missing: --part {count}/{count}"):
        list(prepare(sets, root, share=Share(0, count), **options))
    list(prepare(sets, root, share=Share(count, count), **options))
    for kept in (False, True):
        (done,) = prepare(sets, root, share=Share(0, count), **options)
        assert (done.count, done.kept) == (one.count, kept)
    assert content(one.folder) == expected
    assert (vocabulary.exists() and vocabulary.read_bytes()) == beside


def job(root, number, count, name="localized-narratives", split="val", **options):
    (done,) = prepare(load_catalogue().find(name), root, [split], share=Share(number, count), progress=False, **options)
    return done


def test_parts_of_another_list_of_images_are_made_again(tmp_path, monkeypatch):
    """Of a subset images come and go between jobs; the same number of others is another list, too."""
    monkeypatch.setattr(module, "IMAGES", 2)
    root, gone = narratives(tmp_path), tmp_path / "val2017" / "000000000001.jpg"
    job(root, 1, 1, subset=True)
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(FileNotFoundError, match="missing: --part 1/1"):
        job(root, 0, 1, subset=True)
    assert "4 images of 4" in job(root, 1, 1, subset=True).report
    gone.write_bytes(kept)
    (tmp_path / "val2017" / "000000000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="missing: --part 1/1"):
        job(root, 0, 1, subset=True)
    job(root, 1, 1, subset=True)
    done = job(root, 0, 1, subset=True)
    assert [record["image_id"] for record in load_split(done.folder)] == ["1", "4", "5", "9"]


def test_faults_of_the_list_count_in_a_part_by_its_images_and_are_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IMAGES", 2)
    root = narratives(tmp_path)
    with open(root / "coco_val_localized_narratives.jsonl", "a") as lines:
        lines.write("\n{no JSON\n[]\n")
    told = [job(root, number, 3, max_skipped=0.5).report for number in (1, 2, 3)]
    assert sum(report.count("skipped annotation") for report in told) == 2
    assert job(root, 4, 4, max_skipped=0.5).report == "nothing is left for job 4/4, as there are 3 parts"
    (root / "val2017" / "000000000009.jpg").write_bytes(b"no image")
    shutil.rmtree(job(root, 1, 3, max_skipped=0.5).folder.parent / ".val.parts")
    job(root, 1, 3, max_skipped=0.4)
    with pytest.raises(ValueError, match="no image could be read"):
        job(root, 3, 3, max_skipped=0.4)


def test_a_name_in_a_list_without_files_is_a_fault_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IMAGES", 1)
    root = voc(tmp_path, listed=["2007_000032", "2007_000033", "2007_000034"])
    with pytest.raises(ValueError, match="neither an image nor a label map"):
        job(root, 2, 2, "voc20")
    assert "neither" not in job(root, 1, 2, "voc20").report
    for image in root.rglob("*.*g"):
        image.unlink()
    with pytest.raises(ValueError, match="no image could be read"):
        job(root, 1, 2, "voc20", subset=True)


def test_a_vocabulary_that_a_stopped_run_left_out_is_written_by_the_next(tmp_path):
    root = context(tmp_path, load_vocabulary("context59").source_names)
    _, done = prepared("context459", root)
    (done.folder.parent / "vocabulary.json").unlink()
    assert prepared("context459", root)[1].kept and len(load_vocabulary(done.folder.parent / "vocabulary.json")) == 459


@pytest.mark.parametrize("subset", [False, True])
def test_a_file_name_that_no_system_takes_is_skipped(tmp_path, subset):
    root = coco(tmp_path)
    path = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "a" * 300 + ".jpg"
    path.write_text(json.dumps(content))
    records, done = prepared("coco-panoptic", root, subset=subset, max_skipped=0.9)
    assert len(records) == 1 and "skipped image aaa" in done.report


@pytest.mark.parametrize("wrong", [{"limit": 3}, {"fresh": True}])
def test_jobs_take_whole_sets_of_records(tmp_path, wrong):
    options = {"splits": ["train"], "progress": False, "share": Share(1, 3)}
    with pytest.raises(ValueError, match="expected a whole set that is written as records"):
        list(prepare(load_catalogue().find("sa1b"), archives(tmp_path), **options | wrong))
    with pytest.raises(ValueError, match="shards are indexed in one go"):
        list(prepare(load_catalogue().find("cc12m"), tmp_path, **options))


def test_pairs_stay_in_their_shards_unless_a_few_are_asked_for(tmp_path):
    for number in range(2):
        pairs(tmp_path / f"{number:05d}.tar")
    _, done = prepared("cc12m", tmp_path, "train")
    content = json.loads((done.folder / "shards.json").read_text())
    assert (content["pairs"], content["shards"], content["bad_shards"], done.count) == (6, 2, 0, 6)
    assert len(content["digest"]) == 64 and os.listdir(done.folder) == ["shards.json"]
    (tmp_path / "00002.tar").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="1 of 3 shards are bad, expected 1% at most"):
        prepared("cc12m", tmp_path, "train")
    assert json.loads((done.folder / "shards.json").read_text())["shards"] == 2, "what was there stays"
    _, done = prepared("cc12m", tmp_path, "train", max_skipped=0.5)
    assert "00002.tar" in done.report and json.loads((done.folder / "shards.json").read_text())["bad_shards"] == 1
    (tmp_path / "00002.tar").unlink()
    (done,) = prepare(load_catalogue().find("cc3m"), tmp_path, limit=4, progress=False)
    records = list(load_split(done.folder))
    assert [record["captions"] for record in records] == [["a cat"], ["a dog on grass"], ["snow"], ["a cat"]]
    (whole,) = prepare(load_catalogue().find("cc3m"), tmp_path, progress=False)
    assert os.listdir(whole.folder) == ["shards.json"], "the records of a part make room"


def test_a_second_run_does_nothing_and_fresh_or_another_limit_does(tmp_path):
    root = voc(tmp_path)
    _, done = prepared("voc20", root, limit=1)
    assert not done.kept and done.count == 1 and read_creator(done.folder)["limit"] == 1
    stamp = {path.name: path.stat().st_mtime_ns for path in done.folder.iterdir()}
    _, done = prepared("voc20", root, limit=1)
    assert done.kept and {path.name: path.stat().st_mtime_ns for path in done.folder.iterdir()} == stamp
    assert not prepared("voc20", root, limit=1, fresh=True)[1].kept
    assert prepared("voc20", root)[1].count == 2
    assert not prepared("voc20", root.rename(root.with_name("moved")))[1].kept, "another folder is another source"


def test_bad_data_is_never_finished_and_keeps_what_was_there(tmp_path):
    root = voc(tmp_path)
    _, done = prepared("voc20", root, limit=1)
    (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 2 images are unusable"):
        prepared("voc20", root)
    assert len(load_split(done.folder)) == 1, "the split from before"
    assert len(prepared("voc20", root, max_skipped=0.5)[0]) == 1


def test_mistakes_are_named(tmp_path):
    one = load_catalogue().find("voc20")
    for options, told in (
        ({"splits": ["test"]}, "expected one of train, val for voc20"),
        ({"limit": 0}, "got limit 0"),
    ):
        with pytest.raises(ValueError, match=told):
            list(prepare(one, tmp_path, **options))
    with pytest.raises(FileNotFoundError, match="ovs-lite data get voc20"):
        list(prepare(one))
    with pytest.raises(FileNotFoundError, match="no list of images"):
        list(prepare(one, tmp_path, progress=False))
    with pytest.raises(ValueError, match="expected one of coco, .*voc20"):
        load_catalogue().find("voc")


@pytest.mark.real
def test_the_small_coco_goes_through_whole():
    splits = [one for one in found(find_coco, "COCO 2017") if one.instances and one.captions]
    splits = [one for one in splits if one.name == "train2017"]
    if not splits:
        pytest.skip("OVS_REAL_DATA has no train2017 with instances and captions")
    for split in splits:
        records, done = prepared("coco", split.images.parent, "train", subset=True)
        listed = json.loads(split.instances.read_text())
        there = {path.name for path in split.images.iterdir()}
        expected = {str(e["id"]) for e in listed["images"] if e["file_name"] in there}
        assert {record["image_id"] for record in records} == expected and len(expected) >= 80
        assert all(len(record["captions"]) >= 5 for record in records)
        crowds = sum(a["iscrowd"] for a in listed["annotations"] if str(a["image_id"]) in expected)
        assert f"{crowds} of them crowds" in done.report


@pytest.mark.real
def test_the_small_ade20k_goes_through_whole(tmp_path):
    (images, maps), *_ = found(find_ade20k, "ADE20K's 150-class release")
    base = tmp_path / "ADEChallengeData2016"
    for kind, folder in (("images", images), ("annotations", maps)):
        (base / kind).mkdir(parents=True)
        (base / kind / "validation").symlink_to(folder)
    records, done = prepared("ade150", tmp_path)
    assert len(records) == len(list(maps.rglob("*.png"))) >= 3
    for record in records:
        with Image.open(maps / f"{record['image_id']}.png") as stored:
            values = np.array(stored).astype(int)
        assert np.array_equal(
            semantic_map(record["segments"], record["segments_info"]), np.where(values, values - 1, 255)
        )
