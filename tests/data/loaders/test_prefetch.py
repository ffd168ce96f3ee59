"""Preparing ahead: the same batches in the same order, one step early, on one thread beside the training."""

import threading
import time

import pytest
import torch

from ovs_lite.data.loaders.prefetch import Prefetched


def finished(ahead):
    """Wait until nothing is being prepared any more."""
    for future in ahead.ahead.values():
        future.exception()


def test_prefetching_changes_no_batch():
    asked = []

    def stream(step):
        asked.append(step)
        return f"batch {step}"

    ahead = Prefetched(stream)
    assert [ahead(step) for step in (0, 1, 2, 7, 8, 3)] == [f"batch {step}" for step in (0, 1, 2, 7, 8, 3)]
    assert asked[:4] == [0, 1, 2, 3]


def test_every_batch_of_a_run_is_prepared_once():
    asked = []
    ahead = Prefetched(asked.append)
    for step in range(20, 30):
        ahead(step)
    finished(ahead)
    assert asked == list(range(20, 31))


def test_asking_twice_gives_the_same_batch():
    ahead = Prefetched(lambda step: torch.full((3,), float(step)))
    assert all(torch.equal(ahead(step), torch.full((3,), float(step))) for step in (4, 4, 5, 5, 4))


def test_the_next_batch_is_prepared_while_this_one_trains():
    started, release = threading.Event(), threading.Event()

    def stream(step):
        if step == 1:
            started.set()
            assert release.wait(60)
        return step

    ahead = Prefetched(stream)
    assert ahead(0) == 0, "does not wait for the next one"
    assert started.wait(60), "which is begun without being asked for"
    release.set()
    assert ahead(1) == 1


def test_one_other_thread_prepares_with_one_core():
    before = torch.get_num_threads()
    seen = []

    def stream(step):
        time.sleep(0.01)  # so that the next batch is asked for before this one is there
        seen.append((threading.get_ident(), torch.get_num_threads()))

    ahead = Prefetched(stream)
    for step in range(5):
        ahead(step)
    finished(ahead)
    ((thread, cores),) = set(seen)
    assert thread != threading.get_ident() and cores == 1 and torch.get_num_threads() == before


def test_a_fault_is_raised_at_the_step_that_has_it():
    def stream(step):
        if step == 2:
            raise ValueError(f"picture of step {step} is damaged")
        return step

    ahead = Prefetched(stream)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(ValueError, match="picture of step 2 is damaged"):
        ahead(2)
    assert ahead(3) == 3


def test_no_more_than_one_batch_waits():
    ahead = Prefetched(lambda step: step)
    for step in (0, 5, 9, 1, 2):
        ahead(step)
        assert list(ahead.ahead) == [step + 1]
