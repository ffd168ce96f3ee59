"""The wrapper: normalised embeddings of images and prompts, images in, and models that cannot be loaded."""

import argparse
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kit.clips import random_clip
from kit.images import randn
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import save_lite
from ovs_lite.clip.load import _image_tower
from ovs_lite.clip.missing_weights import missing_weights
from ovs_lite.tensors import write_tensors

SHIPPED = ["ViT-Lite-8", "ConvNeXt-Lite"]
TINY = {
    "embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def clips():
    return {name: random_clip(name) for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_embeddings_have_length_one_alone_and_in_a_batch(name, clips):
    clip, images, texts = clips[name], randn(3, 3, 64, 64), ["a cat", "a photo of a red boat.", ""]
    for found, alone in (
        (clip.encode_image(images), [clip.encode_image(image[None]) for image in images]),
        (clip.encode_text(texts), [clip.encode_text([text]) for text in texts]),
    ):
        assert found.shape == (3, clip.embed_dim)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=1e-4)
        assert (found[0] - found[1]).abs().max() > 1e-4


@torch.no_grad()
def test_a_vit_gets_its_native_size_and_a_convnet_the_picture_as_it_is(clips):
    images = randn(2, 3, 90, 150)
    native = F.interpolate(images, (64, 64), mode="bicubic", antialias=True, align_corners=False)
    vit, convnet = clips["ViT-Lite-8"], clips["ConvNeXt-Lite"]
    torch.testing.assert_close(vit.encode_image(images), vit.encode_image(native), atol=1e-5, rtol=1e-4)
    expected = F.normalize(convnet.network.visual(images), dim=1)
    torch.testing.assert_close(convnet.encode_image(images), expected)


@torch.no_grad()
def test_many_images_are_encoded_in_parts_and_all_at_once_with_a_gradient(clips, monkeypatch):
    clip, seen = clips["ViT-Lite-8"], []
    encode = clip.network.encode_image
    monkeypatch.setattr(clip.network, "encode_image", lambda part: seen.append(len(part)) or encode(part))
    images = torch.randn(130, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = clip.encode_image(images)
    assert seen == [64, 64, 2]
    with torch.enable_grad():
        torch.testing.assert_close(clip.encode_image(images).detach(), found, rtol=1e-4, atol=1e-5)
    assert seen[3:] == [130]


def test_too_long_prompts_are_truncated(clips):
    clip = clips["ViT-Lite-8"]
    long = "cat " * 100
    torch.testing.assert_close(clip.encode_text([long]), clip.encode_text([long + "and a boat"]))


@pytest.mark.parametrize("name", SHIPPED)
def test_both_towers_and_the_scale_can_be_trained(name):
    clip = load_clip(name, pretrained=None)
    cosines = clip.encode_image(randn(2, 3, 64, 64)) @ clip.encode_text(["a cat", "a boat"]).T
    (cosines * clip.logit_scale.exp()).logsumexp(1).sum().backward()
    without = [key for key, value in clip.network.named_parameters() if value.grad is None]
    assert without == []


def test_images_are_warped_scaled_and_normalised(clips):
    clip = clips["ViT-Lite-8"]
    values = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    found = clip.preprocess([Image.fromarray(values), Image.fromarray(values[:20])], size=32)
    assert found.shape == (2, 3, 32, 32) and clip.preprocess(Image.fromarray(values)).shape == (1, 3, 64, 64)
    resized = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling.BICUBIC), np.float64) / 255
    expected = (resized - open_clip.OPENAI_DATASET_MEAN) / open_clip.OPENAI_DATASET_STD
    torch.testing.assert_close(found[0], torch.from_numpy(expected).permute(2, 0, 1).float())
    grey = clip.preprocess(Image.fromarray(values[..., 0]))
    three = clip.preprocess(Image.fromarray(values[..., :1].repeat(3, 2)))
    assert (grey == three).all()
    mean_colour = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    assert clip.normalise(mean_colour).abs().max() == 0


@pytest.mark.parametrize("name, patch", [("ViT-Lite-8", 8), ("ConvNeXt-Lite", None)])
def test_what_a_loaded_model_says_of_itself(name, patch, clips):
    clip = clips[name]
    assert (clip.name, clip.image_size, clip.patch_size, clip.embed_dim) == (name, 64, patch, 128)
    assert not clip.training and clip.device == torch.device("cpu") and clip.logit_scale.requires_grad
    assert not {"mean", "std"} & set(clip.state_dict())


