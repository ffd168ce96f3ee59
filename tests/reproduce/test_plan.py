"""What a claim needs is said before it runs, and comes from where it is said to come from."""

import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from ovs_lite.cli import main
from ovs_lite.reproduce import plan, provenance
from ovs_lite.reproduce.memory import PeakMemory
from ovs_lite.reproduce.products import write_stage
from ovs_lite.reproduce.results import COLUMNS

NOTEBOOKS = [Path(f"{number}_x.ipynb") for number in ("01", "04", "07")]


def names(claims):
    return [path.stem for path in plan.notebooks_of(claims, NOTEBOOKS)]


def test_a_claim_names_its_notebooks():
    assert names(["tcl-2"]) == ["04_x"] and names(["tcl-5"]) == ["04_x", "07_x"]
    assert names(["uni-8", "ovseg-1"]) == ["01_x", "07_x"], "in order, each once"
    with pytest.raises(ValueError, match="did you mean 'tcl-2'"):
        names(["tcl2"])
    with pytest.raises(ValueError, match="'uni-1', which notebook 06 settles; there: 01_x, 04_x, 07_x"):
        names(["uni-1"])


def test_costs_come_from_the_last_run_here_else_from_the_documents(tmp_path, monkeypatch):
    rows = [
        "run,,,,profile.name,lite,,,,,,,lite,",
        "run,,,,machine.cpu cores,2,,,,,,,lite,",
        "notebook,04_x,,,status,done,,,,,,,lite,",
        "notebook,04_x,,,seconds,300.0,s,,,,,,lite,",
        "notebook,04_x,,,memory,2048,MB,,,,,,lite,",
        "notebook,07_x,,,status,failed,,,,,,,lite,",
        "notebook,07_x,,,seconds,9.0,s,,,,,,lite,",
    ]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    monkeypatch.setattr(plan, "project_root", lambda: tmp_path)
    run = tmp_path / "lite"
    unknown = "time and memory not measured yet"
    assert plan.expected(NOTEBOOKS, run, "lite") == [
        f"01_x: {unknown}",
        "04_x: about 5 minutes, 2.0 GB of memory (docs/results.csv: 2 CPU cores)",
        f"07_x: {unknown} (docs/results.csv: 2 CPU cores)",
    ]
    assert plan.expected(NOTEBOOKS, run, "smoke") == [f"{path.stem}: {unknown}" for path in NOTEBOOKS]
    (run / "04_x").mkdir(parents=True)
    write_stage(run / "04_x", {"status": "done", "seconds": 45.4})
    here = plan.expected(NOTEBOOKS[1:2], run, "lite")
    assert here == [f"04_x: about 45 s, memory not measured (its last run in {run})"]
    write_stage(run / "04_x", {"status": "failed", "seconds": 2})
    assert "docs/results.csv" in plan.expected(NOTEBOOKS[1:2], run, "lite")[0], "a failed run says nothing"


def test_no_committed_results_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "project_root", lambda: tmp_path)
    monkeypatch.setattr(plan, "PACKAGED", tmp_path)
    assert plan.committed_results() is None
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.csv").write_text("x")
    assert plan.committed_results() is None


def test_the_command_refuses_unknown_claims_and_claims_with_notebooks(tmp_path, capsys):
    assert main(["reproduce", "--claim", "tcl-22", "--runs", str(tmp_path)]) == 2
    assert "got claim 'tcl-22'" in (said := capsys.readouterr().err) and "did you mean 'tcl-2'" in said
    with pytest.raises(SystemExit):
        main(["reproduce", "--claim", "tcl-2", "--only", "04"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_runs_what_one_claim_needs_and_says_its_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ovs_lite.iconworld.build.build_all", lambda *_, **__: [])
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    (tmp_path / "notebooks").mkdir()
    hold = "import numpy as np\nheld = np.ones(300 * 2**20, np.uint8)\nimport time\ntime.sleep(2)"
    source = (
        "from ovs_lite import notebook\nrun = notebook.setup(profile, seed, out)\nrun.claim('{}', 3.0, (2.0, 5.0), 40)"
    )
    for stem, name in (("04_x", "tcl-7"), ("05_x", "ovseg-4")):
        cells = [v4.new_code_cell('profile = "lite"\nseed = 0\nout = "."', metadata={"tags": ["parameters"]})]
        cells += [v4.new_code_cell(source.format(name)), v4.new_code_cell(hold)]
        nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks" / f"{stem}.ipynb")
    folders = ["--notebooks", str(tmp_path / "notebooks"), "--runs", str(tmp_path / "runs")]
    assert main(["reproduce", "--profile", "smoke", *folders, "--claim", "tcl-7", "tcl-2"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("04_x: time and memory not measured yet") < printed.index("04_x: running")
    assert "claim tcl-7: reversed (+3 points" in printed and printed.endswith("claim tcl-2: not run\n")
    run = tmp_path / "runs" / "smoke"
    assert not (run / "05_x").exists()
    assert main(["reproduce", "--profile", "smoke", *folders, "--claim", "tcl-7"]) == 0
    again = capsys.readouterr().out
    assert "(its last run in" in again and "up to date" in again and "claim tcl-7: reversed" in again
    assert plan.read_stage(run / "04_x")["memory"] > 300 and len(plan.read_stage(run / "04_x")["commit"]) >= 7


def test_peak_memory_sees_a_process_and_what_it_starts_and_not_this_one():
    hold = "held = bytearray(b'x') * (200 << 20); print(flush=True); input()"
    nest = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    own = bytearray(b"x") * (300 << 20)
    with PeakMemory(interval=0.05) as peak:
        child = subprocess.Popen([sys.executable, "-c", nest], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        peak.process = child.pid
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while peak.megabytes < 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        child.communicate(b"\n")
    assert 200 <= peak.megabytes < 300 and len(own)
    with PeakMemory(interval=0.01) as nothing:
        time.sleep(0.1)
    assert nothing.megabytes == 0


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_checkout_that_holds_the_package(tmp_path):
    package = tmp_path / "ovs_lite"
    elsewhere = tmp_path / ".venv" / "site-packages" / "ovs_lite"
    for folder in (package, elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("x = 1\n")
    assert provenance.commit(package) == "unknown", "no checkout"
    git(tmp_path, "init")
    assert provenance.commit(package) == "unknown", "no commit"
    git(tmp_path, "add", "ovs_lite")
    git(tmp_path, "commit", "-m", "x")
    head = provenance.commit(package)
    assert len(head) == 40 and set(head) <= set("0123456789abcdef")
    assert provenance.commit(elsewhere) == "unknown", "installed below somebody's checkout"
    (package / "a.py").write_text("x = 2\n")
    assert provenance.commit(package) == f"{head} with changes"


def test_no_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() == "unknown"
