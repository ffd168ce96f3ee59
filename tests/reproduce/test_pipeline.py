"""The runner on tiny notebooks: run, skip, go stale, fail, die, time out, go on."""

import json
import signal
import time

import pytest

from kit import warm
from kit.processes import working_process
from kit.records import three_segments
from kit.tiny_notebooks import reproduce, statuses, write_notebook
from ovs_lite.claims import load_claims
from ovs_lite.cli import main
from ovs_lite.data.record import write_split
from ovs_lite.reproduce import fingerprint as prints
from ovs_lite.reproduce import pipeline, stage
from ovs_lite.reproduce.products import write_stage


def test_prepared_data_is_verified_before_anything_runs(world, monkeypatch):
    write_split([three_segments(0)], world / "split", progress=False)
    (arrow,) = (world / "split").glob("*.arrow")
    content = arrow.read_bytes()
    arrow.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr("ovs_lite.iconworld.build.build_all", lambda *_, **__: [world / "split"])
    with pytest.raises(ValueError, match=f"split is damaged .{arrow.name} differs from its sha256"):
        reproduce(world)
    assert not list(world.rglob("ran"))


@pytest.mark.slow
def test_run_then_skip_then_only_what_changed(world, capsys):
    assert statuses(reproduce(world, seed=5)) == ["done", "done"]
    run = world / "runs" / "smoke"
    assert "smoke 5" in (run / "00_first" / "executed.ipynb").read_text()
    assert "smoke 5" in (run / "00_first" / "executed.html").read_text()
    assert "2 of 2 notebooks are done" in (run / "report.html").read_text()
    assert json.loads((run / "run.json").read_text())["profile"]["seed"] == 5

    again = reproduce(world, seed=5)
    assert statuses(again) == ["up to date", "up to date"]
    assert "code, package, parameters and data" in again["01_second"].message
    assert (run / "01_second" / "ran").read_text() == "x"

    write_notebook(world / "notebooks" / "00_first.ipynb", "print('new', profile)", prose="Other words.")
    capsys.readouterr()
    assert statuses(reproduce(world, seed=5)) == ["done", "up to date"]
    assert "00_first: running (code changed: code cell 2)" in capsys.readouterr().out

    assert statuses(reproduce(world, seed=5, only=["01"], fresh=True)) == ["done"]
    assert (run / "01_second" / "ran").read_text() == "x", "fresh forgets what was left"


@pytest.mark.slow
def test_a_file_of_changes_reaches_the_notebooks_and_another_one_makes_them_run_again(world, capsys):
    show = "from ovs_lite import notebook\nrun = notebook.setup(profile, seed, out)"
    write_notebook(world / "notebooks" / "00_first.ipynb", show, "print(run.config('tcl').batch, run.profile.seed)")
    changes = world / "mine.yaml"
    for batch, status in ((3, "done"), (3, "up to date"), (4, "done")):
        changes.write_text(f"tcl: {{batch: {batch}}}\ndata: {{val_scenes: 5}}\n")
        assert statuses(reproduce(world, seed=7, only=["00"], config=changes)) == [status]
        assert f"{batch} 7" in (world / "runs" / "smoke" / "00_first" / "executed.ipynb").read_text()
    assert "parameters changed: tcl.batch" in capsys.readouterr().out
    assert json.loads((world / "runs" / "smoke" / "run.json").read_text())["profile"]["data"]["val_scenes"] == 5
    changes.write_text("data: {val_scene: 5}")
    with pytest.raises(ValueError, match="did you mean 'val_scenes'"):
        reproduce(world, config=changes)


@pytest.mark.slow
def test_a_failing_cell_is_shown_and_the_next_call_goes_on_there(world, capsys):
    write_notebook(world / "notebooks" / "01_second.ipynb", "x = 1", "raise ValueError('no <b>luck</b>')")
    write_notebook(world / "notebooks" / "02_third.ipynb", "print(1)")
    folders = ["--notebooks", str(world / "notebooks"), "--runs", str(world / "runs")]
    command = ["reproduce", "--profile", "smoke", "--jobs", "1", *folders]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "01_second: failed" in printed and "Traceback" in printed and "no <b>luck</b>" in printed
    assert not (world / "runs" / "smoke" / "02_third").exists()
    page = (world / "runs" / "smoke" / "report.html").read_text()
    assert "no &lt;b&gt;luck&lt;/b&gt;" in page and "<b>luck" not in page

    write_notebook(world / "notebooks" / "01_second.ipynb", "x = 1")
    assert main(command) == 0
    assert "00_first: up to date" in capsys.readouterr().out


