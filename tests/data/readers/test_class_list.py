"""A set's own list of names becomes a vocabulary, and a list that is no such list says why."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ovs_lite.data.readers.class_list import class_list
from ovs_lite.data.readers.label_maps import class_map
from ovs_lite.data.vocabulary import load_vocabulary, parse_vocabulary

SCRIPT = Path(__file__).parents[3] / "data_scripts" / "make_context459.py"
LINES = "1: accordion\n2: aeroplane\n3: air conditioner\n"


def listed(folder, text, count=3):
    (folder / "labels.txt").write_text(text, encoding="utf-8")
    return class_list(folder / "labels.txt", "tiny", "a test", count)


@pytest.mark.parametrize("text", [LINES, "0: unlabeled\n\n" + LINES, "\ufeff" + LINES.replace("\n", "\r\n")])
def test_numbers_are_those_of_the_maps_and_zero_is_void(tmp_path, text):
    vocabulary = parse_vocabulary(listed(tmp_path, text))
    assert vocabulary.names == ("accordion", "aeroplane", "air conditioner") and vocabulary.source_id == (1, 2, 3)
    assert (vocabulary.ignore_index, vocabulary.void, vocabulary.background) == (65535, (0,), None)
    assert class_map(np.array([[0, 1, 3]]), vocabulary).tolist() == [[-1, 0, 2]]
    prepared = np.array([[65535, 0, 2]], np.uint16)
    assert class_map(prepared, vocabulary, "class").tolist() == [[-1, 0, 2]]


def test_the_order_of_the_lines_is_no_matter(tmp_path):
    turned = "\n".join(LINES.splitlines()[::-1])
    assert listed(tmp_path, turned) == listed(tmp_path, LINES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accordion\n", "line 1: got 'accordion', expected a number, a colon and a name"),
        (LINES + "2: bag\n", "line 4: got number 2 again"),
        (LINES + "4: Accordion\n", "'accordion' more than once"),
        (LINES + "4: bag\n", "got 4 classes, expected 3"),
        ("", "no list of classes|expected 3"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"labels.txt.*({message})"):
        listed(tmp_path, text, 4 if "Accordion" in text else 3)


def test_a_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="no list of classes at .*nowhere.txt"):
        class_list(tmp_path / "nowhere.txt", "tiny", "a test", 3)


def test_the_script_writes_a_file_that_loads(tmp_path, monkeypatch, capsys):
    labels, out = tmp_path / "labels.txt", tmp_path / "context459.json"
    labels.write_text("".join(f"{number}: class {number}\n" for number in range(1, 460)), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(labels), str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "459 classes" in capsys.readouterr().out
    assert len(load_vocabulary(out)) == 459 and load_vocabulary(out).name == "context459"
