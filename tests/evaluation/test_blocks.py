"""A signal during an evaluation: the block is kept, the exit code is 0, the same call counts the rest alone."""

import signal

import numpy as np
import pytest

from kit.processes import launch
from ovs_lite.distributed import Interrupts
from ovs_lite.evaluation.blocks import CountFolder, count_in_blocks

RECORDS = [{"number": number} for number in range(10)]


def counting(seen, signalled_at=None):
    def count(records):
        numbers = [record["number"] for record in records]
        seen.extend(numbers)
        if signalled_at in numbers:
            signal.raise_signal(signal.SIGTERM)
        return {"squares": np.array(numbers, np.int64) ** 2}

    return count


@pytest.mark.parametrize("at", [4, 9])
def test_a_signal_ends_after_the_block_and_the_same_call_counts_the_rest(tmp_path, at, capsys):
    kept = CountFolder(tmp_path, "key", tuple(f"i{number}" for number in range(10)))
    seen, before = [], signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        count_in_blocks(counting(seen, at), RECORDS, kept, block=3)
    assert end.value.code == 0 and seen == list(range({4: 6, 9: 10}[at]))
    assert "the same command resumes" in capsys.readouterr().err and signal.getsignal(signal.SIGTERM) is before
    rest = []
    found = count_in_blocks(counting(rest), RECORDS, kept, block=3)
    assert rest == list(range(10))[len(seen) :] and found["squares"].tolist() == [n * n for n in range(10)]


def test_a_signal_before_the_first_block_ends_before_it(tmp_path):
    kept, seen = CountFolder(tmp_path, "key", tuple(map(str, range(10)))), []
    with Interrupts(signal.SIGTERM), pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)  # while the model is loaded
        count_in_blocks(counting(seen), RECORDS, kept, block=3)
    assert seen == []


def test_where_nothing_is_kept_the_signal_is_left_alone(monkeypatch):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        assert count_in_blocks(counting([], 4), RECORDS, block=3)["squares"][3] == 9
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [1]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_after_their_block(tmp_path):
    done = launch("kit.distributed_calls.one_gets_a_signal_while_it_counts", tmp_path)
    assert done.returncode == 0 and done.stderr.count("stopped by a signal") == 2, done.stderr
    assert len(list(tmp_path.glob("images-*"))) == 4, "two blocks of two images of each process"
