"""Every exercise of every notebook: its template is "not yet", its folded solution is right, a planted bug is not."""

import ast
import json
import re

import pytest

from kit import notebook_rules as rules
from kit.notebooks import FOLDER
from ovs_lite import exercises
from ovs_lite.exercises import judging

HEADING = re.compile(r"^### (\d\d-\d) · ([^:]+): .+ \(.+\)$", re.MULTILINE)
SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n.+\n\n</details>", re.DOTALL)
KINDS = {judging.OWN: ("your own picture", "your own words", "your own pictures", "your own picture and words")}


def read(number):
    (path,) = FOLDER.glob(f"{number[:2]}_*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))


def parts(number):
    """Heading's kind, template and solution of an exercise, from its two cells."""
    cells = [cell for cell in read(number)["cells"] if rules.is_exercise(cell)]
    for text, code in zip(cells[::2], cells[1::2], strict=True):
        heading = HEADING.search(rules.source(text))
        if heading[1] == number:
            return heading[2], rules.source(code), SOLUTION.search(rules.source(text))[1]
    raise AssertionError(f"no cells of {number}")


def run(number, code):
    """Run an answer as its notebook would, after the imports of the lesson; the verdict on it."""
    lines = [ast.parse(rules.source(cell)).body for cell in rules.code_cells(rules.lesson(read(number)))]
    imports = [node for body in lines for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    space, verdicts = {}, []
    exec("\n".join(map(ast.unparse, imports)) + "\nfrom ovs_lite import exercises", space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exercises, "check", lambda *given: verdicts.append(judging.check(*given)))
        exec(code, space)
    (verdict,) = verdicts
    assert verdict.number == number
    return verdict


def test_the_notebooks_hold_the_exercises_that_the_package_judges():
    there = [n for i in range(8) for cell in read(f"{i:02}")["cells"] for n, _ in HEADING.findall(rules.source(cell))]
    assert there == sorted(exercises.EXERCISES)
    for notebook in range(8):
        mine = [task for number, task in exercises.EXERCISES.items() if number.startswith(f"{notebook:02}")]
        kinds = {task.kind for task in mine}
        assert kinds == {judging.FILL_IN, judging.TWEAK, judging.BUG_HUNT, judging.OWN}, notebook
        assert all((task.bug is not None) == (task.kind == judging.BUG_HUNT) for task in mine)


@pytest.mark.parametrize("number", sorted(exercises.EXERCISES))
def test_the_template_is_not_yet(number, capsys):
    kind, template, _ = parts(number)
    task = exercises.EXERCISES[number]
    assert kind in KINDS.get(task.kind, (task.kind,))
    assert run(number, template).status == judging.NOT_YET
    assert f"{number} not yet" in capsys.readouterr().out


@pytest.mark.parametrize("number", sorted(exercises.EXERCISES))
def test_the_solution_is_right(number):
    verdict = run(number, parts(number)[2])
    assert verdict.status == judging.SOLVED, verdict.message


@pytest.mark.parametrize("number", [n for n, task in sorted(exercises.EXERCISES.items()) if task.bug])
def test_the_planted_bug_is_shown_and_rejected(number, capsys):
    bug = exercises.planted(number)
    shown = capsys.readouterr().out
    assert shown.startswith(f"def {bug.__name__}(") and "on purpose" not in shown
    verdict = exercises.check(number, bug)
    assert verdict.status == judging.NOT_RIGHT
    assert re.search(r"first failing case: .+\n  expected: .+\n  got: .+\n  hint: .+", verdict.message)
