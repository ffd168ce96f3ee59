"""One list of dependencies: requirements.txt. Everything else that names packages agrees with it."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
ROOT = Path(__file__).parents[1]


def read(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(r.name): r for r in (Requirement(line) for line in lines if line)}


RANGES, TEST_RANGES, LOCK = read("requirements.txt"), read("requirements-test.txt"), read("requirements-lock.txt")


def imported(folder):
    """Top-level names of the third-party modules that the files of a folder import."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    own = {"ovs_lite", "kit", "benchmarks"} | {path.stem for path in (ROOT / "tests" / "benchmarks").glob("*.py")}
    return names - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize("folder, declared", [("ovs_lite", RANGES), ("tests", RANGES | TEST_RANGES)])
def test_what_is_imported_is_declared(folder, declared):
    names, distributions = imported(folder), packages_distributions()
    undeclared = {
        name for name in names if not {canonicalize_name(d) for d in distributions.get(name, [name])} & set(declared)
    }
    assert not undeclared, f"add to the requirements what {folder}/ imports: {sorted(undeclared)}"
    assert len(names) >= 8


def test_the_lock_lies_inside_every_range_and_holds_what_the_packages_need():
    for name, wanted in (RANGES | TEST_RANGES).items():
        assert name in LOCK, f"{name} has no line in requirements-lock.txt"
        (pin,) = LOCK[name].specifier
        assert pin.operator == "==" and pin.version in wanted.specifier, f"{LOCK[name]} is outside {wanted}"
        assert "+" not in pin.version, f"{pin}: a local build cannot be installed from PyPI"
        for line in requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in LOCK, f"{name} needs {need.name}, which is not locked"


def test_the_lock_is_dated_and_exact():
    text = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text.splitlines()[0])
    assert all(len(r.specifier) == 1 and not r.url for r in LOCK.values()) and len(LOCK) > len(RANGES)


def test_pyproject_and_conda_read_the_same_files():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    assert dynamic["dependencies"] == {"file": ["requirements.txt"]}
    assert dynamic["optional-dependencies"]["test"] == {"file": ["requirements-test.txt"]}
    assert set(project["project"]["dynamic"]) == {"dependencies", "optional-dependencies"}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == ["-r requirements.txt", "-r requirements-test.txt"]
    assert [entry.split("=")[0] for entry in conda if isinstance(entry, str)] == ["python", "pip"]


def test_the_command_and_the_package_files_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"ovs-lite": "ovs_lite.cli:main"}
    patterns = {pattern.rsplit("*", 1)[1] for pattern in project["tool"]["setuptools"]["package-data"]["ovs_lite"]}
    files = [p for p in (ROOT / "ovs_lite").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    left_out = [p.name for p in files if p.suffix not in patterns]
    assert files and not left_out, f"package-data in pyproject.toml leaves out {left_out}"


def test_torch_and_torchvision_are_a_pair():
    (need,) = [Requirement(line) for line in requires("torchvision") if Requirement(line).name == "torch"]
    assert need.specifier.contains(version("torch").split("+")[0]), f"torchvision wants {need}; see ovs-lite doctor"
