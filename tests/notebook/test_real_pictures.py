"""A notebook's photographs: as many as asked for, the report shown, none where there are none, an error where lost."""

import json

import pytest
from PIL import Image

from ovs_lite.notebook import photographs


def coco(root, images=3):
    """A folder of COCO's layout with a cat in every image."""
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    box = {"category_id": 17, "iscrowd": 0, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]]}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 12} for i in range(images)],
        "annotations": [{"id": i + 1, "image_id": i, **box} for i in range(images)],
        "categories": [{"id": 17, "name": "cat"}],
    }
    for i in range(images):
        Image.new("RGB", (16, 12), (i, 90, 120)).save(root / f"val2017/{i}.png")
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root


def test_as_many_as_asked_for_and_what_was_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OVS_REAL_DATA", str(coco(tmp_path)))
    (tmp_path / "val2017/1.png").unlink()
    assert [record["image_id"] for record in photographs(2)] == ["0", "2"]
    printed = capsys.readouterr().out
    assert "2 images read" in printed and "passed over, as in any subset: 1" in printed
    assert len(photographs(1)) == 1


@pytest.mark.parametrize("root", ["", "empty"])
def test_none_where_there_are_none(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OVS_REAL_DATA", root and str(tmp_path))
    assert photographs(8) == [] and "no photographs here" in capsys.readouterr().out


def test_lost_images_are_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OVS_REAL_DATA", str(coco(tmp_path)))
    for path in (tmp_path / "val2017").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no image could be read"):
        photographs(8)
    assert "3" in capsys.readouterr().out
