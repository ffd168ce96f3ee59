"""The mask proposer on disk: the same answers bit by bit, damaged and foreign files by name, and what a new one is."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kit.images import noise
from kit.proposers import KINDS, TINY, make_proposer
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import shipped_path
from ovs_lite.methods import proposer as module
from ovs_lite.methods.proposer import ProposalConfig, load_proposer
from ovs_lite.models.backbone import Backbone


@pytest.mark.parametrize("recipe", KINDS)
def test_a_saved_proposer_loads_with_the_same_answers_bit_by_bit(recipe, tmp_path, monkeypatch):
    proposer = make_proposer(recipe, seed=3)
    proposer.train().save(tmp_path / "deep" / "p.safetensors")
    monkeypatch.setattr(module, "load_clip", None)  # the file alone must do
    torch.manual_seed(4)
    loaded = load_proposer(str(tmp_path / "deep" / "p.safetensors"))
    assert (loaded.recipe, loaded.config, loaded.training) == (recipe, proposer.config, False)
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        (masks, objectness), (others, another) = loaded(images), proposer.eval()(images)
    assert torch.equal(masks, others) and (objectness is None) == (recipe == "openseg-proposals")
    assert another is None if objectness is None else torch.equal(objectness, another)
    assert torch.equal(loaded.propose(noise(70, 30), 4), proposer.propose(noise(70, 30), 4))


def test_weights_that_came_from_a_download_load_without_one(tmp_path, monkeypatch):
    starting = []

    def backbone(name, pretrained, *sizes):
        starting.append(pretrained)
        return Backbone(name, False, *sizes)

    monkeypatch.setattr(module, "Backbone", backbone)
    make_proposer("openseg-proposals", backbone_pretrained=True).save(tmp_path / "p.safetensors")
    assert load_proposer(tmp_path / "p.safetensors").config.backbone_pretrained and starting == [True, False]


def change(path, drop=(), **about):
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys() if name not in drop}
        save_file(tensors, path, stored.metadata() | about)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "no safetensors": lambda path: path.write_text("proposals"),
    "a CLIP": lambda path: path.write_bytes(shipped_path("ViT-Lite-8").read_bytes()),
    "other recipe": lambda path: change(path, recipe="mask2former"),
    "recipe without proposals": lambda path: change(path, recipe="tcl"),
    "classless": lambda path: change(path, recipe="maskformer"),
    "not JSON": lambda path: change(path, config="{"),
    "no mapping": lambda path: change(path, config="[]"),
    "unknown key": lambda path: change(path, config=json.dumps(asdict(ProposalConfig(**TINY)) | {"colour": 1})),
    "other size": lambda path: change(path, config=json.dumps(asdict(ProposalConfig(**TINY)) | {"channels": 32})),
    "no classes": lambda path: (make_proposer("maskformer").save(path), change(path, drop=["classes"])),
    "lost weight": lambda path: change(path, drop=["network.to_mask.bias"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_named(damage, tmp_path):
    path = tmp_path / "p.safetensors"
    make_proposer("openseg-proposals").save(path)
    DAMAGES[damage](path)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")):
        load_proposer(path)


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    path = tmp_path / "none.safetensors"
    with pytest.raises(FileNotFoundError, match=f"{path}: .*ovs-lite train openseg-proposals"):
        load_proposer(path)
    with pytest.raises(ValueError, match=f"{tmp_path}: a folder; give the file of weights in it"):
        load_proposer(tmp_path)


def test_a_crash_while_saving_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    make_proposer("openseg-proposals").save(path)
    before = path.read_bytes()

    def half(tensors, file, metadata):
        file.write_bytes(before[: len(before) // 2])
        raise OSError("disk full")

    monkeypatch.setattr("ovs_lite.tensors.save_file", half)
    for target in (path, tmp_path / "new.safetensors"):
        with pytest.raises(OSError, match="disk full"):
            make_proposer("openseg-proposals", seed=1).save(target)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


@pytest.mark.parametrize("recipe", KINDS)
def test_a_new_proposer_starts_from_the_shipped_clips_image_tower(recipe):
    clip = load_clip("ConvNeXt-Lite")
    trunk = clip.network.visual.trunk.state_dict()
    for fresh in (True, False):
        proposer = make_proposer(recipe, fresh=fresh, backbone="convnext_lite")
        network = proposer.network.features if recipe == "openseg-proposals" else proposer.network
        found = network.backbone.network.model.state_dict()
        assert all(torch.equal(value, trunk[name]) for name, value in found.items()) == fresh
    assert torch.equal(proposer.mean, clip.mean) and torch.equal(proposer.std, clip.std)


def test_another_backbone_starts_without_a_clip(monkeypatch):
    monkeypatch.setattr(module, "load_clip", None)
    assert make_proposer("openseg-proposals").config.backbone == TINY["backbone"]
