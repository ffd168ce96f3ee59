"""MaskFormer's training starts from another run's weights, where they fit."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from kit.proposers import TINY
from ovs_lite.data.record import write_split
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.training import build


@pytest.fixture
def config(tmp_path):
    scenes = islice(iter_records(icon_sets("icon-coco")[0], 3, 64, seed=5), 3)
    write_split(scenes, tmp_path / "scenes", progress=False)
    return MaskFormerConfig(data=str(tmp_path / "scenes"), batch=2, **TINY)


def test_weights_of_another_run_are_where_training_starts(tmp_path, config):
    torch.manual_seed(1)
    before = build(config).proposer
    before.save(tmp_path / "before.safetensors")
    torch.manual_seed(2)
    fresh, task = build(config), build(replace(config, start=str(tmp_path / "before.safetensors")))
    for name, value in before.state_dict().items():
        assert torch.equal(task.proposer.state_dict()[name], value), name
    assert not torch.equal(fresh.proposer.network.decoder.queries, before.network.decoder.queries)
    assert len(task.found["start"]) == 64 and "start" not in fresh.found


def test_weights_of_another_size_are_refused_by_name(tmp_path, config):
    build(replace(config, channels=8)).proposer.save(tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"small.safetensors: missing .*of another shape .*\(24, 8\) for \(48, 16\)"):
        build(replace(config, start=str(tmp_path / "small.safetensors")))
