"""The command line answers quickly, shows examples, and tells mistakes in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kit.records import three_segments
from ovs_lite import __version__
from ovs_lite.cli import EVALUATIONS, main
from ovs_lite.commands.data import _title
from ovs_lite.config import get_profile
from ovs_lite.data.record import write_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.files import usable_home
from ovs_lite.iconworld.build import split_folder

COMMANDS = [
    [], ["reproduce"], ["segment"], ["explore"], ["train"], ["evaluate"], ["doctor"], ["data"], ["data", "build"],
    ["data", "list"], ["data", "show"], ["data", "verify"], ["data", "plan"], ["data", "get"], ["data", "prepare"],
    *(["evaluate", kind] for kind in EVALUATIONS),
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


def in_one_line(capsys, *command, code=2):
    """The message of a command that must end with that code and one line on stderr."""
    assert main([str(word) for word in command]) == code
    message = capsys.readouterr().err
    assert message.startswith("ovs-lite: ") and message.count("\n") == 1
    return message


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two sets of the smoke profile, of one record each."""
    root = tmp_path_factory.mktemp("data")
    for name in ("icon-voc20", "icon-voc21"):
        folder = split_folder(root, get_profile("smoke").data, name, "val")
        write_split([three_segments(0)], folder, progress=False)
    return root


@pytest.fixture
def world(built, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(built))


