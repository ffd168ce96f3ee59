"""Evaluations at once: the results and the order of one after another, no number that depends on it, errors kept."""

import threading
import time

import pytest
import torch

from ovs_lite import notebook
from ovs_lite.clip import load_clip
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods import get_method
from ovs_lite.notebook.threads import each


@pytest.fixture
def threads():
    """Sets how many torch has, and how many it had before is so again."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_two_meet_each_with_one_thread_and_come_in_their_order(threads):
    threads(2)
    barrier = threading.Barrier(2, timeout=60)

    def meets(item):
        barrier.wait()
        time.sleep(0.1 * (item == 0))  # the first ends last
        return item, torch.get_num_threads()

    assert list(each(meets, range(4))) == [(item, (item, 1)) for item in range(4)]
    assert torch.get_num_threads() == 2


def test_with_one_thread_it_goes_one_after_another(threads):
    threads(1)
    here = threading.get_ident()
    assert list(each(lambda item: threading.get_ident(), "ab")) == [("a", here), ("b", here)]
    assert list(each(str, [])) == []


def test_after_the_first_error_none_is_started(threads):
    threads(2)
    started = []

    def fails(item):
        started.append(item)
        if item == 0:
            raise ValueError("no")
        time.sleep(0.5)

    with pytest.raises(ValueError, match="no"):
        list(each(fails, range(50)))
    assert len(started) < 6 and torch.get_num_threads() == 2


def test_scores_do_not_depend_on_it(threads):
    vocabulary, method = load_vocabulary("icon-voc20"), get_method("maskclip", load_clip("ViT-Lite-8"))
    scenes = [list(iter_records(icon_sets("icon-voc20")[-1], 3, 64, seed=seed)) for seed in range(4)]

    def counted(number):
        return evaluate_segmentation(method, scenes[number], vocabulary).per_image

    threads(1)
    alone = {number: counted(number) for number in range(4)}
    threads(2)
    for number, found in notebook.at_once(counted, range(4), "naming"):
        assert (found == alone[number]).all() and found.sum() > 0
