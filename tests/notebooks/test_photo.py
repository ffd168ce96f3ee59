"""The notebooks of the profile photo: rules, a run with real pictures and random weights, a run that settles claims."""

import json

import pytest
import yaml

from kit import notebook_rules as rules
from kit.notebooks import FOLDER
from kit.public_sets import picture
from kit.real_data import found
from ovs_lite import notebook
from ovs_lite.cli import main
from ovs_lite.config import get_profile
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.notebook.logs import read_claims, read_metrics
from ovs_lite.reproduce.documents import write_documents
from ovs_lite.reproduce.pipeline import find_notebooks, reproduce

NAMES = ("01_bottleneck_on_photographs", "07_readers_on_photographs")
SETTLED = {  # by each notebook: all of the claims that need no training
    "01": {("ovseg-1", ""), ("ovseg-2", "")},
    "07": {("dense-1", ""), ("dense-2", ""), ("dense-3", "alone"), ("dense-3", "method")},
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("data", "runs", "cache"):
        monkeypatch.setenv(f"OVS_{name.upper()}", str(tmp_path / name))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run(folders, settings, only=()):
    config = folders / "photo.yaml"
    config.write_text(yaml.safe_dump(settings))
    return reproduce(
        "photo", only, notebooks_dir=FOLDER, config=config, jobs=1
    )  # the second finds the texts of the first


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_hygiene(name, rule):
    complaints = rule(json.loads((FOLDER / "photo" / f"{name}.ipynb").read_text(encoding="utf-8")))
    assert not complaints, "\n".join(complaints)


def test_the_profile_has_its_own_notebooks_and_the_others_do_not_see_them():
    assert tuple(path.stem for path in find_notebooks(FOLDER, get_profile("photo"))) == NAMES
    assert find_notebooks(FOLDER, get_profile("lite")) == find_notebooks(FOLDER)
    assert len(find_notebooks(FOLDER)) == 8


def test_without_photographs_it_says_how_to_get_them_and_nothing_can_be_trained(folders, capsys):
    assert main(["reproduce", "--profile", "photo", "--notebooks", str(FOLDER)]) == 2
    told = capsys.readouterr().err
    assert "ovs-lite data get coco-val, then ovs-lite data prepare coco-val --limit 300" in told
    with pytest.raises(ValueError, match="got profile of tcl 'photo', expected one of smoke, lite, paper"):
        notebook.setup("photo", out=folders / "out").config("tcl")


def test_random_weights_settle_no_claim_and_mark_what_they_measure(tmp_path, capsys):
    for pretrained, settled in (("random", 0), ("openai", 1)):
        context = notebook.setup("photo", out=tmp_path / pretrained, **{"clip.pretrained": pretrained})
        context.claim("ovseg-1", 30.0, (20.0, 40.0), n=8)
        notebook.record("a number", 1.0, n=8)
        assert len(read_claims(context.out)) == settled
        (row,) = read_metrics(context.out)
        assert row.get("weights") == (None if settled else "random")
    assert "claim ovseg-1: not settled, as the weights of ViT-B-16 are random" in capsys.readouterr().out


@pytest.mark.fault
@pytest.mark.real
def test_real_pictures_and_random_weights_from_end_to_end(folders):
    (split, *_) = [split for split in found(find_coco, "COCO 2017, or some of its images") if split.instances]
    root = split.instances.parents[1]
    words = ["prepare", "coco", "--from", str(root), "--splits", "train", "--subset", "--limit", "2"]
    assert main(["data", *words]) == 0
    clip, amounts = {"name": "ViT-B-16", "pretrained": "random"}, {"eval_images": 2, "templates": "bare"}
    settings = {"clip": clip, "notebooks": amounts, "photos": "coco/train"}
    for result in run(folders, settings):
        assert result.status == "done", f"{result.name}: {result.message}\n{result.traceback}"
        left = folders / "runs" / "photo" / result.name
        assert read_claims(left) == [] and "not settled" in (left / "executed.ipynb").read_text()
        rows = read_metrics(left)
        assert len(rows) > 4 and {row["weights"] for row in rows} == {"random"} and {row["n"] for row in rows} == {2}
    assert [result.status for result in run(folders, settings)] == ["up to date"] * 2
    with pytest.raises(ValueError, match="got a run with random weights"):
        write_documents(folders, folders / "runs" / "photo")


@pytest.mark.fault
def test_a_clip_with_weights_settles_every_claim_that_needs_no_training(folders):
    """The miniature on pictures in COCO's layout, two of them things that it knows."""
    coco(folders / "coco", count=3)
    assert main(["data", "prepare", "coco-val", "--from", str(folders / "coco")]) == 0
    settings = {"clip": {"name": "ViT-Lite-8", "pretrained": "lite"}, "notebooks": {"templates": "bare"}}
    for result in run(folders, settings):
        assert result.status == "done", f"{result.name}: {result.message}\n{result.traceback}"
        rows = read_claims(folders / "runs" / "photo" / result.name)
        assert {(row["id"], row["part"]) for row in rows} == SETTLED[result.name[:2]]
        assert {row["profile"] for row in rows} == {"photo"} and {row["n"] for row in rows} == {3}
    results = (folders / "runs" / "photo" / "results.csv").read_text()
    assert "clip-cam: mIoU" in results and "CLIP + classical proposals - clip-cam" in results


def coco(root, count, side=48):
    """Pictures of two rectangles each, a cat's and a boat's, with their instances and captions in COCO's layout."""
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": side, "width": side} for i in range(1, count + 1)]
    boxes, annotations = {17: (4, 6, 16, 20), 9: (24, 20, 20, 16)}, []
    for image in images:
        picture(root / "val2017" / image["file_name"], (side, side), seed=image["id"])
        for category, (x, y, w, h) in boxes.items():
            outline = [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "iscrowd": 0,
                "area": w * h, "bbox": [x, y, w, h], "segmentation": [outline],
            })  # fmt: skip
    captions = [{"id": i["id"], "image_id": i["id"], "caption": "a cat and a boat"} for i in images]
    folder = root / "annotations"
    folder.mkdir(parents=True)
    categories = [{"id": 17, "name": "cat"}, {"id": 9, "name": "boat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances_val2017.json").write_text(json.dumps(content))
    (folder / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
