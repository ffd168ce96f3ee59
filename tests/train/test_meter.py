"""What a run took: the last row of its log, counted on over a resume, and the cure for waiting."""

import json
import time

import pytest
import torch

from kit.runs import Crash, crashing
from kit.tasks import CONFIG, TinyTask
from ovs_lite.train import LoopConfig, train
from ovs_lite.train.meter import Meter, peak_bytes

CPU = torch.device("cpu")


def last_row(out):
    return json.loads((out / "log.jsonl").read_text().splitlines()[-1])


def run(out, steps=12, at=None, task=None):
    return train(task or TinyTask(), LoopConfig(**CONFIG | {"steps": steps}), out, True, crashing(at), progress=False)


def test_the_log_ends_with_what_the_run_took_and_prints_it(tmp_path, capsys):
    begun = time.perf_counter()
    run(tmp_path)
    row, longest = last_row(tmp_path), (time.perf_counter() - begun) / 3600
    names = ["step", "devices", "hours", "samples", "samples_per_s", "data_wait", "peak_memory_gb"]
    assert list(row) == names and row["step"] == 12 and row["samples"] == 12 * 16
    assert row["devices"] == f"1 x CPU ({torch.get_num_threads()} threads)"
    assert 0 <= row["hours"] <= longest + 1e-5 and 0 <= row["data_wait"] <= 1
    assert row["samples_per_s"] >= 0.9 * 192 / (longest * 3600), "counted over the loop, which is a part of the call"
    assert 0.05 < row["peak_memory_gb"] < 100
    printed = capsys.readouterr().out
    assert "192 samples" in printed and "GB peak memory" in printed and "--workers" not in printed


def test_a_resumed_run_counts_the_steps_that_it_resumed_from_and_no_lost_ones(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, at=9)  # the last checkpoint is of 8 steps
    run(tmp_path)
    assert last_row(tmp_path)["samples"] == 12 * 16
    before = (tmp_path / "log.jsonl").read_bytes()
    assert run(tmp_path) == [] and (tmp_path / "log.jsonl").read_bytes() == before, "a finished run took no more"
    with pytest.warns(UserWarning, match="steps 12 -> 13"):
        run(tmp_path, steps=13)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(13), 13] and [row["step"] for row in rows if "hours" in row] == [13]
    assert rows[-1]["samples"] == 13 * 16


class Slow(TinyTask):
    """Waits for most batches."""

    def batch(self, index):
        time.sleep(0.02)
        return super().batch(index)


def test_more_than_a_fifth_of_waiting_prints_the_cure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ovs_lite.train.meter.SHORTEST_WAIT", 0.0)
    run(tmp_path, steps=24, task=Slow())
    waited = 24 * 0.02 / (last_row(tmp_path)["hours"] * 3600)
    assert last_row(tmp_path)["data_wait"] > 0.9 * min(1.0, waited) - 0.01
    cured = "more processes that decode" in capsys.readouterr().out
    assert cured == (last_row(tmp_path)["data_wait"] > 0.2)


def test_the_cure_needs_enough_steps_and_enough_waiting():
    meter = Meter(CPU)
    row = {"devices": "1 x CPU", "hours": 1.0, "samples": 5, "samples_per_s": 1.0, "peak_memory_gb": 1.0}
    ten = 10 / 3600
    cases = [(19, 0.9, 1.0, 1), (20, 0.2, 1.0, 1), (20, 0.21, 1.0, 2), (20, 0.5, 1.9 * ten, 1), (20, 0.5, 2.1 * ten, 2)]
    for batches, share, hours, lines in cases:
        meter.batches = batches
        found = meter.lines(row | {"data_wait": share, "hours": hours})
        assert len(found) == lines and (lines == 1 or "--workers" in found[1])


def test_the_peak_grows_with_what_a_process_holds():
    before = peak_bytes(CPU)
    held = torch.ones(int(5e7) + before // 4)  # more than the peak so far
    assert peak_bytes(CPU) >= held.nbytes
