"""A project of two tiny notebooks."""

import pytest

from kit.tiny_notebooks import write_notebook
from ovs_lite.reproduce import fingerprint as prints


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a package of one file, prepared data and two notebooks, and a function that reproduces them."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "losses.py").write_text("x = 1\n")
    (tmp_path / "data" / "icon-smoke" / "icon-coco" / "train").mkdir(parents=True)
    (tmp_path / "data" / "icon-smoke" / "icon-coco" / "train" / "manifest.json").write_text("{}")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(prints, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr("ovs_lite.iconworld.build.build_all", lambda *_, **__: [])
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("OVS_REAL_DATA", raising=False)
    write_notebook(tmp_path / "notebooks" / "00_first.ipynb", "print(profile, seed)")
    write_notebook(tmp_path / "notebooks" / "01_second.ipynb", "open(out + '/ran', 'a').write('x')")
    return tmp_path
