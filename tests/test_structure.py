"""The shape of the package: which way imports may point, how long files may be, what every public name owes.

Everything is read from the source by ast, so a lazy import inside a function counts too.
"""

import ast
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from ovs_lite.methods.registry import ENTRIES

ROOT = Path(__file__).parents[1]
PACKAGE = "ovs_lite"

# Rooms from left to right. A module may import from its own room and from any room to the left of it.
SPINE = ["files", "locks", "tensors", "config", "distributed", "data", "iconworld", "clip", "models", "matching",
         "losses", "regions", "pamr", "methods", "checkpoints"]  # fmt: skip
TRAINING = ["train"]
INFERENCE = ["inference", "evaluation", "viz", "segmenter"]
ENTRANCES = ["claims", "notebook", "exercises", "reproduce", "commands", "__init__", "cli", "__main__"]
# The one exception: the released layouts, re-exported where people look for them.
RE_EXPORTS = "checkpoints"

HOMES = "_HOMES"  # where the names are defined that a package imports when they are asked for
MAX_ROOT_FILES = 12
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 80
DRAWERS = {"util", "utils", "misc", "common", "helper", "helpers", "tools"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@dataclass(frozen=True)
class Import:
    """One import of a module of the package. target: dotted name below the package ("" = the package itself)."""

    target: str
    name: str
    line: int


def module_name(path: Path) -> str:
    """Dotted name below the package: data/record.py -> "data.record", data/__init__.py -> "data", __init__.py -> ""."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[0] or "__init__"


def may_import(importer: str, imported: str) -> bool:
    """Whether room `importer` may import room `imported`. Raises KeyError for a room that has no place yet."""
    order = {room: place for place, room in enumerate(SPINE + TRAINING + INFERENCE + ENTRANCES)}
    if importer in INFERENCE and imported in TRAINING:
        return False
    return order[imported] <= order[importer]


def package_imports(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import of the package in the source: absolute, relative, lazy, and by importlib with a literal name, or
    with one of a package's HOMES, {name: module}."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(a.name[len(PACKAGE) + 1 :], "", node.lineno) for a in node.names if _ours(a.name)]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module, is_package)
            if _ours(origin):
                base = origin[len(PACKAGE) + 1 :]
                found += [Import(_submodule(base, alias.name), alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == HOMES:
            names = [ast.literal_eval(value) for value in node.value.values]
            found += [Import(name[len(PACKAGE) + 1 :], "", node.lineno) for name in names if _ours(name)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found += [Import(name[len(PACKAGE) + 1 :], "", node.lineno) for name in names if _ours(name)]
    return found


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def _origin(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *filter(None, module.split("."))]
    here = parts if is_package else parts[:-1]
    base = here[: len(here) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _submodule(base: str, name: str) -> str:
    """`from ovs_lite import losses` names the room losses; `from ovs_lite import load` the package itself."""
    folder = ROOT / PACKAGE / Path(*filter(None, base.split(".")))
    is_module = (folder / f"{name}.py").exists() or (folder / name).is_dir()
    return ".".join(filter(None, [base, name])) if is_module else base


SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in SOURCES.items()}


def all_imports():
    for path, text in SOURCES.items():
        module = module_name(path)
        for found in package_imports(text, module, path.name == "__init__.py"):
            yield f"{path.relative_to(ROOT)}:{found.line}", module, found


def test_every_file_is_in_a_known_room():
    placed = set(SPINE + TRAINING + INFERENCE + ENTRANCES)
    rooms = {room_of(module_name(path)) for path in SOURCES}
    assert rooms <= placed, f"give {sorted(rooms - placed)} a place among the rooms at the top of {Path(__file__).name}"
    assert len(SOURCES) >= 40 and len(rooms) >= 10


def test_imports_point_left():
    checked, wrong = 0, []
    for where, module, found in all_imports():
        importer, imported = room_of(module), room_of(found.target)
        checked += 1
        if not may_import(importer, imported):
            wrong.append(f"{where} {importer} imports {imported}, which stands to its right")
    assert not wrong, "\n".join(wrong)
    assert checked >= 100, f"only {checked} imports were read: does the reader still work?"


def test_what_a_package_imports_when_it_is_asked_for_is_seen():
    for package, home in (("checkpoints", "methods.tcl.released"), ("methods", "methods.registry")):
        source = (ROOT / PACKAGE / package / "__init__.py").read_text(encoding="utf-8")
        assert home in {found.target for found in package_imports(source, package, is_package=True)}
        assert "import_module(_HOMES[name])" in source, "by nothing that is not read here"


def test_the_root_holds_few_files():
    root = sorted(path.name for path in (ROOT / PACKAGE).glob("*.py"))
    assert len(root) <= MAX_ROOT_FILES, root


def test_the_room_of_data_lists_what_is_in_it():
    folder = ROOT / PACKAGE / "data"
    listed = ast.get_docstring(TREES[folder / "__init__.py"])
    there = {path.stem for path in folder.iterdir() if not path.name.startswith(("_", "."))}
    missing = {name for name in there if not re.search(rf"^- .*\b{name}\b.*:", listed, re.MULTILINE)}
    assert not missing and len(there) >= 20, f"add to data/__init__.py: {sorted(missing)}"


def strings(tree: ast.AST) -> list[ast.Constant]:
    """String constants that are no docstring and no `name` of a class, where a method says what it is called."""
    bodies = [n.body for n in ast.walk(tree) if hasattr(n, "body") and isinstance(n.body, list)]
    first = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [node for node in found if id(node) not in first]


def named_outside(path: Path, tree: ast.AST) -> list[str]:
    """Where a file outside the methods names one of them: as a string, or by importing from its folder."""
    module = module_name(path)
    if room_of(module) == "methods":
        return []
    names, folders = set(ENTRIES) - {"clip"}, {f"methods.{entry.module}" for entry in ENTRIES.values()}
    found = [f"{module}:{node.lineno} {node.value!r}" for node in strings(tree) if node.value in names]
    for item in package_imports(SOURCES[path], module, path.name == "__init__.py"):
        inside = any(item.target == folder or item.target.startswith(folder + ".") for folder in folders)
        if inside and room_of(module) != RE_EXPORTS:
            found.append(f"{module}:{item.line} imports {item.target}")
    return found


def test_no_method_is_named_outside_its_folder_and_the_registry():
    wrong = [where for path, tree in TREES.items() for where in named_outside(path, tree)]
    assert not wrong, "\n".join(wrong)
    assert len(ENTRIES) >= 8


def test_a_method_that_is_named_elsewhere_is_seen():
    here = ROOT / PACKAGE / "inference.py"
    source = 'def f(method):\n    """maskclip"""\n    return method.name == "maskclip"'
    assert named_outside(here, ast.parse(source))[0] == "inference:3 'maskclip'"


def test_every_entry_of_the_registry_keeps_its_promise():
    for name, entry in ENTRIES.items():
        module = import_module(f"ovs_lite.methods.{entry.module}")
        assert hasattr(module, entry.method) == entry.predicts and hasattr(module, "RECIPE") == entry.trains, name
        assert not entry.predicts or getattr(module, entry.method).name == name
        assert not entry.trains or module.RECIPE.name == name


def test_no_star_and_no_private_name_crosses_a_module():
    wrong = [f"{w} {f.name}" for w, _, f in all_imports() if f.name == "*" or re.match(r"_(?!_)", f.name)]
    assert not wrong, wrong


@pytest.mark.parametrize(
    "module, source, room",
    [
        ("losses.tcl", "def f():\n    from ovs_lite.methods import base", "methods"),
        ("losses.tcl", "from ..train import fit", "train"),
        ("losses.tcl", "from .. import methods, train", "train"),
        ("inference", "import ovs_lite.train as t", "train"),
        ("viz.overlay", "import importlib\nimportlib.import_module('ovs_lite.train')", "train"),
        ("clip.model", "from ovs_lite import load", "__init__"),
        ("data.record", "if True:\n    import ovs_lite.clip", "clip"),
        ("train.optim", "from ovs_lite.inference import segment_logits", "inference"),
        ("regions.fusion", "from ovs_lite.methods.tcl import Tcl", "methods"),
        ("data.record", "from ovs_lite.iconworld import nouns", "iconworld"),
    ],
)
def test_the_reader_sees_every_way_to_point_right(module, source, room):
    found = package_imports(source, module, is_package=False)[-1]
    assert room_of(found.target) == room
    assert not may_import(room_of(module), room)


def test_the_reader_lets_left_imports_pass():
    source = "from . import templates\nfrom ovs_lite.data.record import x\nimport ovs_lite.config\nimport torch"
    found = package_imports(source, "data.coco", is_package=False)
    assert [f.target for f in found] == ["data.templates", "data.record", "config"]
    assert all(may_import("data", room_of(f.target)) for f in found)
    with pytest.raises(KeyError):
        may_import("data", "attic")


def test_files_and_functions_are_short_and_no_file_is_a_drawer():
    long_files = [f"{path.name}: {n}" for path, t in SOURCES.items() if (n := len(t.splitlines())) > MAX_FILE_LINES]
    functions = [(p, n) for p, tree in TREES.items() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    long_functions = [
        f"{path.name}:{node.lineno} {node.name}: {length}"
        for path, node in functions
        if (length := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    drawers = [p for p in (ROOT / PACKAGE).rglob("*") if p.stem.lower() in DRAWERS]
    assert not long_files and not long_functions and not drawers, (long_files, long_functions, drawers)
    assert len(functions) >= 150


def test_every_module_and_public_name_has_a_docstring():
    missing, checked = [], 0
    for path, tree in TREES.items():
        owed = [tree] if SOURCES[path].strip() else []
        owed += [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        checked += len(owed)
        bare = [node for node in owed if not ast.get_docstring(node)]
        missing += [f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}" for node in bare]
    assert not missing, "\n".join(missing)
    assert checked >= 150


def unsafe_loads(tree: ast.AST) -> list[tuple[int, str]]:
    """Lines that could run code hidden in a file: unpickling, eval, exec, yaml without the safe loader."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found += [(node.lineno, name) for name in names if name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if (
                called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load")
                or (called == "torch.load" and options.get("weights_only") != "True")
                or options.get("weights_only") == "False"
                or options.get("allow_pickle") == "True"
            ):
                found.append((node.lineno, called))
    return found


