"""Contrastive pre-training: the free first steps, what is frozen stays, and each tower gets its own gradient."""

import copy

import pytest
import torch
import torch.nn.functional as F

from ovs_lite.clip import load_clip
from ovs_lite.iconworld.stream import CaptionPairStream
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.methods.clip_pretraining.training import (
    FOLLOW,
    ClipPretraining,
    TextPretraining,
    used_token_ids,
    whiten_patches,
)
from ovs_lite.train import LoopConfig, train

CAPTIONS = ["a cat", "a red boat", "two owls", "a guitar on the grass"]
ZERO = torch.tensor(0.0)


def pictures(step):
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(step)), CAPTIONS


@pytest.fixture(params=["ViT-Lite-8", "ConvNeXt-Lite"])
def clip(request):
    torch.manual_seed(0)
    return load_clip(request.param, pretrained=None)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return load_clip("ViT-Lite-8", pretrained=None)


def embeddings(clip, step):
    images, captions = pictures(step)
    with torch.no_grad():
        return clip.network.encode_image(clip.normalise(images)), clip.encode_text(captions)


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None and p.grad.abs().sum() > 0]


def test_first_dot_products_of_any_length_then_cosines(vit):
    task = ClipPretraining(vit, pictures, free_steps=2)
    assert [task.batch(step)[2] for step in (0, 1, 2, 3)] == [True, True, False, False]
    for step in (1, 2):
        images, texts = embeddings(vit, step)
        found = task.losses(task.batch(step))
        assert set(found) == set(task.weights) == {"contrastive"}
        cosines = F.normalize(images, dim=-1) @ texts.T
        expected = info_nce(images @ texts.T, ZERO) if step == 1 else info_nce(cosines, vit.logit_scale)
        torch.testing.assert_close(found["contrastive"], expected)
    assert not torch.isclose(info_nce(images @ texts.T, ZERO), info_nce(cosines, vit.logit_scale))


def test_without_free_steps_it_is_clip_from_the_start(vit):
    task = ClipPretraining(vit, pictures)
    images, texts = embeddings(vit, 0)
    expected = info_nce(F.normalize(images, dim=-1) @ texts.T, vit.logit_scale)
    torch.testing.assert_close(task.losses(task.batch(0))["contrastive"], expected)


def test_the_temperature_follows_the_mean_length_and_is_trained_afterwards(vit):
    task = ClipPretraining(vit, pictures, free_steps=1)
    length = embeddings(vit, 0)[0].norm(dim=-1).mean()
    before = vit.logit_scale.item()
    task.losses(task.batch(0))["contrastive"].backward()
    assert vit.logit_scale.item() == pytest.approx(before + FOLLOW * (length.log().item() - before), abs=1e-5)
    assert vit.logit_scale.grad is None
    with torch.no_grad():
        for _ in range(19):
            task.losses(task.batch(0))
    expected = length.log().item() + (1 - FOLLOW) ** 20 * (before - length.log().item())
    assert vit.logit_scale.item() == pytest.approx(expected, abs=1e-4)
    still = vit.logit_scale.item()
    task.losses(task.batch(1))["contrastive"].backward()
    assert vit.logit_scale.item() == still and vit.logit_scale.grad.abs() > 0


@pytest.mark.parametrize("free_steps", [0, 1])
@pytest.mark.parametrize("freeze", ["text", "image", None])
def test_gradient_reaches_the_tower_that_is_trained(vit, freeze, free_steps):
    task = ClipPretraining(vit, pictures, freeze, free_steps)
    task.losses(task.batch(0))["contrastive"].backward()
    visual, text = gradients(vit.network.visual), gradients(vit.network.text)
    assert bool(visual) == (freeze != "image") and bool(text) == (freeze != "text")
    for module, found in ((vit.network.visual, visual), (vit.network.text, text)):
        assert not found or len(found) > 0.9 * len(list(module.parameters())), "nearly every tensor learns"


@pytest.mark.parametrize("freeze", ["text", "image", None])
def test_what_is_frozen_stays_bit_by_bit_and_the_rest_moves(clip, freeze, tmp_path):
    before = copy.deepcopy(clip.network.state_dict())
    task = ClipPretraining(clip, pictures, freeze, free_steps=1)
    rows = train(task, LoopConfig(2, warmup=1, log_every=1), tmp_path, progress=False)
    assert [row["step"] for row in rows] == [0, 1]
    towers = {
        "image": {key for key in before if key.startswith("visual.")},
        "text": {key for key in before if key.startswith("text.")},
    }
    after = clip.network.state_dict()
    for tower, keys in towers.items():
        moved = [key for key in keys if not torch.equal(before[key], after[key])]
        assert (not moved) if tower == freeze else len(moved) > 0.6 * len(keys), (tower, moved)
    assert not torch.equal(before["logit_scale"], after["logit_scale"])


