"""Every committed notebook keeps the rules of kit/notebook_rules.py; the runs are in files next to this."""

import ast
import copy
import json
from pathlib import Path

import pytest

from kit import notebook_rules as rules
from kit.notebooks import FOLDER
from ovs_lite.reproduce.fingerprint import RUNNERS

ROOT = Path(__file__).parents[2]
EXPECTED = [
    "00_world_and_clip",
    "01_clip_bottleneck",
    "02_mask_proposals",
    "03_grounding_loss",
    "04_tcl",
    "05_mask_prompt_tuning",
    "06_unpaired_matching",
    "07_full_evaluation",
]


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def package_bodies():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "ovs_lite").rglob("*.py")]
    functions = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return {node.name: body for node in functions if len(body := rules.body_text(node)) > 60}


def test_the_notebooks_are_the_expected_ones_and_each_has_a_file_that_runs_it():
    """A file each, so that parallel test processes share them out."""
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == EXPECTED
    runs = {path.stem for path in Path(__file__).parent.glob("test_run_*.py")}
    assert runs == {f"test_run_{name[:2]}" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_hygiene(name, rule):
    complaints = rule(read(name))
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_function_is_a_copy_of_the_package(name):
    bodies = package_bodies()
    assert len(bodies) >= 50
    assert not rules.copies(read(name), bodies)


# The rules themselves: one notebook that keeps them all, and for each rule a change that breaks it.


def cell(text, kind="code", **metadata):
    made = {"cell_type": kind, "source": text, "metadata": metadata}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


GOOD = {
    "metadata": {},
    "cells": [
        cell("**Claim** ... **Paper** ... **Time** ...", "markdown"),
        cell('profile = "lite"  # size\nseed: int = 0\nout = None', tags=["parameters"]),
        cell("from ovs_lite.losses.contrastive import info_nce\nfrom ovs_lite.notebook import record"),
        cell("def naive_info_nce(s):\n    return -s.log_softmax(1).diag().mean()"),
        cell("mine = naive_info_nce(s)\ntheirs, _ = info_nce(s, t), 0\nassert torch.allclose(mine, theirs)"),
        cell('path = f"{a}/b" + "models/x"\nrecord("loss", 1.0)'),
        cell("Exercise: ...\n<details>...</details>", "markdown"),
    ],
}
BREAKS = [
    (rules.stripped, 4, {"outputs": [{"output_type": "stream"}]}),
    (rules.stripped, 4, {"execution_count": 3}),
    (rules.sizes, 5, {"source": "x = 1\n" * 16}),
    (rules.parameters, 1, {"source": "n = 3\nm = n * 10"}),
    (rules.parameters, 1, {"source": "import os"}),
    (rules.parameters, 1, {"metadata": {}}),
    (rules.parameters, 2, {"metadata": {"tags": ["parameters"]}}),
    (rules.self_contained, 5, {"source": "!ls"}),
    (rules.self_contained, 5, {"source": "%matplotlib inline"}),
    (rules.self_contained, 5, {"source": "x = '/home/me/data'"}),
    (rules.self_contained, 5, {"source": "import requests"}),
    (rules.self_contained, 5, {"source": "x = 'https://example.org'"}),
    (rules.self_contained, 5, {"source": "from pathlib import Path\nx = Path('~/data')"}),
    (rules.self_contained, 5, {"source": "import sys\nsys.path.append('..')"}),
    (rules.fingerprinted, 2, {"source": "from ovs_lite.commands.evaluate_panoptic import as_markdown"}),
    (rules.fingerprinted, 2, {"source": "from ovs_lite import claims, commands"}),
    (rules.fingerprinted, 2, {"source": "from ovs_lite.cli import main"}),
    (rules.fingerprinted, 2, {"source": "import torch, ovs_lite.reproduce.report as r"}),
    (rules.fingerprinted, 2, {"source": "if seed:\n    import_module('ovs_lite.reproduce')"}),
    (rules.naive_functions, 3, {"source": "def info_nce_2(s):\n    return s"}),
    (rules.naive_functions, 3, {"source": "class Model:\n    pass"}),
    (rules.naive_functions, 4, {"source": "mine = naive_info_nce(s)\nassert mine > 0"}),
    (rules.naive_functions, 4, {"source": "mine = naive_info_nce(s) + info_nce(s, t)"}),
    (rules.skeleton, 0, {"source": "# Notebook"}),
    (rules.skeleton, 5, {"source": "print('done')"}),
    (rules.skeleton, 6, {"source": "Exercise without a solution"}),
]


def test_a_good_notebook_passes_every_rule():
    assert [rule(GOOD) for rule in rules.RULES] == [[]] * len(rules.RULES)
    asserted_by_call = copy.deepcopy(GOOD)
    asserted_by_call["cells"][4]["source"] = "torch.testing.assert_close(naive_info_nce(s), info_nce(s, t))"
    assert not rules.naive_functions(asserted_by_call)


def test_rooms_whose_names_only_begin_alike_may_be_imported():
    """Whatever the staleness check leaves out is forbidden, and nothing else."""
    good = "from ovs_lite.clip import commands\nfrom ovs_lite.client import x"
    for text in (good, "import ovs_lite", "from commands import x", "from ovs_lite import load", "!ls"):
        assert not rules.fingerprinted({"cells": [cell(text)]})
    assert set(rules.LEFT_OUT) == {"reproduce/", "commands/", "__main__/", "cli/"}
    assert all((ROOT / "ovs_lite" / path).exists() for path in RUNNERS)


@pytest.mark.parametrize("rule, index, change", BREAKS)
def test_each_rule_sees_its_breach(rule, index, change):
    bad = copy.deepcopy(GOOD)
    bad["cells"][index] |= change
    assert rule(bad)


def test_exercises_may_define_and_come_last():
    exercise = cell("def dice(s, t):\n    return ...", tags=["exercise"])
    assert [rule(GOOD | {"cells": [*GOOD["cells"], exercise]}) for rule in rules.RULES] == [[]] * len(rules.RULES)
    assert rules.skeleton(GOOD | {"cells": [*GOOD["cells"][:3], exercise, *GOOD["cells"][3:]]})


def test_a_copied_body_is_seen():
    bodies = {"info_nce": "return -s.log_softmax(1).diag().mean() "}
    assert rules.copies(GOOD, bodies) == ["naive_info_nce copies info_nce"]
    assert not rules.copies(GOOD, {"other": "return torch.einsum('bnd,bkd->bnk', regions, words).max()"})


def test_long_notebooks_are_seen():
    assert rules.sizes(GOOD | {"cells": GOOD["cells"] * 6})
    assert rules.sizes(GOOD | {"cells": [cell("x = 1\n" * 15)] * 17})
    exercise = cell("x = 1\n" * 10, tags=["exercise"])
    assert not rules.sizes(GOOD | {"cells": GOOD["cells"] + [exercise] * 8})
    assert rules.sizes(GOOD | {"cells": GOOD["cells"] + [exercise] * 9})
    assert rules.sizes(GOOD | {"cells": GOOD["cells"] + [cell("", tags=["exercise"])] * 13})
    assert rules.stripped(GOOD | {"metadata": {"widgets": {}}})
