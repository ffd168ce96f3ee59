"""Several notebooks at once: they overlap, a failure starts no more, and no kernel outlives its run."""

import os
import signal
import time

import nbformat
import psutil
import pytest

from kit import warm
from kit.tiny_notebooks import reproduce, statuses, write_notebook
from ovs_lite.reproduce import pipeline
from ovs_lite.reproduce.products import write_stage

MEET = """
import os, time
open(f"{{out}}/../{own}", "w").close()
deadline = time.monotonic() + 120
while not os.path.exists(f"{{out}}/../{other}") and time.monotonic() < deadline:
    time.sleep(0.05)
assert os.path.exists(f"{{out}}/../{other}"), "the other notebook never ran beside this one"
print("threads", os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.slow
def test_two_at_once_overlap_share_the_cores_and_are_timed_apart(world, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pipeline, "cores", lambda: 6)
    hold = "held = bytearray(b'x') * (300 << 20)\ntime.sleep(1.5)"
    write_notebook(world / "notebooks" / "00_first.ipynb", MEET.format(own="a", other="b"), hold)
    write_notebook(world / "notebooks" / "01_second.ipynb", MEET.format(own="b", other="a"))
    results = reproduce(world, jobs=2)
    assert statuses(results) == ["done", "done"], results
    assert list(results) == ["00_first", "01_second"], "in the order of their numbers, whatever ended first"
    for name in results:
        assert "threads 3" in (world / "runs" / "smoke" / name / "executed.ipynb").read_text()
    assert results["00_first"].memory - results["01_second"].memory > 200, "each kernel's memory is its own"


@pytest.mark.slow
def test_relative_folders_mean_where_the_run_was_started(world, monkeypatch):
    """However many kernels stand in the notebooks' folder."""
    monkeypatch.chdir(world)
    for name, own, other in (("00_first", "a", "b"), ("01_second", "b", "a")):
        write_notebook(world / "notebooks" / f"{name}.ipynb", MEET.format(own=own, other=other), "print(os.getcwd())")
    results = pipeline.reproduce("smoke", notebooks_dir="notebooks", runs_dir="runs", jobs=2)
    assert [result.status for result in results] == ["done", "done"], results
    executed = (world / "runs" / "smoke" / "01_second" / "executed.ipynb").read_text()
    assert str(world / "notebooks") in executed and not (world / "notebooks" / "runs").exists()


@pytest.mark.slow
def test_a_notebook_that_was_told_to_stop_is_not_done(world):
    """As a training that gets SIGTERM ends: after its step, by SystemExit(0)."""
    write_notebook(world / "notebooks" / "00_first.ipynb", "raise SystemExit(0)", "print('never')")
    (result,) = reproduce(world, only=["00"]).values()
    assert result.status == "failed" and "was stopped; run it again to resume" in result.message


@pytest.mark.slow
def test_after_a_failure_none_is_started_and_those_that_run_end(world):
    known = f"Path({str(world / 'runs' / 'smoke' / '01_second' / 'stage.json')!r})"
    until = f"while not ({known}.exists() and 'failed' in {known}.read_text()):\n    time.sleep(0.1)\ntime.sleep(1)"
    write_notebook(world / "notebooks" / "00_first.ipynb", f"import time\nfrom pathlib import Path\n{until}")
    write_notebook(world / "notebooks" / "01_second.ipynb", "assert False")
    write_notebook(world / "notebooks" / "02_third.ipynb", "print(1)")
    assert statuses(reproduce(world, jobs=2)) == ["done", "failed"]
    assert not (world / "runs" / "smoke" / "02_third").exists()
    assert (world / "runs" / "smoke" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_an_interrupt_ends_the_kernels(world):
    """Also one that does not hear SIGTERM."""
    for name in ("00_first", "01_second"):
        deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * (name == "01_second")
        code = f"{deaf}open(out + '/ran', 'w')\nimport time\ntime.sleep(3600)"
        write_notebook(world / "notebooks" / f"{name}.ipynb", code)
    deadline = time.monotonic() + 120
    with warm.Process("kit.tiny_notebooks.reproduce_until_stopped", world, 2) as process:
        while len(list(world.rglob("ran"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        kernels = psutil.Process(process.pid).children(recursive=True)
        assert len(kernels) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) != 0 and "KeyboardInterrupt" in process.said()[1]
    assert not psutil.wait_procs(kernels, timeout=60)[1], "a kernel outlived its run"


def test_the_longest_begins_after_what_nobody_timed(world, monkeypatch):
    monkeypatch.setattr("ovs_lite.reproduce.plan.committed_results", lambda: None)
    run, every = world / "runs" / "smoke", pipeline.find_notebooks(world / "notebooks")
    for notebook, seconds in zip(every, (5, 9), strict=True):
        (run / notebook.stem).mkdir(parents=True)
        write_stage(run / notebook.stem, {"status": "done", "seconds": seconds})
    write_notebook(world / "notebooks" / "02_new.ipynb", "print(1)")
    found = pipeline._groups(pipeline.find_notebooks(world / "notebooks"), run)
    assert [[path.stem for path in group] for group in found] == [["02_new", "01_second", "00_first"], []]


@pytest.mark.slow
def test_what_reads_the_others_waits_for_them_and_has_all_cores(world, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pipeline, "cores", lambda: 6)
    first = world / "notebooks" / "00_first.ipynb"
    write_notebook(first, "import os, glob\nprint(os.environ['OMP_NUM_THREADS'], glob.glob(out + '/../*/ran'))")
    notebook = nbformat.read(first, as_version=4)
    notebook.metadata["ovs_lite"] = {"after_all": True}
    nbformat.write(notebook, first)
    write_notebook(world / "notebooks" / "02_third.ipynb", "import time\ntime.sleep(2)\nopen(out + '/ran', 'w')")
    assert statuses(reproduce(world, jobs=2)) == ["done"] * 3
    executed = (world / "runs" / "smoke" / "00_first" / "executed.ipynb").read_text()
    assert "6 [" in executed and "01_second/ran" in executed and "02_third/ran" in executed


def test_jobs_below_one_are_refused_before_anything_runs(world):
    with pytest.raises(ValueError, match="got 0 notebooks at once, expected at least 1"):
        reproduce(world, jobs=0)


def test_the_default_follows_cores_and_memory(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for cores, memory, expected in ((2, 24000, 2), (16, 64000, 4), (4, 9000, 2), (4, 2000, 1)):
        monkeypatch.setattr(pipeline, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(pipeline, "machine_memory", lambda memory=memory: memory)
        assert pipeline.default_jobs() == expected
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pipeline.default_jobs() == 1, "notebooks do not share a GPU"
