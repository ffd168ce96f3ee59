"""One run at a time in a folder: who works there is said, the dead hold nothing."""

import os
import signal
import subprocess
import sys

import pytest

from kit.processes import working_process
from ovs_lite.files import one_line
from ovs_lite.locks import LOCK, exclusive


def test_one_process_at_a_time_in_a_folder_and_who(tmp_path):
    with working_process(tmp_path / "run") as other, pytest.raises(BlockingIOError) as found:
        with exclusive(tmp_path / "run"):
            raise AssertionError("let in")
    said = one_line(found.value)
    assert said.startswith(f"{tmp_path}/run: process {other.pid} on ") and "works there; wait until it ends" in said
    with exclusive(tmp_path / "run"), exclusive(tmp_path / "run"):
        (tmp_path / "run" / "product").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["product"]
    with exclusive(tmp_path):
        pass
    assert tmp_path.is_dir(), "it was there before"


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with working_process(tmp_path) as other:
        other.kill()
        other.wait()
        assert str(other.pid) in (tmp_path / LOCK).read_text(), "it could not clean up"
        with exclusive(tmp_path):
            assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_does_not_keep_the_lock_of_its_parent(tmp_path):
    code = """
import os, sys, time
from ovs_lite.files import one_line
from ovs_lite.locks import exclusive
with exclusive(sys.argv[1]):
    if not os.fork():
        print(flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=-1, start_new_session=True) as parent:
        parent.stdout.readline()
        parent.kill()
        parent.wait()
        try:
            with exclusive(tmp_path):
                assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text()
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