@pytest.mark.parametrize("pretrained", ["lite", None, "openai"])
def test_an_unknown_name_is_named(pretrained):
    with pytest.raises(ValueError, match="'ViT-Lite-9', expected ViT-Lite-8, ConvNeXt-Lite or one of"):
        load_clip("ViT-Lite-9", pretrained)


def test_missing_and_wrong_weights_are_named(tmp_path):
    for missing in ("openai", str(tmp_path / "none.safetensors")):
        with pytest.raises(FileNotFoundError, match=f"{missing}: no such checkpoint for ViT-Lite-8"):
            load_clip("ViT-Lite-8", missing)
    with pytest.raises(ValueError, match="'ViT-B-32', which is not shipped; use a tag .openai"):
        load_clip("ViT-B-32", "lite")


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "EVA02-B-16", "PE-Core-B-16", "MobileCLIP-S1", "coca_ViT-B-32"])
def test_a_family_without_dense_map_is_refused_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **options: pytest.fail("a network was built"))
    tag = open_clip.list_pretrained_tags_by_model(name)[0]
    with pytest.raises(ValueError, match=f"got CLIP model '{name}', .*expected a ViT .*ViT-B-16.*RN50.*convnext"):
        load_clip(name, tag)


@pytest.mark.parametrize("content", [b"", b"no tensors in here" * 50])
def test_a_damaged_file_is_named(content, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: (not a readable|an empty file)") as error:
        load_clip("ViT-Lite-8", str(path))
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_a_checkpoint_file_of_a_shipped_and_of_any_other_model(clips, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    for name, clip in clips.items():
        save_lite(clip.network, path, clip.tokenizer(["a cat"]).unique(), {})
        loaded, images = load_clip(name, str(path)), randn(2, 3, 64, 64)
        torch.testing.assert_close(loaded.encode_image(images), clip.encode_image(images), atol=5e-3, rtol=0)
        torch.testing.assert_close(loaded.encode_text(["a cat"]), clip.encode_text(["a cat"]), atol=5e-3, rtol=0)
    with pytest.raises(ValueError, match=f"{path}: not weights of ViT-Lite-8 .*missing .*visual.class_embedding"):
        load_clip("ViT-Lite-8", str(path))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY)
    clip = load_clip("Tiny", None)
    assert (clip.image_size, clip.patch_size, clip.embed_dim) == (32, 16, 16)
    weights = {key: value.contiguous() for key, value in clip.network.state_dict().items()}
    save_file(weights, path)
    torch.save(weights, tmp_path / "mine.pt")
    for file in (path, tmp_path / "mine.pt"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no other GELU to choose from
            loaded = load_clip("Tiny", str(file))
        assert all((value == weights[key]).all() for key, value in loaded.network.state_dict().items())


def tiny_weights(**changes):
    torch.manual_seed(0)
    return open_clip.CLIP(**{**TINY, "vision_cfg": {**TINY["vision_cfg"], **changes}}).state_dict()


FOREIGN = {  # what a file holds: what the error says
    "another": (lambda: tiny_weights(layers=2), "they fit Other; give that model's name"),
    "part": (
        lambda: {k: v for k, v in tiny_weights().items() if "ln_final" not in k},
        "sizes; give the whole .*ln_final",
    ),
    "transformers": (lambda: {"vision_model.embeddings.class_embedding": torch.ones(2)}, "the layout of transformers"),
    "unknown": (lambda: {"w": torch.ones(2)}, "give the name of the model that they belong to"),
    "nothing": (dict, "no named tensors in it"),
    "list": (lambda: [torch.ones(2)], "no named tensors in it"),
    "module": (lambda: nn.Linear(2, 2), "no named tensors in it"),
    "training": (lambda: {"state_dict": tiny_weights(), "args": argparse.Namespace()}, "objects next to its tensors"),
}


@pytest.mark.parametrize("content", FOREIGN)
def test_weights_of_another_model_are_named_in_one_line(content, tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY)
    other = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": 2}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Other", other)
    path, (made, message) = tmp_path / "mine.pt", FOREIGN[content]
    torch.save(made(), path)
    with pytest.raises(ValueError, match=f"^{path}: .*{message}") as error:
        load_clip("Tiny", str(path))
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value) and len(str(error.value)) < 700


def test_a_damaged_file_of_any_model_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **options: pytest.fail("a network was built"))
    path = tmp_path / "ViT-B-16.pt"
    path.touch()
    with pytest.raises(ValueError, match=f"{path}: an empty file"):
        load_clip("ViT-B-16", str(path))
    with pytest.raises(ValueError, match=f"{tmp_path}: a folder"):
        load_clip("ViT-B-16", str(tmp_path))


