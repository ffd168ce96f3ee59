"""Backbones: four maps that cover the image at any size, the network's own numbers, and statistics that stay."""

import copy
import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file

from kit.images import normal_images
from ovs_lite.clip import load_clip
from ovs_lite.clip.missing_weights import missing_backbone
from ovs_lite.methods.registry import get_recipe
from ovs_lite.models.backbone import STRIDES, Backbone

SIDES = [(64, 64), (64, 96), (33, 65), (31, 100), (17, 4), (3, 5), (1, 1)]
CHANNELS = {"convnext_lite": [32, 64, 128, 256], "resnet18": [64, 128, 256, 512]}

CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # maps reach values of 10; kernels differ with the memory's alignment


def statistics(module):
    return {name: value.clone() for name, value in module.named_buffers()}


@pytest.fixture(scope="module")
def trunk():
    return load_clip("ConvNeXt-Lite").network.visual.trunk


@pytest.fixture(scope="module", params=sorted(CHANNELS))
def backbone(request):
    torch.manual_seed(0)
    return Backbone(request.param).eval()


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(0)
    return Backbone("swin_tiny_patch4_window7_224", image_size=64).eval()


def check_maps(backbone, channels, height, width):
    with torch.no_grad():
        maps = backbone(normal_images(height, width))
    assert backbone.channels == channels
    for level, count, stride in zip(maps, channels, STRIDES, strict=True):
        assert level.shape == (2, count, *(math.ceil(side / 32) * 32 // stride for side in (height, width)))
        assert level.isfinite().all()


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_maps_cover_images_of_any_size(backbone, height, width):
    name = "resnet18" if backbone.channels[0] == 64 else "convnext_lite"
    check_maps(backbone, CHANNELS[name], height, width)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 40), (3, 5)])
def test_swin_takes_other_sizes_than_its_own(swin, height, width):
    check_maps(swin, [96, 192, 384, 768], height, width)


def test_maps_are_those_of_the_plain_network():
    """Against timm's other way to read features, whose maps are outputs of modules caught by name."""
    torch.manual_seed(0)
    found = Backbone("resnet18").eval()
    plain = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    plain.load_state_dict(found.network.model.state_dict(), strict=False)
    with torch.no_grad():
        maps, expected = found(normal_images(64, 96)), plain(normal_images(64, 96))
    assert len(maps) == len(expected) == 4
    for level, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(level, wanted, **CLOSE)


@pytest.mark.parametrize(("height", "width"), [(33, 65), (3, 5), (63, 32)])
def test_odd_sides_are_filled_with_the_mean_colour_at_the_right_and_bottom(backbone, height, width):
    picture = normal_images(height, width)
    whole = torch.zeros(2, 3, math.ceil(height / 32) * 32, math.ceil(width / 32) * 32)
    whole[..., :height, :width] = picture
    with torch.no_grad():
        for level, filled in zip(backbone(picture), backbone(whole), strict=True):
            torch.testing.assert_close(level, filled, **CLOSE)


def test_a_picture_does_not_see_its_neighbours_in_the_batch(backbone):
    batch = normal_images(48, 33, batch=3)
    with torch.no_grad():
        for together, alone in zip(backbone(batch), backbone(batch[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone, **CLOSE)


def test_a_clips_trunk_keeps_its_numbers(trunk):
    backbone = Backbone("convnext_lite", trunk=trunk).eval()
    with torch.no_grad():
        found = backbone(normal_images(64, 96))[-1]
        torch.testing.assert_close(found, trunk.forward_features(normal_images(64, 96)), **CLOSE)
        assert not torch.allclose(found, Backbone("convnext_lite").eval()(normal_images(64, 96))[-1])


def test_the_trunk_is_copied_and_not_shared(trunk):
    before = copy.deepcopy(trunk.state_dict())
    backbone = Backbone("convnext_lite", trunk=trunk)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[key], value) for key, value in trunk.state_dict().items())
    assert trunk.training is False


