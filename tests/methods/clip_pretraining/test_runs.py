"""Runs of `ovs-lite train clip`: a text tower, models that start from it, from weights, from a teacher."""

import pytest
import torch
from safetensors.torch import load_file

from kit.runs import last_checkpoint, rows, train_command
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import SHIPPED, read_metadata, shipped_path

SMALL = "--steps 2 --batch 4".split()


def run(out, *words):
    return train_command("clip", out, *words, *SMALL)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The file of a text tower trained for two steps."""
    out = tmp_path_factory.mktemp("text")
    run(out, "text")
    return out / "text.safetensors"


def assert_same_words(found, expected, clip):
    """Equal text towers, of the token table those rows that are kept."""
    kept_rows = clip.tokenizer(["a photo of a cat", "two red owls"]).unique()
    for key, value in expected.items():
        kept = kept_rows if key == "token_embedding.weight" else ...
        torch.testing.assert_close(found[key][kept], value[kept].half().float(), rtol=0, atol=0)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_trained_against_a_text_tower_and_its_file_loads(text, name, tmp_path):
    load_clip(name, None).network.text.load_state_dict(load_file(text))
    run(tmp_path, name, "--text", text, "--freeze", "text", "--free-steps", 1)
    path = tmp_path / f"{name}.safetensors"
    assert read_metadata(path) == {"pictures": "8", "steps": "2", "seed": "0"}
    clip = load_clip(name, str(path))
    assert_same_words(clip.network.text.state_dict(), load_file(text), clip)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1]


def test_a_text_tower_that_is_not_frozen_learns(text, tmp_path):
    run(tmp_path, "ViT-Lite-8", "--text", text)
    after, before = load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors")), load_file(text)
    moved = {k for k, v in after.network.text.state_dict().items() if not torch.equal(v, before[k].half().float())}
    assert any(key.startswith("transformer") for key in moved)


def test_a_random_text_tower_replaces_that_of_the_initial_weights(tmp_path):
    run(tmp_path, "ConvNeXt-Lite", "--initial", "lite", "--text", "random", "--freeze", "image")
    shipped, after = load_clip("ConvNeXt-Lite"), load_clip("ConvNeXt-Lite", str(tmp_path / "ConvNeXt-Lite.safetensors"))
    assert not torch.equal(shipped.network.text.text_projection, after.network.text.text_projection)
    for key, value in shipped.network.visual.state_dict().items():
        torch.testing.assert_close(after.network.visual.state_dict()[key], value, msg=key)
    assert int(read_metadata(tmp_path / "ConvNeXt-Lite.safetensors")["pictures"]) > 1000, "those seen before count"


def test_a_teacher_brings_its_text_tower_which_stays_frozen(tmp_path):
    run(tmp_path, "ViT-Lite-8", "--teacher", "ConvNeXt-Lite", "--freeze", "text", "--log-every", 1)
    student, teacher = load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors")), load_clip("ConvNeXt-Lite")
    assert_same_words(student.network.text.state_dict(), teacher.network.text.state_dict(), teacher)
    for row in rows(tmp_path):
        assert row["loss"] == pytest.approx(row["contrastive"] + 10 * row["distillation"], abs=1e-4)


def test_polish_from_weights_trains_the_image_tower(tmp_path):
    words = ["--curriculum", "polish", "--initial", shipped_path("ViT-Lite-8"), "--freeze", "text"]
    run(tmp_path, "ViT-Lite-8", *words)
    before, after = load_clip("ViT-Lite-8"), load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors"))
    assert not torch.equal(before.network.visual.conv1.weight, after.network.visual.conv1.weight)
    assert_same_words(after.network.text.state_dict(), before.network.text.state_dict(), before)


def test_ema_ships_the_average_of_the_weights(tmp_path):
    run(tmp_path, "ViT-Lite-8", "--ema", 0.5)
    state = last_checkpoint(tmp_path).tensors
    shipped = load_file(tmp_path / "ViT-Lite-8.safetensors")["visual.conv1.weight"]
    assert torch.equal(shipped, state["average.module.visual.conv1.weight"].half())
    assert not torch.equal(shipped, state["model.visual.conv1.weight"].half())
