"""Pre-training with a teacher: its own term against a loop over cells, who is trained by it, and who never changes."""

import copy

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip
from kit.images import captioned_images
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import SHIPPED
from ovs_lite.methods.clip_pretraining.training import DISTILLATION, ClipPretraining
from ovs_lite.train import LoopConfig, train


def moved(module):
    return any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.fixture
def vit():
    return random_clip()


@pytest.fixture
def teacher():
    return random_clip("ConvNeXt-Lite", seed=1).requires_grad_(False)


def test_only_a_teacher_brings_a_term_of_its_own(vit, teacher):
    assert ClipPretraining(vit, captioned_images).weights == {"contrastive": 1.0}
    task = ClipPretraining(vit, captioned_images, teacher=teacher)
    assert task.weights == {"contrastive": 1.0, "distillation": DISTILLATION} and DISTILLATION > 0
    found, alone = (t.losses(t.batch(0)) for t in (task, ClipPretraining(vit, captioned_images)))
    assert set(found) == set(task.weights) and set(alone) == {"contrastive"}
    torch.testing.assert_close(found["contrastive"], alone["contrastive"])


@torch.no_grad()
@pytest.mark.parametrize("free_steps", [0, 1])
def test_the_distance_is_one_minus_the_mean_cosine_of_the_teachers_cells(vit, teacher, free_steps):
    task = ClipPretraining(vit, captioned_images, free_steps=free_steps, teacher=teacher)
    images = vit.normalise(captioned_images(0)[0])
    wanted, fine = teacher.dense(images, "last"), vit.dense(images, "last")
    rows, columns = wanted.shape[-2:]
    assert fine.shape[-2] % rows == 0 and fine.shape[-2] > rows > 1, "a coarser map of the same picture"
    cosines, side = [], fine.shape[-1] // columns
    for b in range(4):
        for y in range(rows):
            for x in range(columns):
                mine = fine[b, :, y * side : (y + 1) * side, x * side : (x + 1) * side].mean((1, 2))
                cosines.append(float(F.cosine_similarity(mine, wanted[b, :, y, x], dim=0)))
    found = float(task.losses(task.batch(0))["distillation"])
    assert found == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5) and 0 < found < 2


@torch.no_grad()
@pytest.mark.parametrize("name", SHIPPED)
def test_who_is_its_own_teacher_has_nothing_to_learn_from_it(name):
    clip = load_clip(name).eval()
    task = ClipPretraining(clip, captioned_images, teacher=copy.deepcopy(clip))
    assert float(task.losses(task.batch(0))["distillation"]) == pytest.approx(0, abs=1e-5)


def test_the_student_comes_closer_and_the_teacher_never_changes(vit, teacher, tmp_path):
    before = copy.deepcopy(teacher.state_dict())
    task = ClipPretraining(vit, lambda step: captioned_images(0), teacher=teacher)
    rows = train(task, LoopConfig(6, lr=1e-3, warmup=1, log_every=1), tmp_path, progress=False)
    assert rows[-1]["distillation"] < rows[0]["distillation"]
    assert all(row["loss"] == pytest.approx(row["contrastive"] + 10 * row["distillation"], abs=1e-4) for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teachers_term_reaches_the_image_tower_only(vit, teacher):
    teacher.requires_grad_(True)  # even a teacher that was not frozen gets no gradient
    task = ClipPretraining(vit, captioned_images, freeze=None, teacher=teacher)
    task.losses(task.batch(0))["distillation"].backward()
    assert moved(vit.network.visual) and not moved(vit.network.text) and not moved(teacher)
