"""`ovs-lite evaluate ... --against`: two methods, or two trainings of one, on the same images."""

import pytest

from ovs_lite.methods import method_class
from ovs_lite.methods.trained import shipped_weights
from ovs_lite.tensors import read_tensors, write_tensors


def test_a_second_method_gives_the_paired_difference(evaluate, tmp_path, capsys):
    words = ("--set", "icon-voc20", "--images", 12, "--per-class", "--out", tmp_path / "cell.md")
    found = evaluate("tcl", *words, "--against", "maskclip")
    alone = {name: evaluate(name, *words[:4])["sets"]["icon-voc20"] for name in ("tcl", "maskclip")}
    assert found["sets"]["icon-voc20"] == alone["tcl"] and found["against"]["method"] == "maskclip"
    assert found["against"]["sets"]["icon-voc20"] == alone["maskclip"]
    difference = found["difference"]["icon-voc20"]
    assert difference["value"] == pytest.approx(alone["tcl"]["miou"] - alone["maskclip"]["miou"])
    text = (tmp_path / "cell.md").read_text()
    assert f"| icon-voc20 | {100 * difference['value']:+.2f} |" in text and "| mIoU of tcl minus maskclip |" in text
    assert f"| card | {alone['tcl']['card']['hash']} | {alone['maskclip']['card']['hash']} |" in text
    classes = [line for line in text.splitlines() if line.startswith("| cat | ")]
    ious = [alone[name]["iou"]["cat"] for name in ("tcl", "maskclip")]
    assert classes == [f"| cat | {'-' if iou is None else f'{100 * iou:.2f}'} |" for iou in ious], "of both methods"


def test_two_trainings_of_one_method_are_compared_under_the_names_of_their_files(evaluate, tmp_path, capsys):
    shipped, other = shipped_weights(method_class("tcl")), tmp_path / "other.safetensors"
    tensors, about = read_tensors(shipped)
    write_tensors(other, {name: 1.1 * value + 0.01 for name, value in tensors.items()}, about)
    words = ("tcl", "--set", "icon-voc20", "--images", 12)
    found = evaluate(*words, "--against-checkpoint", other, "--out", tmp_path / "cell.md")
    alone = {path: evaluate(*words, "--checkpoint", path)["sets"]["icon-voc20"] for path in (shipped, other)}
    assert found["checkpoint"] is None and found["sets"]["icon-voc20"]["miou"] == alone[shipped]["miou"]
    against = found["against"]
    assert (against["method"], against["checkpoint"]) == ("tcl", str(other))
    assert against["sets"]["icon-voc20"] == alone[other] and alone[other]["miou"] != alone[shipped]["miou"]
    difference = alone[shipped]["miou"] - alone[other]["miou"]
    assert found["difference"]["icon-voc20"]["value"] == pytest.approx(difference)
    assert f"mIoU of tcl (shipped) minus tcl ({other})" in (tmp_path / "cell.md").read_text()
    for words in (("--checkpoint", other, "--against-checkpoint", other), ("--against", "tcl")):
        with pytest.raises(AssertionError):
            evaluate("tcl", "--set", "icon-voc20", *words)
        assert "got tcl twice, expected --against another method, or --against-checkpoint" in capsys.readouterr().err
