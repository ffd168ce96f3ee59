"""Several notebooks at once: they overlap, a failure starts no more, and no kernel outlives its run."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from papermill.iorw import papermill_io

from kit import warm
from kit.tiny_notebooks import reproduce, statuses, write_notebook
from ovs_lite.files import write_json
from ovs_lite.notebook import others
from ovs_lite.notebook.others import UNFINISHED, WAITED, WAITING
from ovs_lite.reproduce import pipeline
from ovs_lite.reproduce.products import write_stage
from ovs_lite.reproduce.stage import StageResult

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
@pytest.mark.parametrize("longer", ["00_first", "01_second"])
def test_relative_folders_mean_where_the_run_was_started(world, monkeypatch, longer):
    """However many kernels stand in the notebooks' folder, and wherever an earlier run of this process was started."""
    monkeypatch.chdir(world)
    earlier = papermill_io.get_handler("any.ipynb").cwd("/earlier")
    for name, own, other in (("00_first", "a", "b"), ("01_second", "b", "a")):
        last = f"time.sleep({name == longer})\nprint(os.getcwd())"
        write_notebook(world / "notebooks" / f"{name}.ipynb", MEET.format(own=own, other=other), last)
    results = pipeline.reproduce("smoke", notebooks_dir="notebooks", runs_dir="runs", jobs=2)
    assert [result.status for result in results] == ["done", "done"], results
    executed = (world / "runs" / "smoke" / "01_second" / "executed.ipynb").read_text()
    assert str(world / "notebooks") in executed and not (world / "notebooks" / "runs").exists()
    assert papermill_io.get_handler("any.ipynb").cwd(earlier) == "/earlier", "left as it was found"


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
        assert process.poll() is None, process.said()
        kernels = psutil.Process(process.pid).children(recursive=True)
        assert len(kernels) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) != 0 and "KeyboardInterrupt" in process.said()[1]
    assert not psutil.wait_procs(kernels, timeout=60)[1], "a kernel outlived its run"


@pytest.mark.slow
def test_the_longest_begins_after_what_nobody_timed(world, monkeypatch):
    monkeypatch.setattr("ovs_lite.reproduce.plan.committed_results", lambda: None)
    monkeypatch.setattr(pipeline, "run_stage", fake := Stages())
    run = world / "runs" / "smoke"
    for notebook, seconds in zip(pipeline.find_notebooks(world / "notebooks"), (5, 9), strict=True):
        (run / notebook.stem).mkdir(parents=True)
        write_stage(run / notebook.stem, {"status": "done", "seconds": seconds})
    write_notebook(world / "notebooks" / "02_new.ipynb", "print(1)")
    reproduce(world, jobs=2)
    assert fake.started[:2] == ["02_new", "01_second"] and fake.started[2:] == ["00_first"]


class Stages:
    """In place of `run_stage`: the names in the order in which they were started."""

    def __init__(self):
        self.started = []

    def __call__(self, notebook, *_):
        self.started.append(notebook.stem)
        time.sleep(0.2)
        return StageResult(notebook.stem, "done")


READER = """
import glob, os
from pathlib import Path
from ovs_lite.notebook.others import wait_for_others
wait_for_others(Path(out))
print("seen", *sorted(path.split("/")[-2] for path in glob.glob(f"{out}/../*/ran")))
"""


@pytest.mark.slow
def test_one_that_reads_the_others_waits_and_gives_its_place_away(world):
    """Two places for four notebooks, of which two can only meet while the reader waits."""
    write_notebook(world / "notebooks" / "00_first.ipynb", READER)
    ran = "open(f'{out}/ran', 'w').close()"
    write_notebook(world / "notebooks" / "01_second.ipynb", MEET.format(own="a", other="b"), ran)
    write_notebook(world / "notebooks" / "02_third.ipynb", MEET.format(own="b", other="a"), ran)
    write_notebook(world / "notebooks" / "03_fourth.ipynb", ran)
    assert statuses(reproduce(world, jobs=2)) == ["done"] * 4
    run = world / "runs" / "smoke"
    executed = (run / "00_first" / "executed.ipynb").read_text()
    assert "seen 01_second 02_third 03_fourth" in executed
    assert not (run / UNFINISHED).exists() and not (run / "00_first" / WAITING).exists()


@pytest.mark.slow
def test_waiting_may_take_longer_than_a_cell(world):
    write_notebook(world / "notebooks" / "00_first.ipynb", READER)
    write_notebook(world / "notebooks" / "01_second.ipynb", *3 * ["import time\ntime.sleep(3)"])
    assert statuses(reproduce(world, jobs=2, cell_timeout=8)) == ["done"] * 2


@pytest.mark.slow
def test_the_seconds_of_a_notebook_are_without_those_that_it_waited(world):
    write_notebook(world / "notebooks" / "00_first.ipynb", f"open(f'{{out}}/{WAITED}', 'w').write('1000.0')")
    (result,) = reproduce(world, only=["00"]).values()
    assert result.status == "done" and -1000 < result.seconds < 0


@pytest.mark.slow
def test_what_waits_for_one_that_fails_goes_on_without_it_and_those_never_started(world):
    write_notebook(world / "notebooks" / "00_first.ipynb", READER)
    write_notebook(world / "notebooks" / "01_second.ipynb", "raise ValueError('broken')")
    assert sorted(statuses(reproduce(world, jobs=2))) == ["done", "failed"]


def test_the_seconds_that_a_notebook_waits_are_kept_and_given_once(tmp_path, monkeypatch):
    unfinished, clock = iter([["01_other"], ["01_other"], ["01_other"], []]), iter([100.0, 350.5])
    waiting = []
    monkeypatch.setattr(others, "_others", lambda folder: next(unfinished))
    monkeypatch.setattr(
        others,
        "time",
        SimpleNamespace(perf_counter=lambda: next(clock), sleep=lambda s: waiting.append(others.waits(tmp_path))),
    )
    others.wait_for_others(tmp_path)
    assert waiting == [True, True] and not others.waits(tmp_path)
    assert others.take_waited(tmp_path) == 250.5 and others.take_waited(tmp_path) == 0


def test_nobody_is_waited_for_by_hand_after_a_kill_or_where_two_wait(tmp_path):
    mine = tmp_path / "07_mine"
    mine.mkdir()
    others.wait_for_others(mine)
    write_json(tmp_path / UNFINISHED, {"process": _gone(), "notebooks": ["01_other"]})
    others.wait_for_others(mine)
    others.write_unfinished(tmp_path, ["01_other", "07_mine"])
    (tmp_path / "01_other").mkdir()
    (tmp_path / "01_other" / WAITING).touch()
    others.wait_for_others(mine)
    assert not others.waits(mine)


def _gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


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
