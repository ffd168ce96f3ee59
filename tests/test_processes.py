"""The processes that tests start: warm ones have their own words and end, and one of a pair ends with the other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kit import warm
from kit.processes import environment, launch
from ovs_lite import distributed

pytestmark = pytest.mark.slow


def say(what: str) -> None:
    print(what, os.environ.get("OVS_WORD"), os.getcwd(), flush=True)
    print(sys.argv[1:], os.environ["OMP_NUM_THREADS"], sys.stdin.read(), end=".", file=sys.stderr)


def fail() -> None:
    raise ValueError("no")


def leave(code: str) -> None:
    sys.exit(int(code))


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def seeds() -> None:
    import numpy as np

    print(hash("a word"), np.random.rand())


def wait() -> None:
    print("here", flush=True)
    time.sleep(600)


def one_fails() -> None:
    if distributed.rank() == 1:
        raise ValueError("one of two")
    wait()


def test_a_process_has_the_words_environment_folder_and_output_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_WORD", "word")
    monkeypatch.chdir(tmp_path)
    done = warm.run("test_processes.say", "hello")
    assert (done.returncode, done.stdout) == (0, f"hello word {tmp_path}\n")
    assert done.stderr.startswith("['hello'] 1 .")
    monkeypatch.delenv("OVS_WORD")
    assert warm.run("test_processes.say", "again").stdout == f"again None {tmp_path}\n"


def test_a_process_ends_as_an_interpreter_does():
    failed = warm.run("test_processes.fail")
    assert failed.returncode == 1 and "ValueError: no" in failed.stderr
    assert warm.run("test_processes.leave", 3).returncode == 3
    stopped = warm.run("test_processes.interrupt")
    assert stopped.returncode == -signal.SIGINT and "KeyboardInterrupt" in stopped.stderr


def test_a_server_has_one_thread_and_its_copies_end_with_the_test():
    with warm.Process("test_processes.wait") as process:
        while not process.said()[0]:
            time.sleep(0.01)
        server = psutil.Process(warm.server(0).process.pid)
        threads = [path.read_text() for path in Path(f"/proc/{server.pid}/task").glob("*/comm")]
        assert len(threads) - threads.count("jemalloc_bg_thd\n") == 1, "pyarrow's own is made for forks"
        copy = psutil.Process(process.pid)
        assert copy.parent() == server
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    assert process.returncode == -signal.SIGKILL and not copy.is_running()


def test_nothing_outlives_the_one_who_asked():
    """Not even where it is killed."""
    code = "from kit import warm; warm.MODULES = (); p = warm.Process('test_processes.wait')\n"
    code += "print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=-1) as asking:
        copy = psutil.Process(int(asking.stdout.readline()))
        asking.kill()
    assert not psutil.wait_procs([copy], timeout=30)[1]


def test_processes_of_a_pair_differ_as_fresh_ones_do():
    found = [line.split() for line in launch("test_processes.seeds").stdout.splitlines()]
    assert len(found) == 2 and found[0][0] != found[1][0] and found[0][1] != found[1][1]


def test_when_one_of_two_fails_the_other_is_ended():
    done = launch("test_processes.one_fails", limit=300)  # the other would sleep on: then there is no answer in time
    assert done.returncode == 1 and "ValueError: one of two" in done.stderr
