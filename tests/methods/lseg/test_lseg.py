"""LSeg+: cross-entropy against loops, unlabelled pixels, inference, and its weights on disk."""

import math

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_texts, shaken, tiny_clip
from kit.images import randn
from kit.openseg import NAMES, OF_LSEG, gradients, lseg_task, make_lseg, word_batch
from kit.records import scene, toy
from ovs_lite.checkpoints import load_method, save_method
from ovs_lite.data.record import write_split
from ovs_lite.methods import get_recipe
from ovs_lite.methods.lseg.config import LSegConfig
from ovs_lite.methods.lseg.training import label_maps


@torch.no_grad()
def test_the_loss_is_the_mean_over_labelled_places():
    task, batch = lseg_task(), word_batch(2, 0, 3)
    pixels = F.normalize(task.model(batch.images), dim=1)
    losses = []
    for b, (masks, labels) in enumerate(zip(batch.masks, batch.labels, strict=True)):
        for i in range(8):
            for j in range(8):
                owners = [int(c) for mask, c in zip(masks, labels, strict=True) if mask[4 * i + 2, 4 * j + 2]]
                if owners:
                    logits = [float(pixels[b, :, i, j] @ text) / 0.07 for text in task.text]
                    losses.append(math.log(sum(map(math.exp, logits))) - logits[owners[-1]])
    assert float(task.losses(batch)["cross_entropy"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_maps_hold_the_class_at_each_centre_and_minus_one_elsewhere():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, 2:4] = True, True
    found = label_maps([masks, masks[:0]], [torch.tensor([3, 1]), torch.tensor([])], (4, 4))
    assert found.tolist() == [[[3] * 4, [1] * 4, [-1] * 4, [-1] * 4], [[-1] * 4] * 4]


def test_without_labelled_pixels_there_is_nothing_to_learn():
    task = lseg_task()
    assert task.losses(word_batch(0, 0))["cross_entropy"] == 0
    assert all((gradient == 0).all() for gradient in gradients(task, word_batch(0, 0)).values())


def test_a_few_steps_lower_the_loss():
    task, batch = lseg_task(), word_batch(3, 2)
    optimizer = torch.optim.AdamW(task.model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = task.losses(batch)["cross_entropy"]
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_scores_are_cosines_of_every_pixel():
    method, images, text = make_lseg(), randn(2, 3, 32, 64), random_texts(3, 16)
    features = method.encode(images)
    assert features.patches.shape == (2, 16, 8, 16)
    cosines = torch.einsum("bdhw,kd->bkhw", F.normalize(features.patches, dim=1), text)
    expected = F.interpolate(cosines, (32, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method.predict(images, text), expected)


def test_a_file_brings_the_sizes_and_belongs_to_the_text_tower_alone(tmp_path):
    method, path = make_lseg(channels=8), tmp_path / "lseg.safetensors"
    save_method(method, path)
    clip = tiny_clip()
    shaken(clip.network.visual)
    loaded = load_method("lseg", clip, path)
    assert loaded.config.channels == 8
    shaken(clip.network.transformer)
    with pytest.raises(ValueError, match="are not those of the given 'tiny'"):
        load_method("lseg", clip, path)


def test_a_split_of_another_vocabulary_is_refused(tmp_path):
    write_split([toy("p", scene(), {1: 0, 2: 1, 3: 99})], tmp_path / "set", progress=False)
    config = LSegConfig(data=str(tmp_path / "set"), **OF_LSEG)
    with pytest.raises(ValueError, match="got category 99, expected those of icon-coco, 0.."):
        get_recipe("lseg").build(config)
    with pytest.raises(ValueError, match="got channels=12, expected a number that 8 divides"):
        LSegConfig(channels=12)
    assert len(NAMES) == 5