@pytest.mark.parametrize(("given", "part"), [("test_resnet", "without bn1"), ("resnet34", "with layer1.2")])
def test_another_networks_trunk_is_refused_by_name(given, part):
    """A deeper network of the same widths has every weight that is looked for, and must not pass for that."""
    with pytest.raises(ValueError, match=f"got a trunk {part}.*'resnet18', expected the same network"):
        Backbone("resnet18", trunk=timm.create_model(given))


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_efficientnet"])
def test_a_trunk_may_still_have_its_classifier(name):
    trunk = timm.create_model(name, num_classes=7)
    copied = Backbone(name, trunk=trunk).network.model.state_dict()
    assert copied and all(torch.equal(value, trunk.state_dict()[key]) for key, value in copied.items())


def test_it_knows_how_its_images_were_normalised():
    clip, imagenet = load_clip("ConvNeXt-Lite"), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = [tuple(channel.flatten().tolist()) for channel in (clip.mean, clip.std)]
    found = Backbone("convnext_lite")
    torch.testing.assert_close([found.mean, found.std], expected)
    found = Backbone("resnet18")
    assert (found.mean, found.std) == imagenet


@pytest.mark.parametrize("name", ["resnet_eighteen", "", "ConvNeXt-Lite"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="expected a name of timm.list_models") as error:
        Backbone(name)
    assert repr(name) in str(error.value)


def test_a_network_without_a_pyramid_is_refused_with_its_strides():
    with pytest.raises(ValueError, match=r"'test_vit' with strides \[16, 16, 16\], expected \(4, 8, 16, 32\)"):
        Backbone("test_vit")


@pytest.mark.parametrize("fresh", [True, False])
def test_batch_statistics_stay_while_training(trunk, fresh):
    backbone = Backbone("convnext_lite", trunk=trunk)
    backbone = backbone if fresh else torch.nn.Sequential(backbone).eval().train()[0]
    assert backbone.training
    before = statistics(backbone)
    found = backbone(3 + 2 * normal_images(64, 64))[-1]
    assert all(torch.equal(before[name], value) for name, value in statistics(backbone).items())
    with torch.no_grad():
        torch.testing.assert_close(found, backbone.eval()(3 + 2 * normal_images(64, 64))[-1], **CLOSE)


def test_every_weight_learns_in_training_mode(trunk):
    learner = Backbone("convnext_lite", trunk=trunk)
    sum(level.square().mean() for level in learner(normal_images(40, 64))).backward()
    assert [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_next_mode_still_reaches_everything_but_batch_normalisation(backbone):
    learner = copy.deepcopy(backbone).train()
    norms = [m for m in learner.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    others = [m for m in learner.modules() if not isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(not norm.training for norm in norms)
    assert any(isinstance(m, torch.nn.Conv2d) and m.training for m in others)
    assert not any(m.training for m in learner.eval().modules())


def test_gradients_reach_the_pixels_of_an_odd_picture(backbone):
    picture = normal_images(35, 5).requires_grad_()
    F.relu(backbone(picture)[0]).sum().backward()
    assert picture.grad.shape == picture.shape and picture.grad.isfinite().all() and picture.grad.abs().sum() > 0


def test_without_a_network_it_says_where_timms_weights_go(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="resnet18: its weights are not on this machine") as error:
        Backbone("resnet18", pretrained=True)
    said = str(error.value)
    assert "`hf download timm/resnet18.a1_in1k model.safetensors`" in said
    folder = Path(said.split("that it made to ")[1].split(" and set")[0])
    assert folder == tmp_path / "models--timm--resnet18.a1_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    given = timm.create_model("resnet18")
    save_file(given.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    found = Backbone("resnet18", pretrained=True).network.model
    torch.testing.assert_close(found.conv1.weight, given.conv1.weight)


@pytest.mark.parametrize("name", ["openseg", "maskformer", "uniovseg-masks"])
def test_the_backbones_of_the_papers_have_a_place_on_the_hub(name):
    backbone = get_recipe(name).presets["paper"].backbone
    assert f"`hf download timm/{backbone} model.safetensors`" in missing_backbone(backbone)
