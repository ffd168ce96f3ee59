"""The rules of a committed notebook, as functions that return a list of complaints; tests/notebooks/test_rules.py asks.

A notebook here is nbformat's JSON as a dict. It may define only `naive_*` functions, each of which must soon be
asserted equal to something of the package: the notebook explains, the package computes.
"""

import ast
import difflib
import re
from typing import Any

from ovs_lite.reproduce.fingerprint import RUNNERS

MAX_CELLS = 40
MAX_CELL_LINES = 15
MAX_CODE_LINES = 250
# Cells tagged `exercise` come after the lesson, with limits of their own: a full lesson needs exercises, too.
EXERCISE = "exercise"
MAX_EXERCISE_CELLS = 12
MAX_EXERCISE_LINES = 80
NETWORK = {"requests", "urllib", "urllib3", "httpx", "socket", "ftplib", "wget", "gdown", "huggingface_hub", "aiohttp"}
SHELL = {"subprocess", "pip", "sh", "pexpect"}
SHELL_CALLS = {"os.system", "os.popen", "os.chdir", "get_ipython", "sys.path.append", "sys.path.insert", "display_html"}
ABSOLUTE = re.compile(r"^(/[A-Za-z]|~|[A-Za-z]:[\\/])")
LEFT_OUT = tuple(f"{path.removesuffix('.py').rstrip('/')}/" for path in RUNNERS)  # "commands/", "cli/"


def source(cell: dict[str, Any]) -> str:
    """The cell's text; nbformat allows a string or a list of lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def lesson(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without its exercises."""
    return notebook | {"cells": [cell for cell in notebook["cells"] if not is_exercise(cell)]}


def is_exercise(cell: dict[str, Any]) -> bool:
    return EXERCISE in cell["metadata"].get("tags", [])


def stripped(notebook: dict[str, Any]) -> list[str]:
    """Outputs, execution counts and widget states belong to executed copies."""
    wrong = [f"code cell {i} has outputs" for i, cell in enumerate(code_cells(notebook)) if cell["outputs"]]
    wrong += [f"code cell {i} has a count" for i, cell in enumerate(code_cells(notebook)) if cell["execution_count"]]
    return wrong + (["metadata holds widget state"] if "widgets" in notebook["metadata"] else [])


def sizes(notebook: dict[str, Any]) -> list[str]:
    lengths = [len(source(cell).strip().splitlines()) for cell in code_cells(notebook)]
    wrong = [f"code cell {i} has {n} lines" for i, n in enumerate(lengths) if n > MAX_CELL_LINES]
    inside, exercises = lesson(notebook), [cell for cell in notebook["cells"] if is_exercise(cell)]
    for name, cells, most, most_lines in (
        ("lesson", inside["cells"], MAX_CELLS, MAX_CODE_LINES),
        ("exercise", exercises, MAX_EXERCISE_CELLS, MAX_EXERCISE_LINES),
    ):
        lines = sum(len(source(cell).strip().splitlines()) for cell in cells if cell["cell_type"] == "code")
        wrong += [f"{len(cells)} {name} cells"] if len(cells) > most else []
        wrong += [f"{lines} lines of {name} code"] if lines > most_lines else []
    return wrong


def parameters(notebook: dict[str, Any]) -> list[str]:
    """Exactly one code cell tagged `parameters`, with nothing in it but names set to literals."""
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        return [f"{len(tagged)} cells tagged parameters, expected one code cell"]
    statements = ast.parse(source(tagged[0])).body
    wrong = [] if statements else ["the parameters cell sets nothing"]
    for statement in statements:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        try:
            ast.literal_eval(statement.value)
            named = all(isinstance(target, ast.Name) for target in targets)
            literal = isinstance(statement, ast.Assign | ast.AnnAssign) and named
        except (ValueError, AttributeError, TypeError):
            literal = False
        wrong += [] if literal else [f"not a literal: {ast.unparse(statement)}"]
    return wrong


def self_contained(notebook: dict[str, Any]) -> list[str]:
    """No shell, magic, pip, network, path tricks or absolute paths, so that it runs from a clone on any machine."""
    wrong = []
    for i, cell in enumerate(code_cells(notebook)):
        text = source(cell)
        magic = [line for line in text.splitlines() if re.match(r"\s*[!%]", line) or line.rstrip().endswith("?")]
        wrong += [f"code cell {i}: shell or magic {line!r}" for line in magic]
        if not magic:
            wrong += [f"code cell {i}: {complaint}" for complaint in _outward(ast.parse(text))]
    return wrong