@pytest.fixture
def photo(tmp_path):
    """A small picture file."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "green").save(path)
    return path


def test_unknown_method_lists_the_methods(photo, capsys):
    message = in_one_line(capsys, "segment", photo, "--queries", "cat", "--method", "maskclap")
    assert "maskclap" in message and "maskclip" in message and "clip-cam" in message


@pytest.mark.parametrize("words", [(), ("--method", "ovseg", "--vocabulary", "icon-voc21")], ids=["default", "ovseg"])
def test_everything_writes_the_regions_and_their_names(words, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    scene = Path(__file__).parents[2] / "docs/scene.png"
    assert main(["segment", str(scene), "--everything", *words, "--out", str(tmp_path / "all.png")]) == 0
    told, vocabulary = capsys.readouterr().out, load_vocabulary("icon-voc21" if words else "icon-context59")
    names = re.findall(r"(?:: |, )([a-z ]+) <?[0-9]+ %", told)
    assert len(names) > 3 and set(names) <= {*vocabulary.names, "unlabelled"} - {"background"}
    with Image.open(scene) as before, Image.open(tmp_path / "all.png") as after:
        assert after.height > before.height and after.mode == "RGB"


@pytest.mark.usefixtures("no_work")
def test_what_does_not_go_with_everything_is_one_line(photo, capsys):
    everything = ("segment", photo, "--everything")
    message = in_one_line(capsys, *everything, "--method", "tcl")
    assert message.endswith("expected one that proposes masks: openseg, ovseg, uniovseg, clip-proposals\n")
    assert "expected one: pixels of no region" in in_one_line(capsys, *everything, "--background", "0.3")
    assert "got vocabulary 'icon-voc2', expected one of ade150" in in_one_line(
        capsys, *everything, "--vocabulary", "icon-voc2"
    )
    queries = ("segment", photo, "--queries", "cat", "--vocabulary", "icon-voc20")
    assert "got --vocabulary without --everything" in in_one_line(capsys, *queries)
    for words in (("segment", photo), (*everything, "--queries", "cat")):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        assert end.value.code == 2 and "--everything" in capsys.readouterr().err


def test_missing_picture_empty_queries_and_wrong_sets_are_one_line(tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    assert "absent.jpg" in in_one_line(capsys, "segment", tmp_path / "absent.jpg", "--queries", "cat")
    assert "expected words" in in_one_line(capsys, "segment", photo, "--queries", " , ")
    assert "icon-coco" in in_one_line(capsys, "data", "show", "icon-cocoa")
    assert "icon-coco" in in_one_line(capsys, "data", "build", "--only", "icon-cocoa")
    assert "data build" in in_one_line(capsys, "data", "show", "icon-coco", "--profile", "smoke")
    assert "notebook" in in_one_line(capsys, "reproduce", "--only", "no-such-notebook")


@pytest.fixture
def no_work(monkeypatch):
    """Neither a model nor data is loaded."""
    for name in ("segmenter.load", "commands.evaluate_segmentation.load", "commands.data.load_split"):
        monkeypatch.setattr(f"ovs_lite.{name}", lambda *_, **__: pytest.fail("the work began"))


@pytest.mark.parametrize("kind", ["a folder", "below a file", "a long name", "a pipe"])
@pytest.mark.usefixtures("no_work", "world")
def test_an_output_that_cannot_be_written_is_one_line_before_the_work(kind, photo, tmp_path, capsys):
    (tmp_path / "x").mkdir()
    place = {"a folder": tmp_path / "x", "below a file": photo / "x", "a long name": tmp_path / ("a" * 300)}
    place["a pipe"] = tmp_path / "pipe"
    out = {suffix: place[kind].with_name(place[kind].name + suffix) for suffix in (".png", ".json")}
    for path in out.values():
        if kind == "a folder":
            path.mkdir()
        elif kind == "a pipe":
            os.mkfifo(path)
    parent = kind == "below a file"
    code = 2 if parent else 1  # FileNotFoundError: no folder
    in_one_line(capsys, "segment", photo, "--queries", "cat", "--out", out[".png"], code=code)
    in_one_line(capsys, "data", "show", "icon-voc20", "--profile", "smoke", "--out", out[".png"], code=code)
    if not parent:
        words = ("--profile", "smoke", "--set", "icon-voc20", "--out", out[".json"])
        in_one_line(capsys, "evaluate", "segmentation", *words, code=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != photo]


def test_a_file_where_a_folder_should_be_is_one_line(photo, capsys, monkeypatch):
    assert "photo.png" in in_one_line(capsys, "train", "tcl", "--profile", "smoke", "--out", photo, code=1)
    monkeypatch.setenv("OVS_DATA", str(photo))
    assert "photo.png" in in_one_line(capsys, "data", "build", "--profile", "smoke", "--only", "icon-voc20", code=1)
    assert "photo.png" in in_one_line(capsys, "reproduce", "--profile", "smoke", "--runs", photo, code=1)


NUMBERS = [
    (["segment", "PHOTO", "--queries", "cat", "--background", "nan"], "got --background nan"),
    (["segment", "PHOTO", "--queries", "cat", "--background", "inf"], "got --background inf"),
    (["data", "show", "icon-voc20", "--profile", "smoke", "--count", "-1"], "got count=-1, expected at least 1"),
    (["data", "show", "icon-voc20", "--profile", "smoke", "--count", "0"], "got count=0"),
    (
        ["evaluate", "segmentation", "--profile", "smoke", "--set", "icon-voc21", "--background", "nan"],
        "expected numbers",
    ),
    (["evaluate", "proposals", "--profile", "smoke", "--budget", "0"], "got budget=0"),
    (["evaluate", "clip", "--scenes", "-2"], "got --scenes -2"),
    (["train", "tcl", "--lr", "nan"], "got nan for 'loop.lr', expected a finite number"),
    (["train", "tcl", "--threads", "-1"], "got --threads -1"),
    (["reproduce", "--cell-timeout", "0"], "got a limit of 0 s"),
]


@pytest.mark.parametrize(("command", "message"), NUMBERS)
def test_numbers_that_cannot_be_are_one_line_before_the_work(
    command, message, photo, tmp_path, capsys, no_work, world, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert message in in_one_line(capsys, *[photo if word == "PHOTO" else word for word in command])
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_user_without_a_home_gets_one_while_notebooks_run(tmp_path, monkeypatch):
    for home, kept in (("/nonexistent", False), (str(tmp_path), True)):
        monkeypatch.setenv("HOME", home)
        with usable_home():
            assert (os.environ["HOME"] == home) is kept and os.access(os.environ["HOME"], os.W_OK)
        assert os.environ["HOME"] == home


def test_names_that_steer_a_terminal_and_endless_ones_are_shown_harmless(photo, tmp_path, capsys):
    assert r"\x1b[31m" in in_one_line(capsys, "segment", tmp_path / "\x1b[31m.png", "--queries", "cat")
    assert len(in_one_line(capsys, "segment", "a" * 5000 + ".png", "--queries", "cat")) < 300
    out = tmp_path / "caf\udce9\x9b.png"
    assert main(["segment", str(photo), "--queries", "\x1b]0;cat\x07", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert r"caf\udce9\x9b.png" in printed and r"\x1b]0;cat\x07" in printed and "\x1b" not in printed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("redirect", [">/dev/full", "| true"])
def test_an_output_that_nobody_takes_is_no_traceback(redirect):
    command = f"{sys.executable} -m ovs_lite data list {redirect}"
    outcome = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    full = redirect == ">/dev/full"
    assert outcome.stderr == ("ovs-lite: No space left on device; free some space\n" if full else "")
    assert outcome.returncode == int(full)


def test_wrong_choice_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "--profile", "huge"])
    assert stopped.value.code == 2 and "smoke" in capsys.readouterr().err


def test_segment_writes_a_picture(photo, tmp_path, capsys):
    out = tmp_path / "masks.png"
    assert main(["segment", str(photo), "--queries", "cat, grass", "--out", str(out)]) == 0
    assert Image.open(out).size[0] >= 64 and f"wrote {out}: " in capsys.readouterr().out


def test_segment_reads_queries_from_a_file_and_checks_them_first(photo, tmp_path, capsys, monkeypatch):
    names, out = tmp_path / "names.txt", tmp_path / "masks.png"
    names.write_text("cat|kitten|pet\nbread, sliced\n")
    assert main(["segment", str(photo), "--queries", f"@{names}", "--out", str(out)]) == 0
    assert set(re.findall(r"(cat|bread, sliced) \d+ %", capsys.readouterr().out)) <= {"cat", "bread, sliced"}
    monkeypatch.setattr("ovs_lite.segmenter.load_method", None)
    assert main(["segment", str(photo), "--queries", f"@{tmp_path}/none.txt"]) == 2
    assert "no such file of queries" in capsys.readouterr().err


@pytest.mark.slow
def test_a_warning_of_the_command_is_one_line(photo, tmp_path):
    words = ["segment", photo, "--queries", f"{'very ' * 40}old cat, grass", "--out", tmp_path / "masks.png"]
    command = [sys.executable, "-m", "ovs_lite", *map(str, words)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stderr.startswith("ovs-lite: got 'very") and outcome.stderr.count("\n") == 1


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
    listed = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("icon-")]
    built = {line[0] for line in listed if not line[-1] == "built"}
    assert built == {"icon-coco", "icon-sa"}
    for name in ("icon-coco", "icon-sa"):
        sheet = tmp_path / f"{name}.png"
        assert main(["data", "show", name, "--profile", "smoke", "--count", "6", "--out", str(sheet)]) == 0
        assert len(Image.open(sheet).convert("RGB").getcolors(10**6)) > 1000, "a sheet of pictures"


def test_data_verify_names_what_is_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path))
    assert "nothing is built" in in_one_line(capsys, "data", "verify", "--profile", "smoke")
    assert "icon-coco" in in_one_line(capsys, "data", "verify", "--only", "icon-cocoa")
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
