"""Calls between processes: trivial with one process, and two processes of 8 equal one of 16."""

import pytest
import torch

from kit.distributed_calls import gradients, mask_batches
from kit.processes import launch, launch_by_torch, load
from kit.tasks import CONFIG, TinyContrast
from ovs_lite import distributed
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.train import LoopConfig, train


def test_a_process_has_the_gpu_of_its_number_on_its_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.own_device() == distributed.group_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.own_device() == torch.device("cuda:0")
    for number, expected in ((0, 0), (1, 1), (3, 1)):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert distributed.own_device() == torch.device("cuda", expected)


def test_without_a_process_group_everything_is_trivial():
    tensor = torch.randn(3, 2, requires_grad=True)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather_with_gradient(tensor) is tensor
    total = distributed.reduce_sum(tensor)
    assert torch.equal(total, tensor) and not total.requires_grad and total.data_ptr() != tensor.data_ptr()
    assert distributed.total_count(7, tensor.device) == 7
    assert distributed.any_process(True, torch.device("cpu")) and not distributed.any_process(False, tensor.device)
    assert distributed.gather_rows(tensor, tensor.device) is tensor and distributed.start_process_group() == 0
    distributed.barrier()
    tensor.grad = torch.ones_like(tensor)
    distributed.average_gradients([tensor])
    distributed.broadcast([tensor])
    assert torch.equal(tensor.grad, torch.ones(3, 2))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [0, 1, 7, 8])
def test_shards_are_disjoint_and_complete(count, length):
    shards = [distributed.shard(range(length), index, count) for index in range(count)]
    assert sorted(item for part in shards for item in part) == list(range(length))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    done = launch("kit.distributed_calls.every_call", out)
    assert done.returncode == 0, done.stderr
    return load(out)


@pytest.mark.slow
def test_two_processes_sum_share_and_copy(ranks):
    for number, found in enumerate(ranks):
        assert found["world_size"] == 2 and found["is_main"] == (number == 0)
        assert found["sum"] == [2, 5] and found["total"] == 7 and found["any"] == [True, False]
        assert found["rows"] == [[6, 6], [6, 6]] and found["no_rows"] == [0, 3], "process 0 has none"
        assert found["shard"] == list(range(7))[number::2]
        assert found["one_sided"] == [2.0, 1.0], "a gradient that one process lacks counts as zero there"
        assert found["copied"] == [0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory):
    """Torch's own launcher and its store: groups one after the other, then a training that one process stops."""
    out = tmp_path_factory.mktemp("launched")
    return out, launch_by_torch("kit.distributed_calls.groups_then_a_signal", out)


@pytest.mark.slow
def test_processes_join_again_after_they_have_left(by_torch):
    out, done = by_torch
    assert done.returncode == 0, done.stderr
    assert [found.tolist() for found in load(out)] == [[3.0, 3.0, 3.0]] * 2


@pytest.mark.slow
def test_the_shares_of_a_mask_batch_are_disjoint_and_together_everything(ranks):
    for number, whole in enumerate(mask_batches()):
        shares = [found["mask_batches"][number] for found in ranks]
        for rank, share in enumerate(shares):
            assert share["total"] == whole["total"] == 6 and share["image_ids"] == whole["image_ids"][rank::2]
            assert torch.equal(share["images"], whole["images"][rank::2])
            for name in ("masks", "labels"):
                pairs = zip(share[name], whole[name][rank::2], strict=True)
                assert all(torch.equal(part, expected) for part, expected in pairs)
        assert sorted(shares[0]["image_ids"] + shares[1]["image_ids"]) == sorted(whole["image_ids"])


@pytest.mark.slow
def test_gather_keeps_rank_order_and_its_gradient_comes_from_every_process(ranks):
    for found in ranks:
        assert found["gathered"] == [[1.0, 1.0], [2.0, 2.0]]
    assert ranks[0]["row_gradient"] == [[3.0, 6.0]], "1 x from process 0 plus 2 x from process 1"
    assert ranks[1]["row_gradient"] == [[9.0, 12.0]]


@pytest.mark.slow
def test_two_processes_of_8_have_the_gradient_of_one_of_16(ranks):
    whole = gradients(TinyContrast())
    assert whole["logit_scale"].abs() > 1e-4 and whole["a.weight"].abs().max() > 1e-4
    for found in ranks:
        assert found["contrast"].keys() == whole.keys()
        for name, expected in whole.items():
            if expected is None:
                assert found["contrast"][name] is None, f"{name} is used nowhere, so it must not get a gradient"
            else:
                torch.testing.assert_close(found["contrast"][name], expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
def test_the_loop_trains_the_same_weights_in_two_processes(tmp_path):
    done = launch("kit.distributed_calls.contrast", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    train(TinyContrast(), LoopConfig(**CONFIG), tmp_path / "one", progress=False)
    one, two = (load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints")) for name in ("one", "two"))
    assert one.step == two.step == CONFIG["steps"]
    assert [found.notes["settings"]["machine"]["processes"] for found in (one, two)] == [1, 2]
    for name, expected in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], expected, rtol=1e-6, atol=1e-8, msg=name)
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == CONFIG["steps"] + 1, "one process logs"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_with_a_checkpoint(by_torch):
    """And the launcher takes it for an orderly end."""
    out, done = by_torch
    assert done.returncode == 0 and done.stderr.count("stopped by a signal after 6 steps") == 2, done.stderr
    assert load_checkpoint(latest_checkpoint(out / "checkpoints")).step == 6