@pytest.mark.slow
def test_verdicts_come_from_the_last_run_of_each_notebook(world):
    """A notebook that is run again forgets what it said; one that is up to date, or not chosen, keeps it."""
    setup = "from ovs_lite import notebook\nrun = notebook.setup(profile, seed, out)"
    claim = "run.claim('tcl-5', 3.0, (1.0, 5.0), 40)"
    write_notebook(world / "notebooks" / "00_first.ipynb", setup, claim, "run.claim('ovseg-5', 0.0, (-0.5, 0.5), 40)")

    def verdicts(**options):
        reproduce(world, **options)
        found = json.loads((world / "runs" / "smoke" / "claims.json").read_text())
        assert len(found) == len(load_claims())
        return {entry["id"]: entry["verdict"] for entry in found if entry["verdict"] != "not run"}

    assert verdicts(only=["00"]) == {"tcl-5": "holds", "ovseg-5": "holds"}
    assert verdicts(only=["01"]) == {"tcl-5": "holds", "ovseg-5": "holds"}
    write_notebook(world / "notebooks" / "00_first.ipynb", setup, claim.replace("3.0, (1.0", "3.0, (-1.0"))
    assert verdicts() == {"tcl-5": "inconclusive"}
    write_notebook(world / "notebooks" / "00_first.ipynb", setup, claim.replace("tcl-5", "tcl-55"))
    assert verdicts() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "cell_timeout", "message"),
    [
        ("import os\nos.kill(os.getpid(), 9)", 3600, "the kernel died in cell In [3] (import os)"),
        ("import time\ntime.sleep(3600)", 10, "cell In [3] (import time) took longer than 10 s"),
    ],
    ids=["death", "timeout"],
)
def test_dead_kernels_and_timeouts_become_one_sentence(world, source, cell_timeout, message):
    """The other cells, which do nothing, stay far below the limit on a busy machine too."""
    write_notebook(world / "notebooks" / "00_first.ipynb", source)
    result = reproduce(world, cell_timeout=cell_timeout)["00_first"]
    assert result.status == "failed" and "\n" not in result.message
    assert message in result.message


@pytest.mark.slow
def test_checkpoints_of_a_failed_run_serve_the_next_one_only_where_nothing_changed(world):
    """A failing notebook counts its runs in a file that stands for a checkpoint."""
    count = "open(out + '/checkpoint', 'a').write('x')\nassert False"
    write_notebook(world / "notebooks" / "00_first.ipynb", count)
    checkpoint = world / "runs" / "smoke" / "00_first" / "checkpoint"
    for expected in ("x", "xx"):
        assert statuses(reproduce(world, only=["00"])) == ["failed"]
        assert checkpoint.read_text() == expected
    (world / "package" / "losses.py").write_text("x = 2\n")
    reproduce(world, only=["00"])
    assert checkpoint.read_text() == "x", "other code must not go on from this checkpoint"


@pytest.mark.slow
def test_after_a_kill_the_next_call_goes_on_with_the_unfinished_notebook(world):
    unfinished = "open(out + '/ran', 'a').write('x')\nimport time\ntime.sleep(3600)"
    write_notebook(world / "notebooks" / "01_second.ipynb", unfinished)
    ran = world / "runs" / "smoke" / "01_second" / "ran"
    with warm.Process("kit.tiny_notebooks.reproduce_until_stopped", world, 1) as process:
        while not ran.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.said()
    write_notebook(world / "notebooks" / "01_second.ipynb", "print(1)")
    assert statuses(reproduce(world)) == ["up to date", "done"]


