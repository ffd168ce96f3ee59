"""Claims of further runs: read from them, shown beside the first run's, refused where they say nothing new."""

from pathlib import Path

import pytest

from ovs_lite import notebook
from ovs_lite.claims import get_claim, verdict
from ovs_lite.config import read_changes
from ovs_lite.methods.registry import get_recipe
from ovs_lite.reproduce.again import agreement, read_again, said_again
from ovs_lite.reproduce.documents import BEGIN, END, write_documents
from ovs_lite.reproduce.results import COLUMNS

ROOT = Path(__file__).parents[2]


def a_run(folder, seed, value, low, high, said, profile="lite", config=""):
    """A run's results.csv with one claim, dense-1, and one part of another."""
    rows = [
        f"run,,,,profile.seed,{seed},,,,,,,lite,",
        f"run,,,,profile.name,{profile},,,,,,,lite,",
        f"run,,,,config,{config},,,,,,,lite,",
        "notebook,07_x,,,status,done,,,,,,,lite,",
        f"notebook,07_x,,,commit,c{seed},,,,,,,lite,",
        f"claim,07_x,dense-1,,x,{value},points,{low},{high},50,,{said},lite,{seed}",
        f"part,00_x,clip-1,minute,x,{value},points,{low},{high},50,,{said},lite,{seed}",
    ]
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose documented run has seed 0."""
    a_run(tmp_path / "docs", 0, 9.8, 8.6, 11.7, "holds")
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    return tmp_path


def test_other_seeds_stand_beside_the_first(checkout):
    runs = [
        a_run(checkout / "runs" / "s2", 2, 0.5, -1, 2, "inconclusive"),
        a_run(checkout / "runs" / "s1", 1, 7.1, 5, 9, "holds"),
    ]
    names = {path.relative_to(checkout).as_posix() for path in write_documents(checkout, again=runs)}
    assert names == {"docs/again.csv", "docs/claims.md", "docs/deviations.md", "README.md"}
    rows = read_again(checkout / "docs" / "again.csv")
    assert [row["seed"] for row in rows] == ["1", "1", "2", "2"] and rows[0]["commit"] == "c1"
    sentence = "seed 1: +7.1 (+5 to +9), holds; seed 2: +0.5 (-1 to +2), inconclusive."
    assert said_again(rows, "dense-1") == [f"points: {sentence}"]
    assert said_again(rows, "clip-1")[0].startswith("minute, ") and said_again(rows, "tcl-1") == []
    page = (checkout / "docs" / "claims.md").read_text()
    assert "Again, points: seed 1: +7.1" in page.split("### dense-1")[1].split("###")[0]
    readme = (checkout / "README.md").read_text()
    assert "2 of 2 parts keep their verdict with seed 1. 0 of 2 parts keep their verdict with seed 2." in readme
    write_documents(checkout)
    assert (checkout / "docs" / "claims.md").read_text() == page, "kept where only the first run is taken again"


def test_longer_trainings_stand_beside_the_first_run_and_other_seeds(checkout):
    longer = a_run(checkout / "runs" / "longer", 0, 12, 11, 13, "holds", config="longer.yaml")
    write_documents(checkout, again=[a_run(checkout / "runs" / "s1", 1, 7.1, 5, 9, "holds"), longer])
    page = (checkout / "docs" / "claims.md").read_text()
    assert "Again, points: seed 1: +7.1 (+5 to +9), holds; longer.yaml, seed 0: +12 (+11 to +13), holds." in page
    assert "Of runs with changes (`ovs-lite reproduce --config`, longer.yaml)" in page and "Of other seeds" in page
    write_documents(checkout, again=[longer])
    assert "Other seeds were not run" in (checkout / "docs" / "claims.md").read_text()


def test_the_same_seed_or_another_profile_says_nothing_new(checkout):
    first, again = (a_run(checkout / name, 1, 7, 5, 9, "holds") for name in ("a", "b"))
    with pytest.raises(ValueError, match="got seed 1 as in .*a, expected another seed"):
        write_documents(checkout, again=[first, again])
    with pytest.raises(ValueError, match="got seed 0 as in docs/results.csv"):
        write_documents(checkout, again=[a_run(checkout / "c", 0, 7, 5, 9, "holds")])
    with pytest.raises(ValueError, match="got profile smoke, expected lite"):
        write_documents(checkout, again=[a_run(checkout / "d", 3, 7, 5, 9, "holds", "smoke")])
    assert not (checkout / "docs" / "again.csv").exists()


def test_without_other_seeds_nothing_is_said(checkout):
    write_documents(checkout)
    assert "Again" not in (checkout / "docs" / "claims.md").read_text()
    assert read_again(checkout / "docs" / "again.csv") == [] and agreement([], None) == []
    (checkout / "docs" / "again.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="got columns"):
        read_again(checkout / "docs" / "again.csv")


def test_the_longer_trainings_of_the_examples_are_longer(monkeypatch, tmp_path):
    changes = read_changes(ROOT / "examples" / "longer.yaml")
    monkeypatch.setenv("OVS_CONFIG", str(ROOT / "examples" / "longer.yaml"))
    recipes = {key.partition(".")[0] for key in changes}
    longer = notebook.setup("lite", out=tmp_path)
    for recipe in recipes:
        usual = get_recipe(recipe).presets["lite"].loop.steps
        assert longer.config(recipe).loop.steps >= 4 * usual, recipe
    assert recipes and set(changes) == {f"{recipe}.loop.steps" for recipe in recipes}, "nothing else differs"


def test_committed_verdicts_of_other_seeds_follow_from_their_numbers():
    rows = read_again(ROOT / "docs" / "again.csv")
    if not rows:
        pytest.skip("no further run yet")
    for row in rows:
        interval = (float(row["low"]), float(row["high"])) if row["low"] else None
        assert row["verdict"] == verdict(
            get_claim(row["claim"]).part(row["part"] or None), float(row["value"]), interval
        )
