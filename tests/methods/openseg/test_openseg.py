"""OpenSeg's inference against loops, its options, its weights on disk, and CLIP with its proposals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_clip, random_texts, shaken, tiny_clip
from kit.images import randn
from kit.openseg import make_openseg
from kit.proposal_training import SMALL
from kit.records import scene, toy
from ovs_lite.checkpoints import load_method, save_method
from ovs_lite.clip import load_clip
from ovs_lite.methods.openseg.clip_proposals import ClipProposals
from ovs_lite.methods.openseg.config import PRESETS, OpenSegConfig
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.network import OpenSegNetwork
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.regions.pooling import mask_pool
from ovs_lite.regions.sources import ground_truths

TEXT = random_texts(3, 16)


def slow_scores(masks, regions, text):
    """Eq. 6 for one image: (N, h, w), (N, D), (K, D) -> (K, h, w)."""
    found = torch.zeros(len(text), *masks.shape[1:])
    for k, w in enumerate(text):
        for s, z in zip(masks, regions, strict=True):
            found[k] += (z @ w) / (z.norm() * w.norm()) * s
    return found


def test_scores_are_eq_6():
    method, images = make_openseg(), randn(2, 3, 32, 64)
    features = method.encode(images)
    assert features.masks.shape == (2, SMALL["queries"], 8, 16) and features.pixels.shape == (2, 16, 8, 16)
    assert features.masks.min() >= 0 and features.masks.max() <= 1
    regions = torch.einsum("bnhw,bdhw->bnd", features.masks, features.pixels)
    small = torch.stack([slow_scores(*pair, TEXT) for pair in zip(features.masks, regions, strict=True)])
    expected = F.interpolate(small, (32, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method.predict(images, TEXT), expected, atol=1e-5, rtol=1e-4)


def test_without_proposals_every_pixel_answers_for_itself():
    method, images = make_openseg(), randn(1, 3, 32, 32)
    features = method.encode(images)
    cosines = torch.einsum("bdhw,kd->bkhw", F.normalize(features.pixels, dim=1), TEXT)
    expected = F.interpolate(cosines, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method.scores(features, TEXT, proposals=False), expected)


def test_a_words_attention_is_eq_2():
    method, images = make_openseg(), randn(1, 3, 32, 32)
    features, expected = method.encode(images), torch.zeros(3, 8, 8)
    regions = torch.einsum("nhw,dhw->nd", features.masks[0], features.pixels[0])
    for k, w in enumerate(TEXT):
        powers = [torch.exp(F.cosine_similarity(z, w, dim=0) / 0.07) for z in regions]
        for power, s in zip(powers, features.masks[0], strict=True):
            expected[k] += power / sum(powers) * s
    found = method.scores(features, TEXT, attention=True)[0]
    expected = F.interpolate(expected[None], (32, 32), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_a_run_was_trained_with_is_what_inference_uses():
    """Sentences around words, and pooling; both may be asked for otherwise."""
    images, hard = randn(1, 3, 32, 32), make_openseg(pooling="hard", templates="single")
    assert hard.templates == "single" and make_openseg().templates == "bare"
    scores = [hard.predict(images, TEXT, **options) for options in ({}, {"pooling": "hard"}, {"pooling": "sum"})]
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2], atol=1e-3)


def test_masks_from_elsewhere_take_the_place_of_the_proposals():
    method, images = make_openseg(), randn(1, 3, 32, 32)
    halves = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    halves[0, 0, :, :16] = halves[0, 1, :, 16:] = True
    images = (images * 0.2 + 0.5).clamp(0, 1).mul(255).round() / 255  # as an image has them
    images = method.clip.normalise(images)
    features = method.with_masks(lambda image, budget: halves[0, :budget]).encode(images)
    assert torch.equal(features.pixels, method.encode(images).pixels)
    labels = method.scores(features, TEXT).argmax(1)[0]
    means = F.normalize(torch.stack([features.pixels[0, ..., part].sum((1, 2)) for part in (slice(4), slice(4, 8))]))
    for columns, z in zip((slice(0, 14), slice(18, 32)), means, strict=True):
        assert (labels[:, columns] == (TEXT @ z).argmax()).all(), "one answer for the whole region"
    assert method.with_masks(lambda image, budget: halves[0], 5, "halves").variant() == "masks of halves, 5"
    with pytest.raises(ValueError, match=r"without a name, expected with_masks\(source, name=...\)"):
        method.with_masks(lambda image, budget: halves[0]).variant()
    nothing = method.with_masks(lambda image, budget: halves[0, :0]).predict(images, TEXT)
    assert torch.equal(nothing, torch.zeros(1, 3, 32, 32))
    assert method.elsewhere is None and method.encode(images).masks.shape[1] == SMALL["queries"], "no change of its own"


def test_ground_truth_finds_each_image_by_its_pixels_and_images_may_have_different_numbers():
    records = [toy("a", scene(32, 32), {1: 0, 2: 1, 3: 2}), toy("b", np.ones((32, 32), int), {1: 0})]
    method = make_openseg()
    images = torch.stack([torch.from_numpy(r["image"]).permute(2, 0, 1) / 255 for r in records])
    images = method.clip.normalise(images)
    knowing = method.with_masks(ground_truths(records))
    both = knowing.predict(images, TEXT)
    for image, expected in zip(images, both, strict=True):
        torch.testing.assert_close(knowing.predict(image[None], TEXT)[0], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="of none of the 2 records, expected one as it is"):
        knowing.encode(-images)


def test_the_temperature_says_how_sure_and_never_which():
    """Eq. 6 has none; softer masks and order of proposals matter, tau does not."""
    method, images = make_openseg(), randn(1, 3, 32, 32)
    before = method.predict(images, TEXT)
    with torch.no_grad():
        method.network.log_temperature.fill_(-9.0)
    assert torch.equal(method.predict(images, TEXT), before)
    assert float(method.network.temperature.detach()) == pytest.approx(0.01), "cosines times 100 at most"


def test_a_file_brings_the_sizes_and_belongs_to_the_text_tower_alone(tmp_path):
    method, path = make_openseg(queries=5, layers=1), tmp_path / "openseg.safetensors"
    shaken(method.network)
    save_method(method, path)
    clip = tiny_clip()
    shaken(clip.network.visual)  # another image tower
    loaded = load_method("openseg", clip, path)
    assert loaded.config == method.config and not loaded.training
    images = clip.normalise(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(loaded.predict(images, TEXT), method.predict(images, TEXT), atol=2e-2, rtol=0)
    shaken(clip.network.transformer)
    with pytest.raises(ValueError, match="trained on the CLIP 'tiny', whose weights or configuration are not those"):
        load_method("openseg", clip, path)


@pytest.mark.parametrize("clip_map", [True, False])
@pytest.mark.parametrize("pooling", ["sum", "hard"])
def test_regions_that_are_pooled_before_the_last_layer_are_those_of_the_map(clip_map, pooling):
    torch.manual_seed(0)
    network = shaken(OpenSegNetwork(OpenSegProposer(OpenSegConfig(**SMALL)), 24, clip_map)).double()
    features, masks, start = network.looked_at(torch.rand(2, 3, 64, 64).double())
    masks = masks.sigmoid().detach()
    masks[1, 2] = 0  # a mask of nothing
    expected = mask_pool(network.meaning(features, start), masks, pooling)
    found = network.regions(features, masks, network.start_regions(start, masks, pooling), pooling)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    assert not found[1, 2].any() and found.abs().max() > 0.1
    weights = torch.randn_like(found)
    for parameter in network.meaning_head.parameters():
        wanted = torch.autograd.grad((expected * weights).sum(), parameter, retain_graph=True)[0]
        given = torch.autograd.grad((found * weights).sum(), parameter, retain_graph=True)[0]
        torch.testing.assert_close(given, wanted, atol=1e-8, rtol=1e-6)


@torch.no_grad()
def test_a_region_of_many_pixels_does_not_overflow_half_precision():
    torch.manual_seed(0)
    network = OpenSegNetwork(OpenSegProposer(OpenSegConfig(**SMALL)), 24)
    network.meaning_head[0][-1].bias.fill_(5.0)
    features, masks = torch.randn(1, network.proposer.config.channels, 160, 160), torch.ones(1, 1, 160, 160)
    with torch.autocast("cpu", dtype=torch.float16):
        found = network.regions(features, masks, None)
    expected = network.regions(features, masks, None)
    assert mask_pool(network.meaning_head.inner(features), masks).max() > torch.finfo(torch.float16).max
    torch.testing.assert_close(F.normalize(found, dim=2), F.normalize(expected, dim=2), atol=1e-2, rtol=0)


def test_files_of_others_and_damaged_notes_are_refused(tmp_path):
    method, path = make_openseg(), tmp_path / "weights.safetensors"
    save_method(method, path)
    with pytest.raises(ValueError, match="weights of 'openseg', expected those of 'lseg'"):
        load_method("lseg", tiny_clip(), path)
    method.about = lambda: {"config": "{}"}
    save_method(method, path)
    with pytest.raises(ValueError):
        load_method("openseg", tiny_clip(), path)
    method.about = dict
    save_method(method, path)
    with pytest.raises(ValueError, match="not weights that `ovs-lite train openseg` writes"):
        load_method("openseg", tiny_clip(), path)


def test_settings_that_cannot_run_are_refused():
    for changes, message in (
        ({"alpha": -1.0}, "alpha=-1.0"), ({"keep": 1.5}, "keep=1.5"), ({"kinds": ("nouns",)}, "got kinds="),
        ({"pooling": "mean"}, "expected one of sum, hard"), ({"tagger": "spacy"}, "expected one of auto, shipped"),
        ({"data": ()}, "expected at least one"), ({"data": ("a", "b", "c")}, "that they share equally"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            OpenSegConfig(**changes)
    assert PRESETS["paper"].keep == 0.5 and not PRESETS["paper"].sync


def test_weights_are_loaded_on_the_shipped_clip_that_they_were_trained_on(tmp_path):
    """Given by name or not at all; another one is refused."""
    path = tmp_path / "openseg.safetensors"
    save_method(OpenSeg(load_clip("ViT-Lite-8"), OpenSegConfig(**SMALL | {"start": "backbone"})), path)
    for clip in (None, ("ViT-Lite-8", "lite")):
        assert load_method("openseg", clip, path).clip.name == "ViT-Lite-8"
    with pytest.raises(ValueError, match="trained on the CLIP 'ViT-Lite-8'"):
        load_method("openseg", ("ConvNeXt-Lite", "lite"), path)


class Test_clip_with_proposals:
    def test_is_eq_6_with_clips_own_map_under_openseg_s_masks(self):
        clip = random_clip("ConvNeXt-Lite")
        network = OpenSeg(clip, OpenSegConfig(**SMALL)).eval().network
        method, images, text = ClipProposals(clip, network).eval(), randn(2, 3, 64, 96), random_texts(4)
        masks = network.proposer(images * clip.std + clip.mean)[0]
        dense = clip.dense(images, "last")
        cells = F.avg_pool2d(masks, 32)
        regions = torch.einsum("bnhw,bdhw->bnd", cells, dense)
        expected = torch.stack([slow_scores(*pair, text) for pair in zip(masks, regions, strict=True)])
        torch.testing.assert_close(method.predict(images, text), expected.detach(), atol=1e-4, rtol=1e-3)

    def test_reads_openseg_s_file_on_any_clip(self, tmp_path):
        path = tmp_path / "openseg.safetensors"
        save_method(make_openseg(), path)
        clip = random_clip("ConvNeXt-Lite")  # 128 dimensions, the file's words have 16
        method = load_method("clip-proposals", clip, path)
        assert method.predict(randn(1, 3, 64, 64), random_texts(3)).shape == (1, 3, 64, 64)
