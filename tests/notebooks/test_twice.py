"""Every notebook out of order, then each cell twice: a named message or the same numbers as run once in order."""

import json

import pytest

from kit import notebook_rules as rules
from kit.notebooks import FOLDER, offline
from ovs_lite.notebook.logs import read_metrics
from ovs_lite.reproduce.pipeline import reproduce

BACKWARDS = """
sources, nameless, shell = {sources!r}, [], get_ipython()
shell._showtraceback = lambda *error: None  # an error in the output would be one of the notebook
for number, source in reversed(list(enumerate(sources))):
    outcome = shell.run_cell(source)
    error = outcome.error_before_exec or outcome.error_in_exec
    nameless += [number] if error is not None and not str(error).strip() else []
del shell._showtraceback
assert not nameless, f"cells that fail without a word when run out of order: {{nameless}}"
"""
TIMES = ("s", "ms", "per s")  # units of what may differ between two runs


def disordered(notebook):
    """All cells from the last to the first, then all in order, each twice; parameters stay where they are."""
    cells = []
    codes = rules.code_cells(notebook)
    tagged = [cell for cell in codes if "parameters" in cell["metadata"].get("tags", [])]
    others = [rules.source(cell) for cell in codes if cell not in tagged]
    for cell in notebook["cells"]:
        cells += [cell] * (1 if cell["cell_type"] != "code" or cell in tagged else 2)
        if cell in tagged:
            cells.append({**cell, "metadata": {}, "source": BACKWARDS.format(sources=others)})
    return {**notebook, "cells": [{**cell, "id": f"c{number}"} for number, cell in enumerate(cells)]}


def numbers(folder):
    return {row["name"]: (row["value"], row["n"]) for row in read_metrics(folder) if row.get("unit") not in TIMES}


@pytest.mark.fault
@pytest.mark.parametrize("path", sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_out_of_order_and_twice_the_numbers_are_those_of_one_run(path, tmp_path):
    copies = tmp_path / "notebooks"
    copies.mkdir()
    content = disordered(json.loads(path.read_text(encoding="utf-8")))
    (copies / path.name).write_text(json.dumps(content), encoding="utf-8")
    found = []
    with offline(tmp_path / "data"):
        for name, notebooks in (("once", FOLDER), ("again", FOLDER), ("twice", copies)):
            (result,) = reproduce("smoke", [path.stem[:2]], notebooks_dir=notebooks, runs_dir=tmp_path / name)
            assert result.status == "done", f"{name}: {result.message}\n{result.traceback}"
            found.append(numbers(tmp_path / name / "smoke" / path.stem))
    once, again, twice = found
    assert once and once == again == twice


def test_a_disordered_notebook_keeps_its_parameters_and_runs_all_else_backwards_and_twice():
    def code(text, *tags):
        return {"cell_type": "code", "source": text, "metadata": {"tags": list(tags)}, "outputs": []}

    cells = disordered(
        {"cells": [{"cell_type": "markdown", "source": "#"}, code("p = 1", "parameters"), code("a = p")]}
    )
    texts = [cell["source"] for cell in cells["cells"]]
    assert texts[:2] == ["#", "p = 1"] and texts[3:] == ["a = p", "a = p"] and "['a = p']" in texts[2]
    assert len({cell["id"] for cell in cells["cells"]}) == 5