def test_fingerprint_follows_what_can_change_a_number(world, monkeypatch):
    notebook = world / "notebooks" / "00_first.ipynb"

    def now(seed=0):
        return prints.fingerprint(notebook, {"name": "smoke", "data": {"size": 1}, "seed": seed}, world / "data")

    first = now()
    assert prints.changes(first, now()) == []
    write_notebook(notebook, "print(profile, seed)", prose="Better prose.")
    for runner in ("cli.py", "__main__.py", "reproduce/report.py", "commands/doctor.py", "commands/deeper/still.py"):
        path = world / "package" / runner
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a runner")
    assert prints.changes(first, now()) == [], "prose and the runners change no number"

    assert prints.changes(first, now(seed=1)) == ["parameters changed: seed"]
    (world / "package" / "losses.py").write_text("x = 2\n")
    assert prints.changes(first, now()) == ["package changed: losses.py"]
    (world / "package" / "losses.py").write_text("x = 1\n")
    for name in ("claims.yaml", "train/__main__.py", "methods/commands.py", "client.py", "tagger.json.gz", "one.webp"):
        path = world / "package" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not a runner")
        assert prints.changes(first, now()) == [f"package changed: {name}"]
        path.unlink()
    (world / "data" / "icon-smoke" / "icon-coco" / "train" / "manifest.json").write_text('{"count": 1}')
    assert prints.changes(first, now()) == ["data changed: icon-smoke/icon-coco/train"]
    monkeypatch.setenv("OVS_REAL_DATA", str(world / "package"))
    assert prints.changes(first, now())[-1] == "real data changed: OVS_REAL_DATA"


def test_why_run_knows_kills_failures_and_lost_copies(tmp_path):
    made_from = {"code": {"code cell 1": "a"}}
    assert stage.why_run(tmp_path, made_from) == "not run before"
    (tmp_path / "made_from.json").write_text(json.dumps(made_from))
    (tmp_path / "executed.ipynb").touch()
    assert stage.why_run(tmp_path, made_from) == "the last run did not finish"
    write_stage(tmp_path, {"status": "failed"})
    assert stage.why_run(tmp_path, made_from) == "the last run failed"
    (tmp_path / "metrics.jsonl").touch()
    write_stage(tmp_path, {"status": "done"})
    assert stage.why_run(tmp_path, made_from) == ""
    assert stage.why_run(tmp_path, {"code": {"code cell 1": "b"}}) == "code changed: code cell 1"
    (tmp_path / "executed.ipynb").write_text("x")
    (tmp_path / "metrics.jsonl").unlink()
    assert stage.why_run(tmp_path, made_from) == "damaged or gone: executed.ipynb, metrics.jsonl"
    (tmp_path / "stage.json").write_text('{"status": "do')
    assert stage.why_run(tmp_path, made_from) == "the last run did not finish"


@pytest.mark.slow
def test_what_a_product_lost_is_made_again(world):
    """From nothing: the notebook's count of its runs starts over."""
    assert statuses(reproduce(world, only=["01"])) == ["done"]
    ran = world / "runs" / "smoke" / "01_second" / "ran"
    ran.write_text("y")
    assert statuses(reproduce(world, only=["01"])) == ["done"] and ran.read_text() == "x"
    assert statuses(reproduce(world, only=["01"])) == ["up to date"]


def test_two_runs_in_one_folder_are_noticed(world, capsys):
    run = world / "runs" / "smoke"
    words = ["--notebooks", str(world / "notebooks"), "--runs", str(world / "runs")]
    with working_process(run) as other:
        assert main(["reproduce", "--profile", "smoke", *words]) == 1
        message = capsys.readouterr().err
        assert message.startswith(f"ovs-lite: {run}: process {other.pid} on ") and message.count("\n") == 1
    assert not run.exists(), "nothing was written there"


def test_select_takes_numbers_and_names_and_lists_what_there_is(world):
    every = pipeline.find_notebooks(world / "notebooks")
    assert [path.stem for path in every] == ["00_first", "01_second"]
    assert pipeline.select(every, ()) == every
    assert pipeline.select(every, ["01"]) == pipeline.select(every, ["01_second.ipynb"]) == every[1:]
    with pytest.raises(ValueError, match="expected a number or name of: 00_first, 01_second"):
        pipeline.select(every, ["7"])


def test_no_notebooks_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebooks NN_name.ipynb in"):
        pipeline.find_notebooks(tmp_path)