def test_thawing_after_freezing_trains_both(vit):
    ClipPretraining(vit, pictures, "text")
    ClipPretraining(vit, pictures, "image")
    ClipPretraining(vit, pictures, None)
    assert all(parameter.requires_grad for parameter in vit.parameters())


@pytest.mark.parametrize("freeze", ["both", "visual", True, ""])
def test_a_wrong_freeze_is_named_and_changes_nothing(vit, freeze):
    with pytest.raises(ValueError, match="freeze=.*'text', 'image' or None"):
        ClipPretraining(vit, pictures, freeze)
    assert all(parameter.requires_grad for parameter in vit.parameters())


def test_a_few_steps_on_one_batch_lower_the_loss(vit, tmp_path):
    task = ClipPretraining(vit, lambda step: pictures(0), freeze=None, free_steps=3)
    rows = train(task, LoopConfig(15, lr=1e-3, warmup=1, log_every=1), tmp_path, progress=False)
    assert rows[2]["loss"] < rows[0]["loss"] and rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert task.count(task.batch(0)) == 4


def test_text_pretraining_compares_two_captions_of_a_scene(clip):
    task = TextPretraining(clip, CaptionPairStream(8))
    first, second = task.batch(3)
    assert (first, second) == CaptionPairStream(8)(3) and task.count((first, second)) == 8
    with torch.no_grad():
        similarity = clip.encode_text(first) @ clip.encode_text(second).T
    found = task.losses((first, second))
    assert set(found) == set(task.weights) == {"text_contrastive"} and task.model is clip.network.text
    torch.testing.assert_close(found["text_contrastive"], info_nce(similarity, torch.tensor(14.0).log()))
    found["text_contrastive"].backward()
    assert gradients(clip.network.text) and not gradients(clip.network.visual) and clip.logit_scale.grad is None


def test_text_pretraining_prefers_captions_that_agree(vit):
    task = TextPretraining(vit, CaptionPairStream(8))
    same = task.losses((CAPTIONS, CAPTIONS))["text_contrastive"]
    crossed = task.losses((CAPTIONS, CAPTIONS[1:] + CAPTIONS[:1]))["text_contrastive"]
    assert same < crossed


@torch.no_grad()
def test_pictures_of_twice_the_side_are_embedded_as_a_whole(clip):
    """By the mean of the dense map where that is what the embedding is, and never by what a smaller copy shows."""
    images = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    clip.eval()
    found = ClipPretraining(clip, lambda step: (images, CAPTIONS)).losses((images, CAPTIONS, True))["contrastive"]
    normalised = clip.normalise(images)
    vit = clip.patch_size is not None
    expected = clip.dense(normalised, "last").mean((2, 3)) if vit else clip.network.encode_image(normalised)
    torch.testing.assert_close(found, info_nce(expected @ clip.encode_text(CAPTIONS).T, ZERO))


def test_a_batch_is_named_by_its_captions(vit):
    task, text = ClipPretraining(vit, pictures), TextPretraining(vit, CaptionPairStream(8))
    assert task.image_ids(task.batch(0)) == CAPTIONS and text.image_ids(text.batch(1)) == CaptionPairStream(8)(1)[0]


def test_a_batch_that_processes_cannot_share_is_refused(vit, monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.clip_pretraining.training.world_size", lambda: 3)
    task = ClipPretraining(vit, pictures)
    with pytest.raises(ValueError, match="batch of 4, expected a multiple of the 3"):
        task.losses(task.batch(0))


def test_used_token_ids_are_those_that_the_tokenizer_gives(vit):
    texts = [f"a {name} number {number}" for number in range(700) for name in ("cat", "umbrella")]
    expected = sorted({token for text in texts for token in vit.tokenizer([text])[0].tolist()})
    found = used_token_ids(vit, iter(texts))
    assert found.dtype == torch.int64 and found.tolist() == expected
    assert {0, 49406, 49407} <= set(expected), "padding, start and end count too"


def test_whitened_patches_have_no_preferred_direction(vit):
    generator = torch.Generator().manual_seed(1)
    coarse = F.interpolate(torch.rand(64, 3, 16, 16, generator=generator), scale_factor=4, mode="bilinear")
    whiten_patches(vit, coarse)
    visual = vit.network.visual
    features = visual.conv1(vit.normalise(coarse)).permute(0, 2, 3, 1).flatten(0, 2)
    values = torch.linalg.eigvalsh(features.T @ features / len(features))
    assert values[-1] < 1.05 and (values > 0.2).sum() >= 24, "the strong patterns of the pictures count alike"
    assert visual.positional_embedding[1:].std().item() == pytest.approx(0.5, rel=1e-3)
    neighbours = visual.positional_embedding[1:].view(8, 8, -1).diff(dim=1).norm(dim=-1).mean()
    assert (
        neighbours
        < visual.positional_embedding[1:].roll(27, 0).sub(visual.positional_embedding[1:]).norm(dim=-1).mean()
    )
