"""The command line answers quickly, shows examples, and tells mistakes in one line."""

import subprocess
import sys

import pytest
from PIL import Image

from kit.records import three_segments
from ovs_lite import __version__
from ovs_lite.cli import EVALUATIONS, main
from ovs_lite.commands.data import _title
from ovs_lite.data.record import write_split
from ovs_lite.data.vocabulary import load_vocabulary

COMMANDS = [
    [], ["reproduce"], ["segment"], ["train"], ["evaluate"], ["doctor"], ["data"], ["data", "build"], ["data", "list"],
    ["data", "show"], ["data", "verify"], *(["evaluate", kind] for kind in EVALUATIONS),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example_of_the_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "example" in printed and " ".join(["ovs-lite", *command]) in printed.split("example", 1)[1]


def imported_by(code):
    """The names of modules that a fresh Python has imported after running `code`."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("code", ["import ovs_lite", "from ovs_lite.cli import build_parser; build_parser()"])
def test_help_and_import_load_nothing_heavy(code):
    heavy = {"torch", "open_clip", "matplotlib", "datasets", "papermill", "numpy"}
    assert not heavy & set(imported_by(code))


def test_module_runs_as_the_command():
    command = [sys.executable, "-m", "ovs_lite", "--version"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stdout == f"ovs-lite {__version__}\n"


def test_package_exports_what_design_promises():
    import ovs_lite
    from ovs_lite.segmenter import Segmentation, load

    assert (ovs_lite.load, ovs_lite.Segmentation) == (load, Segmentation)
    with pytest.raises(AttributeError, match="laod"):
        _ = ovs_lite.laod


def one_line_mistake(capsys, *command):
    """The message of a command that must end with code 2 and one line on stderr."""
    assert main([str(word) for word in command]) == 2
    message = capsys.readouterr().err
    assert message.startswith("ovs-lite: ") and message.count("\n") == 1
    return message


@pytest.fixture
def photo(tmp_path):
    """A small picture file."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "green").save(path)
    return path


def test_unknown_method_lists_the_methods(photo, capsys):
    message = one_line_mistake(capsys, "segment", photo, "--queries", "cat", "--method", "maskclap")
    assert "maskclap" in message and "maskclip" in message and "clip-cam" in message


def test_missing_picture_empty_queries_and_wrong_sets_are_one_line(tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    assert "absent.jpg" in one_line_mistake(capsys, "segment", tmp_path / "absent.jpg", "--queries", "cat")
    assert "expected words" in one_line_mistake(capsys, "segment", photo, "--queries", " , ")
    assert "icon-coco" in one_line_mistake(capsys, "data", "show", "icon-cocoa")
    assert "icon-coco" in one_line_mistake(capsys, "data", "build", "--only", "icon-cocoa")
    assert "data build" in one_line_mistake(capsys, "data", "show", "icon-coco", "--profile", "smoke")
    assert "notebook" in one_line_mistake(capsys, "reproduce", "--only", "no-such-notebook")


def test_wrong_choice_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "--profile", "huge"])
    assert stopped.value.code == 2 and "smoke" in capsys.readouterr().err


def test_segment_writes_a_picture(photo, tmp_path, capsys):
    out = tmp_path / "masks.png"
    assert main(["segment", str(photo), "--queries", "cat, grass", "--out", str(out)]) == 0
    assert Image.open(out).size[0] >= 64 and f"wrote {out}: " in capsys.readouterr().out


@pytest.mark.slow
def test_segment_says_nothing_but_what_it_wrote(photo, tmp_path):
    out = tmp_path / "masks.png"
    words = ["segment", photo, "--queries", "cat, grass", "--out", out]
    command = [sys.executable, "-W", "always", "-m", "ovs_lite", *map(str, words)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stdout.startswith(f"wrote {out}: ") and outcome.stdout.count("\n") == 1 and outcome.stderr == ""


@pytest.mark.slow
def test_data_build_list_and_show(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    assert main(["data", "build", "--profile", "smoke", "--only", "icon-coco", "icon-sa"]) == 0
    capsys.readouterr()
    assert main(["data", "list", "--profile", "smoke"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    built = {line[0] for line in listed if not line[-1] == "built"}
    assert built == {"icon-coco", "icon-sa"}
    for name in ("icon-coco", "icon-sa"):
        sheet = tmp_path / f"{name}.png"
        assert main(["data", "show", name, "--profile", "smoke", "--count", "6", "--out", str(sheet)]) == 0
        assert len(Image.open(sheet).convert("RGB").getcolors(10**6)) > 1000, "a sheet of pictures"


def test_data_verify_names_what_is_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path))
    assert "nothing is built" in one_line_mistake(capsys, "data", "verify", "--profile", "smoke")
    assert "icon-coco" in one_line_mistake(capsys, "data", "verify", "--only", "icon-cocoa")
    good, bad = (tmp_path / "icon-smoke" / "icon-coco" / split for split in ("train", "val"))
    for folder in (good, bad):
        write_split([three_segments(0)], folder, progress=False)
    for words in (["--profile", "smoke"], ["--profile", "smoke", "--only", "icon-coco"], [tmp_path], [good, bad]):
        assert main(["data", "verify", *map(str, words)]) == 0
        assert capsys.readouterr().out.splitlines() == [f"ok    {good}", f"ok    {bad}"]
    (arrow,) = bad.glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    assert main(["data", "verify", str(tmp_path)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"ok    {good}"
    assert second.startswith(f"FAIL  {bad} is damaged ({arrow.name} differs from its sha256")
    assert main(["data", "verify", str(tmp_path / "absent")]) == 1 and "absent" in capsys.readouterr().out


def test_a_scene_without_caption_is_titled_by_its_classes():
    vocabulary = load_vocabulary("icon-voc20")
    cat, car = vocabulary.names.index("cat"), vocabulary.names.index("car")
    info = [{"category_id": number} for number in (cat, car, cat)]
    record = {"captions": [], "image_id": "scene-1", "segments_info": info}
    assert _title(record, vocabulary) == "cat, car"
    assert _title(record | {"segments_info": []}, vocabulary) == _title(record, None) == "scene-1"
    assert _title(record | {"captions": ["a cat", "a car"]}, vocabulary) == "a cat"
