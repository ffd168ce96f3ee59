"""The released mask-adapted CLIP: what it computes from a file, and the files that are refused."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from kit.clips import random_clip
from kit.images import normal_images
from kit.oracles import released_ovseg as released
from kit.oracles.released_files import SIDE, open_clip_model
from kit.oracles.released_tcl import random_released
from ovs_lite.checkpoints import load_official_ovseg_clip
from ovs_lite.clip import Clip, wrap_clip

IMAGES = normal_images(SIDE, SIDE, batch=5)


def some_masks(seed=0):
    """Five masks: a box, one pixel, all, nothing, and noise."""
    masks = torch.zeros(5, SIDE, SIDE)
    masks[0, 3:19, 5:30], masks[1, 17, 8], masks[2] = 1, 1, 1
    masks[4] = (torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) > 0.97).float()
    return masks


def written(tensors, path, wrap=lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}, "epoch": 5}):
    torch.save(wrap(tensors), path)
    return path


def underneath(quick):
    """An open_clip model of the file's sizes with other weights."""
    network = open_clip_model(random_released(layers=released.BLOCKS, seed=9))
    if not quick:
        for block in network.visual.transformer.resblocks:
            block.mlp.gelu = torch.nn.GELU()
    return network


@pytest.mark.filterwarnings("ignore:.*QuickGELU")
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "gelu"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_output_and_gradient_are_those_of_the_released_code(depth, quick, tmp_path):
    tensors, masks = released.random_file(depth), some_masks()
    given = None if quick and depth == 2 else underneath(quick)
    model = load_official_ovseg_clip(written(tensors, tmp_path / "file.pt"), depth, given)
    assert isinstance(model, Clip) and not model.training and model.depth == depth
    leaf = tensors["visual.mask_embedding"].clone().requires_grad_(True)
    expected = F.normalize(released.encode(tensors | {"visual.mask_embedding": leaf}, IMAGES, masks, quick), dim=1)
    found = model.encode_masked(IMAGES, masks)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(model.mask_embedding.grad, leaf.grad, atol=2e-5, rtol=1e-4)
    assert all((leaf.grad[layer].abs().sum() > 0) for layer in range(depth))
    other = released.encode(tensors, IMAGES, masks, not quick)
    assert (F.normalize(other, dim=1) - expected).abs().max() > 1e-4, "the two GELUs differ by more than the limit"


@torch.no_grad()
def test_a_tower_that_the_file_holds_replaces_the_given_one(tmp_path):
    tensors, given = released.random_file(1), underneath(quick=True)
    image_only = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    prompts_only = {"visual.mask_embedding": tensors["visual.mask_embedding"]}
    words = open_clip.SimpleTokenizer(context_length=given.context_length)(["a cat"])
    own_text, file_text = given.encode_text(words), underneath(True)
    file_text.load_state_dict({key: value for key, value in tensors.items() if key != "visual.mask_embedding"})
    for held, text in ((image_only, own_text), (tensors, file_text.encode_text(words))):
        model = load_official_ovseg_clip(written(held, tmp_path / "file.pt"), 1, given)
        found = model.encode_masked(IMAGES, some_masks())
        torch.testing.assert_close(found, F.normalize(released.encode(tensors, IMAGES, some_masks()), dim=1))
        torch.testing.assert_close(model.network.encode_text(words), text)
    model = load_official_ovseg_clip(written(prompts_only, tmp_path / "file.pt"), 1, given)
    expected = released.encode(given.state_dict() | prompts_only, IMAGES, some_masks())
    torch.testing.assert_close(model.encode_masked(IMAGES, some_masks()), F.normalize(expected, dim=1))
    assert torch.equal(given.encode_text(words), own_text), "the given model stays as it was"


