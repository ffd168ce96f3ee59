"""Contrastive pre-training: what the loss compares, what is frozen stays, each tower gets its own gradient."""

import copy

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from kit.images import CAPTIONS, captioned_images
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.methods.clip_pretraining.config import ClipPretrainingConfig
from ovs_lite.methods.clip_pretraining.training import ClipPretraining, same_caption, used_token_ids
from ovs_lite.train import LoopConfig, train


@pytest.fixture(params=["ViT-Lite-8", "ConvNeXt-Lite"])
def clip(request):
    return random_clip(request.param)


@pytest.fixture
def vit():
    return random_clip()


def embeddings(clip, step):
    images, captions = captioned_images(step)
    with torch.no_grad():
        return clip.network.encode_image(clip.normalise(images)), clip.encode_text(captions)


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None and p.grad.abs().sum() > 0]


@pytest.mark.parametrize("freeze", ["text", "image", None])
def test_what_is_frozen_stays_bit_by_bit_and_the_rest_moves(clip, freeze, tmp_path):
    before = copy.deepcopy(clip.network.state_dict())
    task = ClipPretraining(clip, captioned_images, freeze)
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
    ClipPretraining(vit, captioned_images, "text")
    ClipPretraining(vit, captioned_images, "image")
    ClipPretraining(vit, captioned_images, None)
    assert all(parameter.requires_grad for parameter in vit.parameters())


@pytest.mark.parametrize("freeze", ["both", "visual", True, ""])
def test_a_wrong_freeze_is_named_and_changes_nothing(vit, freeze):
    with pytest.raises(ValueError, match="freeze=.*'text', 'image' or None"):
        ClipPretraining(vit, captioned_images, freeze)
    assert all(parameter.requires_grad for parameter in vit.parameters())


def test_a_few_steps_on_one_batch_lower_the_loss(vit, tmp_path):
    task = ClipPretraining(vit, lambda step: captioned_images(0), freeze=None)
    rows = train(task, LoopConfig(15, lr=1e-3, warmup=1, log_every=1), tmp_path, progress=False)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert task.count(task.batch(0)) == 4


