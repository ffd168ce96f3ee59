"""Places of a batch: every record once per epoch, the processes' shares disjoint and together everything."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kit.ranks import as_process
from ovs_lite.data.loaders.places import Places


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16])
def test_every_record_comes_once_per_epoch_in_another_order(batch_size):
    """Also where a batch reaches over the end of an epoch, or is larger than the data set."""
    places = Places(7, batch_size, seed=1)
    found = [place for index in range(-(-35 // batch_size)) for place in places(index)][:35]
    assert [(epoch, number) for epoch, number, _ in found] == [divmod(place, 7) for place in range(35)]
    epochs = [tuple(row for _, _, row in found[start : start + 7]) for start in range(0, 35, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and len(set(epochs)) == 5


def test_an_index_gives_the_same_places_in_any_order_of_asking_and_in_threads():
    expected = [Places(7, 3, seed=4)(index) for index in range(20)]
    asked = [5, 0, 19, 3, 3, 1, 12] * 20
    places = Places(7, 3, seed=4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(places, asked)) == [expected[index] for index in asked]
    assert all(isinstance(row, int) for _, _, row in expected[0])


def test_the_seed_and_the_number_of_records_decide_the_order():
    first = [tuple(row for _, _, row in Places(9, 9, seed)(0)) for seed in range(5)]
    assert len(set(first)) == 5
    assert first[0] == tuple(np.random.default_rng((0, 0, 9)).permutation(9)), "so that runs of older versions resume"


@pytest.mark.parametrize("count", [2, 4])
def test_the_processes_shares_are_disjoint_and_together_everything(monkeypatch, count):
    whole = {index: Places(10, 8, seed=3)(index) for index in (0, 1, 5)}
    for index, expected in whole.items():
        shares = []
        for rank in range(count):
            as_process(monkeypatch, rank, count)
            shares.append(Places(10, 8, seed=3)(index))
            assert shares[-1] == expected[rank::count]
        assert sorted(place for share in shares for place in share) == sorted(expected)
        monkeypatch.undo()


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    places = Places(5, 4, seed=0)
    as_process(monkeypatch, 0, 3)
    with pytest.raises(ValueError, match="got batch_size=4, expected a multiple of the 3 processes"):
        places(0)


def test_another_order_is_asked_for_once_per_epoch():
    asked = []

    def order(seed, epoch):
        asked.append((seed, epoch))
        return np.roll(np.arange(4), seed + epoch)

    places = Places(4, 2, 1, order)
    assert [row for index in range(4) for _, _, row in places(index)] == [3, 0, 1, 2, 2, 3, 0, 1]
    assert asked == [(1, 0), (1, 1)]
