"""The worked example of docs/add-a-method.md works: its files make a method that trains, segments and is evaluated."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from kit.runs import assert_same_bits, crash_then_resume, train_command
from ovs_lite import cli, methods
from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_set
from ovs_lite.methods import registry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
SMALL = "--profile smoke --steps 3 --checkpoint-every 1".split()


def blocks(what):
    return re.findall(rf"```python {what}(\S*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A working folder with the smoke data, where `toy` is a method of the package."""
    folder = tmp_path_factory.mktemp("toy")
    for name, text in blocks("file="):
        path = folder / "package" / Path(name).relative_to("ovs_lite/methods")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (line,) = re.findall(r'^    "toy": (Entry\(.*\)),$', PAGE, re.MULTILINE)
    entry = eval(line, {"Entry": registry.Entry})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(folder / "package")])
        for table in (registry.ENTRIES, registry.METHODS, registry.RECIPES):
            patch.setitem(table, "toy", entry)
        patch.setenv("OVS_DATA", str(folder / "data"))
        patch.chdir(folder)
        for name in ("icon-caption", "icon-voc20"):
            build_set(name, get_profile("smoke").data, folder / "data", progress=False)
        yield folder
    for module in [name for name in sys.modules if name.startswith("ovs_lite.methods.toy")]:
        del sys.modules[module]


def test_the_page_shows_a_whole_folder():
    assert [Path(name).name for name, _ in blocks("file=")] == ["__init__.py", "config.py", "method.py", "training.py"]
    assert all(len(line) <= 120 for _, text in blocks("file=") for line in text.splitlines())


@pytest.mark.slow
def test_the_commands_of_the_page_work_in_their_order(world, capsys):
    found = [line.strip() for line in PAGE.splitlines() if line.startswith("    ovs-lite ")]
    assert [line.split()[1] for line in found] == ["train", "segment", "evaluate"]
    for line in found:
        words = [str(ROOT / word) if word.startswith("docs/") else word for word in shlex.split(line)[1:]]
        assert cli.main(words) == 0, capsys.readouterr().err
    assert Image.open(world / "toy.png").size[0] > 10
    assert (world / "runs" / "toy" / "config.json").exists() and "toy" in capsys.readouterr().out


def test_a_crash_and_a_resume_give_the_same_bits(world, tmp_path):
    whole, _ = train_command("toy", tmp_path / "whole", *SMALL)
    resumed, rest = crash_then_resume("toy", tmp_path / "cut", *SMALL, crash_after=1)
    assert_same_bits(resumed, whole)
    assert len(rest) == 2 and whole["weight"].abs().sum() > 0, "it learns"


def test_the_notebook_cell_works(world, tmp_path, capsys):
    ((_, cell),) = blocks("cell")
    exec(cell, {"out": tmp_path, "image": torch.rand(1, 3, 64, 64)})
    assert capsys.readouterr().out.splitlines()[-1] == "torch.Size([1, 2, 64, 64])"
    assert (tmp_path / "toy" / "fast" / "toy.safetensors").exists()
