"""GroupViT: a tiny random one against transformers' own segmentation and against loops; what is said without it."""

import itertools
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite import cli
from ovs_lite.clip import load_clip
from ovs_lite.inference import Window, encode_image
from ovs_lite.methods.groupvit import GroupVit, group_classes
from ovs_lite.segmenter import Segmenter, load

NAMES = ["cat", "dog", "a patch of grass"]


def test_without_transformers_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'ovs-lite\[baselines\]'"):
        GroupVit.load_own("nowhere")


def test_another_clip_is_refused():
    with pytest.raises(ValueError, match="got the CLIP ViT-Lite-8.*load_own"):
        GroupVit(load_clip("ViT-Lite-8", pretrained=None))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_classes(logits, picture, top):
    """For one picture: (G, K) and (K,)."""
    kept = sorted(range(len(picture)), key=lambda k: -float(picture[k]))[:top]
    result = torch.zeros_like(logits)
    for g, k in itertools.product(*map(range, logits.shape)):
        powers = logits[g].exp()
        restricted = powers[k] / sum(powers[j] for j in kept) if k in kept else 0
        result[g, k] = powers[k] / powers.sum() * restricted
    return result


@pytest.mark.parametrize("top", [1, 2, 5])
def test_the_classes_of_a_group_equal_a_loop(top):
    logits, pictures = randn(2, 3, 4), randn(2, 4, seed=1)
    expected = torch.stack([slow_classes(*both, top) for both in zip(logits, pictures, strict=True)])
    torch.testing.assert_close(group_classes(logits, pictures, top), expected)
    assert ((expected == 0).sum(-1) == max(0, 4 - top)).all()