@torch.no_grad()
def test_all_layouts_say_the_same(tmp_path):
    tensors = released.random_file(3)
    whole = {f"clip_adapter.clip_model.{key}": value for key, value in tensors.items()}
    whole |= {"backbone.conv1.weight": torch.zeros(1), "clip_adapter.non_object_embedding": torch.zeros(1, 32)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "file.safetensors")
    paths = [
        written(tensors, tmp_path / "a.pt"), written(tensors, tmp_path / "b.pt", dict),
        written(whole, tmp_path / "c.pt", lambda t: {"model": t, "iteration": 1}), tmp_path / "file.safetensors",
        written(tensors | {"context_length": torch.tensor(16)}, tmp_path / "d.pt", dict),
    ]  # fmt: skip
    found = [load_official_ovseg_clip(path, 3).encode_masked(IMAGES, some_masks()) for path in paths]
    assert all(torch.equal(found[0], other) for other in found[1:])
    halves = {key: value.half() for key, value in tensors.items()}
    model = load_official_ovseg_clip(written(halves, tmp_path / "half.pt"), 3)
    assert model.mask_embedding.dtype == torch.float32 and model.network.visual.proj.dtype == torch.float32


def test_a_name_is_built_with_quick_gelu_and_a_text_tower_is_never_left_random(tmp_path):
    vision = {"layers": released.BLOCKS, "width": 64, "head_width": 64, "patch_size": 8, "image_size": SIDE}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    (tmp_path / "ovs-test-tiny.json").write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "ovs-test-tiny.json")
    tensors, masks = released.random_file(2), some_masks()
    model = load_official_ovseg_clip(written(tensors, tmp_path / "file.pt"), 2, "ovs-test-tiny")
    with torch.no_grad():
        expected = F.normalize(released.encode(tensors, IMAGES, masks), dim=1)
        torch.testing.assert_close(model.encode_masked(IMAGES, masks), expected, atol=2e-5, rtol=0)
    image_only = {key: value for key, value in tensors.items() if key.startswith(("visual.", "logit_scale"))}
    with pytest.raises(FileNotFoundError, match="openai"):  # fetched, and this model has none
        load_official_ovseg_clip(written(image_only, tmp_path / "file.pt"), 2, "ovs-test-tiny")


def test_a_mini_clip_of_the_kit_can_carry_prompts_too(tmp_path):
    clip = random_clip()
    prompts = torch.randn(2, 64, clip.network.visual.conv1.out_channels)
    with pytest.warns(UserWarning, match="ViT-Lite-8 has GELU"):
        model = load_official_ovseg_clip(written({"visual.mask_embedding": prompts}, tmp_path / "file.pt"), 2, clip)
    assert torch.equal(model.mask_embedding, prompts) and model.name == "ViT-Lite-8"


@pytest.mark.parametrize(
    ("change", "depth", "message"),
    [
        (lambda t: t.pop("visual.mask_embedding"), 3, r"missing visual.mask_embedding, .*load_clip\(name, path\)"),
        (lambda t: t, 1, r"mask_embedding \(3, 16, 64\), expected mask_prompt_depth=1 layers"),
        (lambda t: t, 0, r"expected mask_prompt_depth=0 layers"),
        (lambda t: t.update({"visual.mask_embedding": torch.zeros(3, 9, 64)}), 3, r"of another shape .*\(3, 16, 64\)"),
        (lambda t: t.pop("visual.ln_post.bias"), 3, r"missing \['visual.ln_post.bias'\]"),
        (lambda t: t.pop("text_projection"), 3, r"missing \['text_projection'\]"),
        (lambda t: t.update({"visual.prompts": torch.zeros(1)}), 3, r"unexpected \['visual.prompts'\]"),
        (lambda t: t.update({"visual.ln_post.bias": torch.zeros(9)}), 3, r"visual.ln_post.bias \(9,\) for \(64,\)"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(change, depth, message, tmp_path):
    tensors = released.random_file(3)
    change(tensors)
    with pytest.raises(ValueError, match=message) as raised:
        load_official_ovseg_clip(written(tensors, tmp_path / "file.pt"), depth, underneath(quick=True))
    assert str(tmp_path / "file.pt") in str(raised.value)


def test_without_a_clip_the_file_must_hold_both_towers(tmp_path):
    tensors = released.random_file(1)
    image_only = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    with pytest.raises(ValueError, match="give the CLIP underneath as clip="):
        load_official_ovseg_clip(written(image_only, tmp_path / "file.pt"), 1)
    with pytest.raises(FileNotFoundError):
        load_official_ovseg_clip(tmp_path / "none.pt", 1)
    wrapped = wrap_clip(underneath(quick=True), "mine")
    assert load_official_ovseg_clip(tmp_path / "file.pt", 1, wrapped).name == "mine"
