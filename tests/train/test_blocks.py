"""Blocks computed again or compiled: same loss and gradients, weights keep their names, no compiler is no failure."""

import copy
import warnings

import pytest
import torch
from torch import nn

from kit.tasks import TinyModel
from ovs_lite.clip import load_clip
from ovs_lite.config import LoopConfig
from ovs_lite.models.backbone import Backbone
from ovs_lite.models.query_decoder import QueryDecoder
from ovs_lite.train import blocks as blocks_module
from ovs_lite.train.blocks import blocks_of, economical


class Dropped(nn.Module):
    """A query decoder with dropout, whose random numbers must be the same in both passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = QueryDecoder(3, 8, 2, 2, 16)
        for layer in self.decoder.blocks:
            layer.feedforward.append(nn.Dropout(0.5))

    def forward(self, tokens):
        return self.decoder(tokens, torch.zeros(tokens.shape[1:]))[-1].square().mean()


def settings(**changes):
    return LoopConfig(steps=1, **changes)


def loss_and_gradients(network, config, tokens):
    """With the bytes that were kept for the backward pass."""
    network.zero_grad()
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with economical(network, config):
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(tokens)
        loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in network.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("changes", [{"recompute": True}, {"compile": "aot_eager"}], ids=str)
def test_loss_and_gradients_are_the_same(changes):
    network, tokens = Dropped(), torch.randn(2, 50, 8)
    if "compile" in changes:
        network.eval()  # a compiler may draw other random numbers
    names = list(network.state_dict())
    loss, expected, plain = loss_and_gradients(network, settings(), tokens)
    found_loss, found, kept = loss_and_gradients(network, settings(**changes), tokens)
    torch.testing.assert_close(found_loss, loss, rtol=1e-6, atol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-8, msg=name)
    assert list(network.state_dict()) == names and "forward" not in vars(network.decoder.blocks[0])
    assert "recompute" not in changes or kept < 0.7 * plain


def test_the_blocks_of_the_kit_s_networks_are_found():
    clip = load_clip()
    names = {id(module): name for name, module in clip.named_modules()}
    found = [names[id(block)] for block in blocks_of(clip)]
    image = [name for name in found if ".visual." in name]
    assert len(image) == len(clip.network.visual.transformer.resblocks) and image[0].endswith("resblocks.0")
    assert len(blocks_of(QueryDecoder(3, 8, 5, 2, 16))) == 5 and len(blocks_of(TinyModel())) == 2
    for name in ("test_convnext", "test_efficientnet"):
        assert len(blocks_of(Backbone(name))) >= 4, name
    assert blocks_of(nn.Sequential(nn.Linear(2, 2))) == []


def test_a_copy_made_inside_is_of_its_own():
    network = Dropped()
    with economical(network, settings(recompute=True)):
        other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.manual_seed(1)
    assert other(torch.ones(1, 4, 8)) == 0 and network(torch.ones(1, 4, 8)) != 0


def test_no_compiler_is_reported_and_trains_without(monkeypatch):
    def broken(function, backend):
        def call(*_):
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

        return call

    monkeypatch.setattr(blocks_module.torch, "compile", broken)
    network, tokens = Dropped().eval(), torch.randn(2, 5, 8)
    with pytest.warns(UserWarning, match="compile=inductor does not work here and is left out .*Failed to find C comp"):
        loss, *_ = loss_and_gradients(network, settings(compile="inductor"), tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(loss_and_gradients(network, settings(), tokens)[0], loss)