def test_without_a_top_the_classes_sum_to_one_and_few_classes_are_no_error():
    logits, pictures = randn(2, 3, 4), randn(2, 4, seed=1)
    torch.testing.assert_close(group_classes(logits, pictures, None), logits.softmax(-1))
    assert torch.equal(group_classes(logits[..., :1], pictures[:, :1]), torch.ones(2, 3, 1))
    assert group_classes(logits[..., :0], pictures[:, :0]).shape == (2, 3, 0)
    with pytest.raises(ValueError, match="top=0, expected None or at least one"):
        group_classes(logits, pictures, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'ovs-lite[baselines]'")
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    grouping = {"depths": [1, 1, 1], "num_group_tokens": [6, 3, 0], "num_output_groups": [6, 3, 3]}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= grouping | {"image_size": 64, "patch_size": 8, "initializer_factor": 8.0}
    config = transformers.GroupViTConfig(
        text_config=text, vision_config=vision, projection_dim=24, projection_intermediate_dim=32
    )
    torch.manual_seed(0)
    network = transformers.GroupViTModel(config)
    for stage in network.vision_model.encoder.stages[:2]:
        torch.nn.init.normal_(stage.group_token)  # zeros at the start: all groups would be one
        for part in (stage.downsample.assign.q_proj, stage.downsample.assign.k_proj):
            torch.nn.init.normal_(part.weight, std=0.5)  # so that patches choose different groups
    path = tmp_path_factory.mktemp("groupvit") / "tiny"
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def method(folder):
    return GroupVit.load_own(folder)


@torch.no_grad()
def test_texts_and_pictures_are_embedded_as_transformers_does(method):
    network, clip = method.clip.network, method.clip
    tokens = clip.tokenizer([f"a photo of a {name}." for name in NAMES])
    images = randn(2, 3, 64, 64)
    given = network(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(clip.text_embeddings(NAMES, method.templates), given.text_embeds)
    torch.testing.assert_close(clip.encode_image(images), given.image_embeds)
    torch.testing.assert_close(clip.groups(images)[1], given.image_embeds)
    padded = F.pad(tokens[:, :20], (0, 30))
    shorter = network.text_model(input_ids=padded).pooler_output
    torch.testing.assert_close(clip.encode_text(["a photo of a cat."]), clip.encode_text(["a photo of a cat."] * 2)[:1])
    torch.testing.assert_close(F.normalize(network.text_projection(shorter), dim=-1), given.text_embeds)
    assert clip.logit_scale is network.logit_scale and clip.image_size == 64 and clip.embed_dim == 24


@torch.no_grad()
def test_groups_give_the_segmentation_of_transformers(method):
    """Its logits are the groups' cosines, mixed by the enlarged soft maps, times the scale twice."""
    network, images = method.clip.network, randn(2, 3, 64, 64)
    tokens = method.clip.tokenizer([f"a photo of a {name}." for name in NAMES])
    expected = network(input_ids=tokens, pixel_values=images, output_segmentation=True).segmentation_logits
    groups, _, maps = method.clip.groups(images)
    logits = groups @ method.clip.text_embeddings(NAMES, "single").T * method.clip.logit_scale.exp() ** 2
    enlarged = F.interpolate(maps, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(torch.einsum("bgk,bghw->bkhw", logits, enlarged), expected, atol=1e-4, rtol=1e-4)
    assert maps.shape == (2, 3, 8, 8) and (maps[:, 0] - maps[:, 1]).abs().max() > 0.01


@pytest.mark.parametrize("height, width", [(64, 64), (128, 96), (40, 70)])
def test_a_patch_has_a_distribution_over_groups_at_any_size(method, height, width):
    images = randn(2, 3, height, width)
    groups, picture, maps = method.clip.groups(images)
    assert groups.shape == (2, 3, 24) and maps.shape == (2, 3, -(-height // 8), -(-width // 8))
    torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))
    torch.testing.assert_close(groups.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(picture.norm(dim=-1), torch.ones(2))
    padded = F.pad(images, (0, -width % 8, 0, -height % 8))  # at the right and bottom, with the mean colour
    torch.testing.assert_close(method.clip.groups(padded)[2], maps)


@pytest.mark.parametrize("options", [{}, {"top": 2}, {"assignment": "soft", "top": None}], ids=str)
@pytest.mark.parametrize("height, width", [(64, 64), (40, 70)])
@torch.no_grad()
def test_scores_equal_a_loop_over_pixels(method, options, height, width):
    images, text = randn(1, 3, height, width), F.normalize(randn(7, 24, seed=1), dim=1)
    groups, picture, maps = method.clip.groups(images)
    scale = float(method.clip.logit_scale.exp())
    top = options.get("top", 5)
    logits = groups[0] @ text.T * scale
    classes = logits.softmax(-1) if top is None else slow_classes(logits, picture[0] @ text.T, top)
    maps = F.interpolate(maps, (maps.shape[2] * 8, maps.shape[3] * 8), mode="bilinear", align_corners=False)[0]
    expected, used = torch.zeros(7, height, width), set()
    for y, x in itertools.product(range(height), range(width)):
        shares = maps[:, y, x]
        if options.get("assignment") != "soft":
            used.add(int(shares.argmax()))
            shares = F.one_hot(shares.argmax(), 3).float()
        expected[:, y, x] = sum(shares[g] * classes[g] for g in range(3))
    torch.testing.assert_close(method.predict(images, text, **options)[0], expected, atol=1e-5, rtol=1e-4)
    assert len(used) != 1, "pixels should differ in their groups, or the test sees nothing"


def test_the_scale_is_at_most_a_hundred(method):
    images, text = randn(1, 3, 64, 64), F.normalize(randn(4, 24, seed=1), dim=1)
    before = method.clip.logit_scale.data.clone()
    try:
        found = [method.clip.logit_scale.data.fill_(log) and method.predict(images, text) for log in (4.6052, 9.0)]
    finally:
        method.clip.logit_scale.data = before
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


def test_it_segments_with_windows_like_every_method(method):
    picture = Image.new("RGB", (200, 90), "teal")
    scores = encode_image(method, picture, Window(96, 64, 32)).scores(method.clip.text_embeddings(NAMES, "single"))
    assert scores.shape == (1, 3, 96, 213) and scores.min() >= 0 and scores.max() <= 1
    result = Segmenter(method).segment(picture, NAMES)
    assert result.labels.shape == (90, 200) and set(result.labels.flat) <= {0, 1, 2}


def test_pictures_queries_and_company(method):
    images, text = randn(2, 3, 64, 64), F.normalize(randn(7, 24, seed=1), dim=1)
    scores, order = method.predict(images, text), torch.randperm(7)
    torch.testing.assert_close(method.predict(images, text[order]), scores[:, order], atol=1e-5, rtol=1e-4)
    alone = torch.cat([method.predict(image[None], text) for image in images])
    torch.testing.assert_close(alone, scores, atol=1e-5, rtol=1e-4)
    mean = method.clip.normalise(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    assert mean.abs().max() < 1e-6, "ImageNet's mean colour is zero"


def test_groups_are_found_once_for_any_texts(method):
    images, seen = randn(2, 3, 64, 64), []
    handle = method.clip.network.vision_model.embeddings.register_forward_hook(lambda *given: seen.append(1))
    features = method.encode(images)
    for options in ({}, {"top": 2}, {"assignment": "soft"}):
        for text in (F.normalize(randn(count, 24, seed=count), dim=1) for count in (7, 1)):
            found = method.scores(features, text, **options)
            assert len(seen) == 1 and torch.equal(found, method.predict(images, text, **options))
            seen.pop()
    handle.remove()


def test_the_front_doors_take_it_by_name(folder, tmp_path):
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    model = load("groupvit", checkpoint=folder, device="cpu")
    assert model.name == "groupvit" and model.segment(tmp_path / "photo.png", NAMES).labels.shape == (48, 64)
    words = ["--method", "groupvit", "--checkpoint", str(folder), "--out", str(tmp_path / "masks.png")]
    assert cli.main(["segment", str(tmp_path / "photo.png"), "--queries", "cat, dog", *words]) == 0
    assert (tmp_path / "masks.png").is_file()


def test_its_fingerprint_is_of_its_text_tower(method):
    before = method.clip.fingerprint()
    image = method.clip.network.vision_model.layernorm.weight
    with torch.no_grad():
        image.add_(1)
        assert method.clip.fingerprint() == before
        image.sub_(1)
        method.clip.network.text_model.final_layer_norm.bias.add_(1)
        assert method.clip.fingerprint() != before
        method.clip.network.text_model.final_layer_norm.bias.sub_(1)


def test_wrong_options_are_named(method):
    images, text = randn(1, 3, 64, 64), F.normalize(randn(4, 24, seed=1), dim=1)
    with pytest.raises(ValueError, match="assignment='softly', expected 'hard' or 'soft'"):
        method.predict(images, text, assignment="softly")
    with pytest.raises(ValueError, match=r"patches have no embedding.*groups\(images\)"):
        method.clip.dense(images)


def test_wrong_checkpoints_are_named(folder, tmp_path):
    for absent in (tmp_path / "absent", "./absent", "absent"):
        with pytest.raises(FileNotFoundError, match="no folder .*absent; expected one with GroupViT's files"):
            GroupVit.load_own(absent)
    with pytest.raises(FileNotFoundError, match="nobody/nothing: could not load.*safetensors, and the network"):
        GroupVit.load_own("nobody/nothing")
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(FileNotFoundError, match="no config.json or no .*safetensors"):
        GroupVit.load_own(copy)
    (copy / "config.json").write_bytes((folder / "config.json").read_bytes())
    (copy / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(FileNotFoundError, match="pickled weights are not read"):
        GroupVit.load_own(copy)
    torch.save({}, copy / "pytorch_model.bin")
    (copy / "other.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="could not load GroupViT"):
        GroupVit.load_own(copy)
    weights = (folder / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(FileNotFoundError, match="copy: could not load GroupViT, expected an undamaged folder"):
        GroupVit.load_own(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ValueError, match="copy, a clip model, expected a GroupViT"):
        GroupVit.load_own(copy)


def test_weights_that_lack_a_part_are_not_filled_with_random_ones(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.0.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="without 1 of GroupViT's tensors, visual_projection.0.weight"):
        GroupVit.load_own(tmp_path)