def test_weights_of_a_method_are_no_clip(tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY)
    path = tmp_path / "tcl.safetensors"
    write_tensors(path, {"scale": torch.ones(())}, {"method": "tcl"})
    for name in ("Tiny", "ViT-Lite-8"):
        with pytest.raises(ValueError, match=f"{path}: not weights of {name} .*they are of tcl, a method's own"):
            load_clip(name, str(path))


@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_model_of_open_clip_has_sizes_to_compare(name):
    assert len(_image_tower(open_clip.get_model_config(name))) == 5


@torch.no_grad()
def test_a_file_of_weights_that_may_need_quickgelu_is_warned_about_by_the_name_to_use(tmp_path, monkeypatch):
    """A file does not say with which GELU it was trained, and both load without an error."""
    for name, quick in (("Tiny", False), ("Tiny-quickgelu", True)):
        config = {**TINY, "quick_gelu": True} if quick else TINY
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    torch.manual_seed(0)
    reference = open_clip.create_model("Tiny", force_quick_gelu=True, load_weights=False).eval()
    path, images = tmp_path / "openai.safetensors", randn(1, 3, 32, 32)
    save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, path)
    expected = F.normalize(reference.encode_image(images), dim=1)
    with pytest.warns(UserWarning, match=f"{path}: Tiny computes with GELU, .*load it as Tiny-quickgelu"):
        wrong = load_clip("Tiny", str(path))
    assert (wrong.encode_image(images) - expected).abs().max() > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = load_clip("Tiny-quickgelu", str(path))
        load_clip("Tiny", None)
    torch.testing.assert_close(right.encode_image(images), expected, atol=1e-6, rtol=1e-5)
    assert right.image_fingerprint() != wrong.image_fingerprint()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and an empty cache of the hub in tmp_path."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name, tag, repository, taken",
    [
        ("ViT-B-16", "openai", "timm/vit_base_patch16_clip_224.openai", "ViT-B-16-quickgelu"),
        ("RN50", "openai", "timm/resnet50_clip.openai", "RN50-quickgelu"),
        (
            "convnext_large_d_320", "laion2b_s29b_b131k_ft_soup",
            "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup", "convnext_large_d_320",
        ),
    ],
)  # fmt: skip
def test_without_a_network_it_says_which_file_goes_where(name, tag, repository, taken, offline):
    with pytest.raises(FileNotFoundError) as error:
        load_clip(name, tag)
    said, folder = str(error.value), offline / f"models--{repository.replace('/', '--')}"
    assert f"`hf download {repository} open_clip_model.safetensors`" in said and f" to {folder} " in said
    assert f"--clip {taken} --pretrained path/to/open_clip_model.safetensors" in said and "\n" not in said
    assert f"https://huggingface.co/{repository}/resolve/main/open_clip_model.safetensors" in said
    assert taken in open_clip.list_models()


def test_weights_that_are_not_on_the_hub_have_an_address(monkeypatch):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["RN50"], "mine", {"url": "http://127.0.0.1/rn50.pt"})
    assert "They lie at http://127.0.0.1/rn50.pt; fetch" in missing_weights("RN50", "mine")


@torch.no_grad()
def test_a_folder_put_where_the_message_says_is_found_without_a_network(offline, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", {"mine": {"hf_hub": "me/tiny/", "quick_gelu": True}})
    with pytest.raises(FileNotFoundError) as error:
        load_clip("Tiny", "mine")
    folder = Path(str(error.value).split("that it made to ")[1].split(" and set")[0])
    given = open_clip.create_model("Tiny", force_quick_gelu=True).eval()
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(given.state_dict(), folder / "snapshots" / ("0" * 40) / "open_clip_model.safetensors")
    clip, images = load_clip("Tiny", "mine"), randn(2, 3, 32, 32)
    torch.testing.assert_close(clip.encode_image(images), F.normalize(given.encode_image(images), dim=1))


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50", "RN101", "convnext_large_d_320"])
def test_the_right_gelu_of_a_tag_and_of_a_file(name, monkeypatch):
    made = []
    monkeypatch.setattr(open_clip, "create_model", lambda *given, **options: made.append(options) or pytest.fail())
    tag = "laion2b_s29b_b131k_ft_soup" if name.startswith("convnext") else "openai"
    with pytest.raises(pytest.fail.Exception):
        load_clip(name, tag)
    assert made[0]["force_quick_gelu"] is (tag == "openai")