def test_no_file_that_is_read_can_run_code():
    wrong = [(path.name, *found) for path, tree in TREES.items() for found in unsafe_loads(tree)]
    assert not wrong, wrong


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "yaml.load(text)",
    ],
)
def test_unsafe_loads_are_seen(source):
    assert unsafe_loads(ast.parse(source))
    assert not unsafe_loads(ast.parse("torch.load(p, weights_only=True)\nmodel.eval()\nyaml.safe_load(t)\nnp.load(p)"))


def test_cross_process_calls_live_in_one_file():
    collectives = {"all_reduce", "all_gather", "reduce_scatter", "barrier", "gather_for_metrics"}
    users, wrong = set(), []
    for path, tree in TREES.items():
        text = SOURCES[path].replace("torch.distributed.run", "")  # starts processes, calls nothing between them
        called = {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
        if called & collectives or "torch.distributed" in text or "import distributed as dist" in text:
            users.add(path.name)
            wrong += [] if path == ROOT / PACKAGE / "distributed.py" else [str(path.relative_to(ROOT))]
    assert "distributed.py" in users and not wrong, wrong


def imported_tests(source: str) -> list[str]:
    """The test modules that a source imports, in its own lines or in those that it gives to another process."""
    way = r"""(?:\bfrom|\bimport|\bimport_module\(|__import__\()\s*["']?"""
    return re.findall(way + r"((?:\w+\.)*(?:test|bench)_\w+)", source)


def test_no_test_module_imports_another():
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path, text in sources.items() for name in imported_tests(text)]
    assert not wrong, f"move what several test modules need to tests/kit/:\n{wrong}"
    assert len(sources) >= 100


@pytest.mark.parametrize(
    "source",
    [
        "from {} import toy",
        "from data.{} import toy",
        "    from data import {}",
        "import {} as t",
        "code = 'import sys; from {} import write'",
        "importlib.import_module('data.{}')",
    ],
)
def test_every_import_of_a_test_module_is_seen(source):
    for name in ("test_record", "bench_pamr"):
        (found,) = imported_tests(source.format(name))
        assert found.endswith(name)
    assert not imported_tests(source.format("kit.records") + "\ndef test_record(): ...\nimport pytest")
