"""Claims of other seeds: read from their runs, shown beside the first run's, refused where they say nothing new."""

from pathlib import Path

import pytest

from ovs_lite.claims import get_claim, verdict
from ovs_lite.reproduce.documents import BEGIN, END, write_documents
from ovs_lite.reproduce.results import COLUMNS
from ovs_lite.reproduce.seeds import agreement, read_seeds, said_again


def a_run(folder, seed, value, low, high, said, profile="lite"):
    """A run's results.csv with one claim, dense-1, and one part of another."""
    rows = [
        f"run,,,,profile.seed,{seed},,,,,,,lite,",
        f"run,,,,profile.name,{profile},,,,,,,lite,",
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
    names = {path.relative_to(checkout).as_posix() for path in write_documents(checkout, seeds=runs)}
    assert names == {"docs/seeds.csv", "docs/claims.md", "docs/deviations.md", "README.md"}
    rows = read_seeds(checkout / "docs" / "seeds.csv")
    assert [row["seed"] for row in rows] == ["1", "1", "2", "2"] and rows[0]["commit"] == "c1"
    sentence = "seed 1: +7.1 (+5 to +9), holds; seed 2: +0.5 (-1 to +2), inconclusive."
    assert said_again(rows, "dense-1") == [f"points: {sentence}"]
    assert said_again(rows, "clip-1")[0].startswith("minute, ") and said_again(rows, "tcl-1") == []
    page = (checkout / "docs" / "claims.md").read_text()
    assert "Again, points: seed 1: +7.1" in page.split("### dense-1")[1].split("###")[0]
    said = "Measured again with seeds 1 and 2: 0 of 2 differences keep their verdict; another one at least once:"
    assert f"{said} clip-1, dense-1." in (checkout / "README.md").read_text()
    write_documents(checkout)
    assert (checkout / "docs" / "claims.md").read_text() == page, "kept where only the first run is taken again"


def test_the_same_seed_or_another_profile_says_nothing_new(checkout):
    first, again = (a_run(checkout / name, 1, 7, 5, 9, "holds") for name in ("a", "b"))
    with pytest.raises(ValueError, match="got seed 1 as in .*a, expected another one"):
        write_documents(checkout, seeds=[first, again])
    with pytest.raises(ValueError, match="got seed 0 as in docs/results.csv"):
        write_documents(checkout, seeds=[a_run(checkout / "c", 0, 7, 5, 9, "holds")])
    with pytest.raises(ValueError, match="got profile smoke, expected lite"):
        write_documents(checkout, seeds=[a_run(checkout / "d", 3, 7, 5, 9, "holds", "smoke")])
    assert not (checkout / "docs" / "seeds.csv").exists()


def test_without_other_seeds_nothing_is_said(checkout):
    write_documents(checkout)
    assert "Again" not in (checkout / "docs" / "claims.md").read_text()
    assert read_seeds(checkout / "docs" / "seeds.csv") == [] and agreement([], None) == ""
    (checkout / "docs" / "seeds.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="got columns"):
        read_seeds(checkout / "docs" / "seeds.csv")


def test_committed_verdicts_of_other_seeds_follow_from_their_numbers():
    rows = read_seeds(Path(__file__).parents[2] / "docs" / "seeds.csv")
    if not rows:
        pytest.skip("no run with another seed yet")
    for row in rows:
        interval = (float(row["low"]), float(row["high"])) if row["low"] else None
        assert row["verdict"] == verdict(
            get_claim(row["claim"]).part(row["part"] or None), float(row["value"]), interval
        )