def test_a_batch_that_processes_cannot_share_is_refused(vit, monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.clip_pretraining.training.world_size", lambda: 3)
    task = ClipPretraining(vit, captioned_images)
    with pytest.raises(ValueError, match="batch of 4, expected a multiple of the 3"):
        task.losses(task.batch(0))


def test_used_token_ids_are_those_that_the_tokenizer_gives(vit):
    texts = [f"a {name} number {number}" for number in range(700) for name in ("cat", "umbrella")]
    expected = sorted({token for text in texts for token in vit.tokenizer([text])[0].tolist()})
    found = used_token_ids(vit, iter(texts))
    assert found.dtype == torch.int64 and found.tolist() == expected
    assert {0, 49406, 49407} <= set(expected), "padding, start and end count too"


def test_the_loss_is_clips_over_cosines(clip):
    clip.eval()
    images, texts = embeddings(clip, 0)
    task = ClipPretraining(clip, captioned_images)
    found = task.losses(task.batch(0))
    assert set(found) == set(task.weights) == {"contrastive"} and task.count(task.batch(0)) == 4
    torch.testing.assert_close(found["contrastive"], info_nce(F.normalize(images, dim=-1) @ texts.T, clip.logit_scale))


def test_equal_captions_are_known_in_the_order_in_which_processes_gather_them(vit, monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.clip_pretraining.training.world_size", lambda: 2)
    task = ClipPretraining(vit, lambda step: (torch.zeros(4, 3, 8, 8), ["a cat", "a dog", "a cat", "an owl"]))
    assert task.batch(0)[2].nonzero().tolist() == [[0, 1], [1, 0]], "cat, cat, dog, owl: shares 0, 2 and 1, 3"


def test_equal_captions_are_no_negatives_of_each_other(vit):
    captions = ["a cat", "a dog", "a cat", "an owl"]
    expected = [[False, False, True, False], [False] * 4, [True, False, False, False], [False] * 4]
    assert same_caption(captions).tolist() == expected and not same_caption(CAPTIONS).any()
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    task = ClipPretraining(vit.eval(), lambda step: (images, captions))
    with torch.no_grad():
        cosines = F.normalize(vit.network.encode_image(vit.normalise(images)), dim=-1) @ vit.encode_text(captions).T
        logits = cosines * vit.logit_scale.exp()
        slow = 0.0
        for row in range(4):
            kept = [column for column in range(4) if column == row or captions[column] != captions[row]]
            for direction in (logits, logits.T):
                slow += (direction[row, kept].logsumexp(0) - direction[row, row]) / 8
    found = task.losses(task.batch(0))["contrastive"]
    assert found.item() == pytest.approx(slow.item(), abs=2e-3), "the pair left out keeps a vanishing share"


@pytest.mark.parametrize("freeze", ["text", "image", None])
def test_gradient_reaches_the_tower_that_is_trained(vit, freeze):
    task = ClipPretraining(vit, captioned_images, freeze)
    task.losses(task.batch(0))["contrastive"].backward()
    visual, text = gradients(vit.network.visual), gradients(vit.network.text)
    assert bool(visual) == (freeze != "image") and bool(text) == (freeze != "text")
    for module, found in ((vit.network.visual, visual), (vit.network.text, text)):
        assert not found or len(found) > 0.9 * len(list(module.parameters())), "nearly every tensor learns"


def test_a_teacher_of_whole_images_is_imitated_and_stays(vit, tmp_path):
    teacher = random_clip("ConvNeXt-Lite").requires_grad_(False)
    teacher.network.text.load_state_dict(vit.network.text.state_dict())
    before = copy.deepcopy(teacher.network.state_dict())
    task = ClipPretraining(vit.eval(), captioned_images, "text", teacher)
    batch = task.batch(0)
    found = task.losses(batch)
    images = vit.normalise(captioned_images(0)[0])
    with torch.no_grad():
        pairs = zip(vit.encode_image(images), teacher.encode_image(images), strict=True)
        distances = [1 - float(student @ wanted) for student, wanted in pairs]
    assert set(found) == set(task.weights) == {"contrastive", "imitation"}
    assert found["imitation"].item() == pytest.approx(sum(distances) / 4, abs=1e-5)
    found["imitation"].backward()
    assert gradients(vit.network.visual) and not gradients(teacher)
    train(task, LoopConfig(2, warmup=1, log_every=1), tmp_path, progress=False)
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())


def test_a_perfect_pupil_has_nothing_to_imitate(clip):
    task = ClipPretraining(clip.eval(), captioned_images, "text", copy.deepcopy(clip).requires_grad_(False))
    assert task.losses(task.batch(0))["imitation"].item() == pytest.approx(0, abs=1e-6)


def test_a_models_own_recipe_is_what_is_not_given():
    vit = ClipPretrainingConfig(model="ViT-Lite-8").resolved()
    assert (vit.initial, vit.text, vit.curriculum) == ("random", "ConvNeXt-Lite", "scenes")
    assert (vit.teacher, vit.freeze) == ("ConvNeXt-Lite", "text")
    conv = ClipPretrainingConfig(model="ConvNeXt-Lite").resolved()
    assert (conv.initial, conv.text, conv.curriculum) == ("lite", "", "objects")
    assert (conv.teacher, conv.freeze) == ("", "")
    given = ClipPretrainingConfig(model="ViT-Lite-8", initial="file", curriculum="objects").resolved()
    assert (given.initial, given.text, given.curriculum) == ("file", "", "objects")
    for wrong in ({"model": "text"}, {"curriculum": "polish"}, {"text": "some.file"}, {"batch": 0}):
        with pytest.raises(ValueError, match="got "):
            ClipPretrainingConfig(**wrong)
    for wrong in ({"teacher": "x"}, {"styles": ("noto", "x")}, {"styles": ()}):
        with pytest.raises(ValueError, match="got "):
            ClipPretrainingConfig(**wrong)