def fingerprinted(notebook: dict[str, Any]) -> list[str]:
    """No import of what `fingerprint.py` leaves out: a change there would not make the executed notebook stale."""
    return [
        f"code cell {i}: imports {name}, whose changes the staleness check does not see"
        for i, cell in enumerate(code_cells(notebook))
        for name in _imported(source(cell))
        if f"{name.removeprefix('ovs_lite.').replace('.', '/')}/".startswith(LEFT_OUT)
    ]


def _imported(text: str) -> list[str]:
    """Dotted names below the package: of modules, and of what comes from them, which may be a module, too."""
    if any(re.match(r"\s*[!%]", line) for line in text.splitlines()):
        return []  # not Python; see self_contained
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return [name for name in names if name.startswith("ovs_lite.")]


def _outward(tree: ast.AST) -> list[str]:
    wrong = []
    inside_fstrings = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            wrong += [f"imports {name}" for name in names if name.split(".")[0] in NETWORK | SHELL]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in SHELL_CALLS:
            wrong.append(f"calls {ast.unparse(node.func)}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside_fstrings:
            if ABSOLUTE.match(node.value) or re.search(r"https?://", node.value):
                wrong.append(f"absolute path or address {node.value!r}")
    return wrong


def naive_functions(notebook: dict[str, Any]) -> list[str]:
    """Only naive_* functions (lambdas apart), each asserted against the package in its cell or the next two.

    What a reader fills in, in cells tagged as exercises, is judged there.
    """
    trees = [ast.parse(source(cell)) for cell in code_cells(lesson(notebook))]
    ours = {name for tree in trees for name in _package_names(tree)}
    wrong = []
    for i, tree in enumerate(trees):
        defined = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        for node in defined:
            if isinstance(node, ast.ClassDef) or not node.name.startswith("naive_"):
                wrong.append(f"code cell {i} defines {node.name}; only naive_* functions may be defined here")
            elif not _asserted(node.name, ours, trees[i : i + 3]):
                wrong.append(f"{node.name} is not asserted against the package within two code cells")
    return wrong


def _package_names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ovs_lite":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.asname or "ovs_lite" for a in node.names if a.name.split(".")[0] == "ovs_lite"}
    return names


def _asserted(naive: str, ours: set[str], trees: list[ast.AST]) -> bool:
    """Whether an assert compares the naive function's value with the package's, directly or through variables."""
    reach = {naive: {"naive"}, **{name: {"ours"} for name in ours}}
    for statement in (s for tree in trees for s in tree.body if not isinstance(s, ast.FunctionDef)):
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign):
                carried = _carried(node.value, reach)
                for name in (n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                    reach[name] = carried
            is_assert = isinstance(node, ast.Assert) or (
                isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].startswith("assert")
            )
            if is_assert and _carried(node, reach) == {"naive", "ours"}:
                return True
    return False


def _carried(node: ast.AST, reach: dict[str, set[str]]) -> set[str]:
    return set().union(*(reach.get(n.id, set()) for n in ast.walk(node) if isinstance(n, ast.Name)))


def skeleton(notebook: dict[str, Any]) -> list[str]:
    """Opens with claim, paper and time; the lesson's last code cell records; exercises, folded solutions, end it."""
    first, last = notebook["cells"][0], code_cells(lesson(notebook))[-1]
    opening = source(first).lower() if first["cell_type"] == "markdown" else ""
    wrong = [f"the first cell does not say {word!r}" for word in ("claim", "paper", "time") if word not in opening]
    calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(source(last))) if isinstance(n, ast.Call)]
    wrong += [] if any("record" in call for call in calls) else ["the last code cell records no metrics"]
    tagged = [is_exercise(cell) for cell in notebook["cells"]]
    wrong += [] if tagged == sorted(tagged) else ["a cell of the lesson comes after an exercise"]
    prose = "\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown").lower()
    return wrong + ([] if "exercise" in prose and "<details" in prose else ["no exercises with folded solutions"])


def copies(notebook: dict[str, Any], package_bodies: dict[str, str]) -> list[str]:
    """Functions whose body is nearly one of the package's: a copy drifts, an import does not."""
    wrong = []
    for node in (n for cell in code_cells(notebook) for n in ast.walk(ast.parse(source(cell)))):
        if isinstance(node, ast.FunctionDef):
            body = body_text(node)
            near = [k for k, v in package_bodies.items() if difflib.SequenceMatcher(None, body, v).ratio() > 0.9]
            wrong += [f"{node.name} copies {name}" for name in near]
    return wrong


def body_text(node: ast.FunctionDef) -> str:
    """The function's body without its docstring, in ast's own layout."""
    statements = node.body[1:] if ast.get_docstring(node) else node.body
    return "\n".join(ast.unparse(statement) for statement in statements)


RULES = [stripped, sizes, parameters, self_contained, fingerprinted, naive_functions, skeleton]
