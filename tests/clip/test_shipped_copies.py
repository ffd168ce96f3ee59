"""A shipped CLIP is read once per process; whoever loads it again gets weights of their own."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovs_lite.clip import load
from ovs_lite.clip.lite.files import LITE_MODELS, shipped_path
from ovs_lite.clip.load import load_clip


@pytest.mark.parametrize("name", LITE_MODELS)
def test_a_copy_shares_nothing_that_changes(name):
    first, second = load_clip(name), load_clip(name)
    before = {key: value.clone() for key, value in second.state_dict().items()}
    assert not {id(part) for part in first.modules()} & {id(part) for part in second.modules()}
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    third = load_clip(name)
    assert before.keys() == third.state_dict().keys()
    for key, value in before.items():
        assert torch.equal(second.state_dict()[key], value) and torch.equal(third.state_dict()[key], value), key
    assert not third.training and all(parameter.requires_grad for parameter in third.parameters())
    strides = [parameter.stride() for parameter in load._built(name, None, shipped_path(name)).parameters()]
    assert [parameter.stride() for parameter in third.parameters()] == strides, "the same layout in memory"


@pytest.mark.parametrize("name", LITE_MODELS)
def test_fingerprints_are_those_of_the_weights_also_after_a_change(name):
    clip, read = load_clip(name), load._built(name, None, shipped_path(name))
    assert (clip.fingerprint(), clip.image_fingerprint()) == (read.fingerprint(), read.image_fingerprint())
    with torch.no_grad():
        next(iter(clip.network.visual.parameters())).mul_(2)
    assert clip.fingerprint() == read.fingerprint() and clip.image_fingerprint() != read.image_fingerprint()
    twin = clip.copied()
    assert twin.image_fingerprint() == clip.image_fingerprint() and twin.tokenizer is clip.tokenizer
    twin.network.visual = load_clip(name).network.visual  # replaced, not changed in place
    assert twin.image_fingerprint() == read.image_fingerprint() != clip.image_fingerprint()
    with torch.no_grad():
        next(iter(clip.network.text.parameters())).mul_(2)
    assert clip.fingerprint() != read.fingerprint() == twin.fingerprint() == load_clip(name).fingerprint()


def test_loading_draws_no_random_number():
    load._shipped.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_clip("ViT-Lite-8")  # read
    load_clip("ViT-Lite-8")  # copied
    assert torch.equal(torch.rand(4), expected)


def test_weights_that_were_trained_again_are_read_again(tmp_path, monkeypatch):
    path = tmp_path / "ViT-Lite-8.safetensors"
    shutil.copy(shipped_path("ViT-Lite-8"), path)
    monkeypatch.setattr(load, "shipped_path", lambda name: path)
    before = load_clip("ViT-Lite-8")
    tensors = load_file(path)
    tensors["logit_scale"] += 1
    save_file(tensors, path)  # without a digest, as a foreign file
    torch.testing.assert_close(load_clip("ViT-Lite-8").logit_scale, before.logit_scale + 1)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_clip("ViT-Lite-8")
