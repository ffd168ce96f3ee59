"""Runs of `ovs-lite train clip`: each model by its own recipe, and from weights."""

import pytest
import torch
from safetensors.torch import load_file

from kit.runs import last_checkpoint, rows, train_command
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import LITE_MODELS, shipped_path
from ovs_lite.tensors import DIGEST, read_tensors

SMALL = "--steps 2 --batch 4 --ema 0".split()


def run(out, *words):
    return train_command("clip", out, *SMALL, *words)


def assert_same_words(found, expected, clip):
    """Equal text towers, of the token table those rows that are kept."""
    kept_rows = clip.tokenizer(["a photo of a cat", "two red owls"]).unique()
    for key, value in expected.items():
        kept = kept_rows if key == "token_embedding.weight" else ...
        torch.testing.assert_close(found[key][kept], value[kept].half().float(), rtol=0, atol=0)


@pytest.mark.parametrize("name", LITE_MODELS)
def test_a_model_is_trained_by_its_own_recipe_and_its_file_loads(name, tmp_path):
    run(tmp_path, name, "--freeze", "text")
    path, before = tmp_path / f"{name}.safetensors", read_tensors(shipped_path(name))[1]["pictures"]
    seen = 8 if name == "ViT-Lite-8" else 8 + int(before)
    about = read_tensors(path)[1]
    assert {key: about[key] for key in set(about) - {DIGEST}} == {"pictures": str(seen), "steps": "2", "seed": "0"}
    clip = load_clip(name, str(path))
    assert_same_words(clip.network.text.state_dict(), load_clip("ConvNeXt-Lite").network.text.state_dict(), clip)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1]


def test_a_text_tower_that_is_not_frozen_learns(tmp_path):
    run(tmp_path, "ViT-Lite-8", "--freeze", "", "--teacher", "")
    after = load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors")).network.text.state_dict()
    before = load_clip("ConvNeXt-Lite").network.text.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key].half().float())}
    assert any(key.startswith("transformer") for key in moved)


def test_a_random_text_tower_replaces_that_of_the_initial_weights(tmp_path):
    run(tmp_path, "ConvNeXt-Lite", "--initial", "lite", "--text", "random", "--freeze", "image")
    shipped, after = load_clip("ConvNeXt-Lite"), load_clip("ConvNeXt-Lite", str(tmp_path / "ConvNeXt-Lite.safetensors"))
    assert not torch.equal(shipped.network.text.text_projection, after.network.text.text_projection)
    for key, value in shipped.network.visual.state_dict().items():
        torch.testing.assert_close(after.network.visual.state_dict()[key], value, msg=key)
    assert int(read_tensors(tmp_path / "ConvNeXt-Lite.safetensors")[1]["pictures"]) > 1000, "those seen before count"


def test_ema_ships_the_average_of_the_weights(tmp_path):
    run(tmp_path, "ViT-Lite-8", "--ema", 0.5)
    state = last_checkpoint(tmp_path).tensors
    shipped = load_file(tmp_path / "ViT-Lite-8.safetensors")["visual.conv1.weight"]
    assert torch.equal(shipped, state["average.module.visual.conv1.weight"].half())
    assert not torch.equal(shipped, state["model.visual.conv1.weight"].half())
