"""The whole method against loops: masks and regions of an encoding, scores, segments; prompts, files, mistakes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovs_lite
from kit.clips import random_texts, tiny_clip
from kit.images import randn
from kit.uniovseg import make_uniovseg
from ovs_lite.checkpoints import load_method, save_method
from ovs_lite.inference import panoptic_image
from ovs_lite.methods import get_method
from ovs_lite.methods.uniovseg.method import PromptedFeatures
from ovs_lite.segmenter import Segmenter

POINTS, BOXES = np.array([[3.0, 5], [20, 12.5], [31, 30]]), np.array([[0.0, 0, 20, 30], [10, 5, 30, 25]])


@pytest.fixture(scope="module")
def method():
    return make_uniovseg(budget=7)


def picture(height=40, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def test_an_encoding_is_the_grid_s_masks_best_first_and_the_regions_under_them(method):
    images = torch.from_numpy(np.stack([picture(), picture(seed=1)])).permute(0, 3, 1, 2) / 255
    found = method.encode(method.clip.normalise(images))
    assert found.size == (40, 48) and found.quality.shape == found.mask_logits.shape[:2]
    for number, image in enumerate((picture(), picture(seed=1))):
        count = int((found.quality[number] > 0).sum())
        ((logits, quality),) = method.prompter.grid_masks(method.prompter.look(image))
        torch.testing.assert_close(found.quality[number, :count], quality[:7], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.mask_logits[number, :count], logits[:7], atol=1e-3, rtol=1e-3)
        for n in range(count):  # one mask at a time
            mask = F.interpolate(found.mask_logits[number, n][None, None], (40, 48), mode="bilinear").sigmoid() > 0.5
            region = method.aligned(method.clip.normalise(images[number : number + 1]), mask)[0, 0]
            torch.testing.assert_close(found.regions[number, n], region, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_image_with_fewer_masks_than_another_is_encoded_as_alone():
    method = make_uniovseg(budget=50)
    images = torch.cat([torch.zeros(1, 3, 32, 32), randn(2, 3, 32, 32)])
    alone = [method.encode(images[i : i + 1]) for i in range(3)]
    counts = [one.quality.shape[1] for one in alone]
    found, text = method.encode(images), random_texts(4, 16)
    assert len(set(counts)) > 1 and found.quality.shape == (3, max(counts))
    for scores, one in zip(method.scores(found, text), alone, strict=True):
        torch.testing.assert_close(scores, method.scores(one, text)[0], atol=1e-4, rtol=1e-4)
    for (ids, infos), one in zip(method.panoptic(found, text, [True] * 4), alone, strict=True):
        expected, others = method.panoptic(one, text, [True] * 4)[0]
        assert torch.equal(ids, expected) and infos == others


@pytest.mark.parametrize("options", [{}, {"quality_power": 0.0}, {"quality_power": 1.0}, {"temperature": 0.5}])
@torch.no_grad()
def test_scores_equal_loops_over_masks_and_classes(method, options):
    images, text = randn(2, 3, 32, 48), random_texts(4, 16)
    kept = method.encode(images)
    masks = F.interpolate(kept.mask_logits, (32, 48), mode="bilinear", align_corners=False).sigmoid()
    factor = 1 / options.get("temperature", 1 / min(100.0, float(method.clip.logit_scale.exp())))
    total = torch.zeros(2, 4, 32, 48)
    for b in range(2):
        for n in range(masks.shape[1]):
            weight = kept.quality[b, n] ** options.get("quality_power", 2)
            exps = [torch.exp(factor * (kept.regions[b, n] @ word)) for word in text]
            for k in range(4):
                total[b, k] += weight * exps[k] / sum(exps) * masks[b, n]
    torch.testing.assert_close(method.predict(images, text, **options), total, atol=1e-4, rtol=1e-4)


def slow_panoptic(masks, scores, least, share):
    """Masks one by one, pixel by pixel; things only. Returns the class of each pixel, -1 where there is none."""
    score, label = scores.max(1)
    kept = [n for n in range(len(masks)) if score[n] > least]
    classes = np.full(masks.shape[1:], -1)
    best = {}
    for y, x in np.ndindex(*masks.shape[1:]):
        values = [float(score[n] * masks[n, y, x]) for n in kept]
        if values:
            best[y, x] = kept[int(np.argmax(values))]
    for n in kept:
        won = [place for place, winner in best.items() if winner == n]
        solid = [place for place in won if masks[n][place] >= 0.5]
        if solid and len(won) >= share * int((masks[n] >= 0.5).sum()):
            for place in solid:
                classes[place] = int(label[n])
    return classes


@torch.no_grad()
def test_segments_equal_loops_over_pixels(method):
    images, text = randn(1, 3, 32, 32), random_texts(3, 16)
    kept = method.encode(images)
    masks = F.interpolate(kept.mask_logits, (32, 32), mode="bilinear", align_corners=False).sigmoid()[0]
    probs = method.clip.probabilities(kept.regions[0] @ text.T) * kept.quality[0, :, None]
    for least, share in ((0.0, 0.0), (float(probs.max(1).values.median()), 0.3)):
        ids, infos = method.panoptic(kept, text, [True] * 3, least, share)[0]
        classes = {0: -1} | {info["id"]: info["category_id"] for info in infos}
        expected = slow_panoptic(masks, probs, least, share)
        assert infos and np.array_equal(np.vectorize(classes.get)(ids.numpy()), expected)
        assert [info["area"] for info in infos] == [int((ids == info["id"]).sum()) for info in infos]
    assert method.panoptic(kept, text, [True] * 3, object_threshold=1.0)[0][1] == []


def test_things_stay_apart_and_stuff_of_one_class_is_one_segment(method):
    logits = torch.full((1, 5, 8, 8), -9.0)
    for n in range(4):  # a quarter of the image each; the fifth is everywhere, but of no quality
        logits[0, n, 4 * (n // 2) :, 4 * (n % 2) :][:4, :4] = 9.0
    logits[0, 4] = 9.0
    text = F.normalize(torch.eye(2, 16), dim=1)
    quality = torch.tensor([[0.9, 0.8, 0.9, 0.8, 0.0]])
    features = PromptedFeatures((8, 8), logits, quality, 20 * text[[0, 0, 1, 1, 0]][None])
    ids, infos = method.panoptic(features, text, [True, False])[0]
    assert [(info["category_id"], info["area"]) for info in infos] == [(0, 16), (0, 16), (1, 32)]
    assert ids[::4, ::4].tolist() == [[1, 2], [3, 3]]
    assert len(method.panoptic(features, text, [True, False], object_threshold=0.85)[0][1]) == 2
    assert len(method.panoptic(features, text, [True, True])[0][1]) == 4


def test_panoptic_of_an_image_is_that_of_its_features(method):
    segmenter, words = Segmenter(method), ["dog", "sky"]
    text = method.clip.text_embeddings(words, method.templates)
    again = panoptic_image(method, segmenter.encode(picture()).image, text, [True] * 2, object_threshold=0.0)[0]
    assert torch.equal(again, torch.from_numpy(segmenter.panoptic(picture(), words, object_threshold=0.0)[0]))
    assert len(segmenter.panoptic(picture(), words, [False] * 2, object_threshold=0.0)[1]) <= 2
    for wrong in ("dog|cat, sky", "dog"):
        with pytest.raises(ValueError, match="expected one phrase and one flag for each query"):
            segmenter.panoptic(picture(), wrong, [True, True])


@pytest.mark.parametrize("given", [{"points": POINTS}, {"boxes": BOXES}], ids=["points", "boxes"])
def test_prompts_of_an_image_are_the_segmenter_s_own_and_its_features_are_computed_once(method, given):
    segmenter, calls = Segmenter(method), []
    expected = method.prompter.masks_at(picture(), **given)
    seen = segmenter.encode(picture())
    handle = method.prompter.network.backbone.register_forward_hook(lambda *_: calls.append(1))
    found = [seen.masks_at(**given), seen.masks_at(**given)]
    assert len(calls) == 1
    found.append(segmenter.masks_at(picture(), **given))
    handle.remove()
    for masks, quality in found:
        assert torch.equal(masks, expected[0]) and torch.equal(quality, expected[1])
    with pytest.raises(ValueError, match="got both or neither of points and boxes"):
        seen.masks_at()


def test_methods_that_cannot_be_prompted_say_so():
    segmenter = Segmenter(get_method("maskclip", tiny_clip()))
    for ask in (segmenter.masks_at, lambda image, points: segmenter.encode(image).masks_at(points)):
        with pytest.raises(ValueError, match="got the method maskclip, expected one that takes points and boxes"):
            ask(picture(), POINTS)
    with pytest.raises(ValueError, match="got the method maskclip, expected one whose masks are of single things"):
        segmenter.panoptic(picture(), ["dog"])


def test_new_words_need_neither_the_segmenter_nor_clip(method):
    kept, asked = method.encode(randn(1, 3, 32, 32)), []
    parts = (method.prompter.network, method.clip.network.visual.conv1)
    handles = [part.register_forward_hook(lambda *_: asked.append(1)) for part in parts]
    method.scores(kept, random_texts(2, 16))
    method.panoptic(kept, random_texts(5, 16), [True] * 5)
    for handle in handles:
        handle.remove()
    assert not asked


def test_what_was_saved_predicts_the_same_and_brings_its_sizes(method, tmp_path):
    path = tmp_path / "uniovseg.safetensors"
    save_method(method, path, {"steps": "3"})
    found = load_method("uniovseg", tiny_clip(), path)
    assert not found.training and (found.config, found.prompter.config) == (method.config, method.prompter.config)
    for name, value in method.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value.half().float()), name
    assert found.aligned.adapter is found.network["adapter"] and found.aligned.short_sides == (32, 48)
    box = (method.prompter.masks_at(picture(), boxes=BOXES)[0], found.prompter.masks_at(picture(), boxes=BOXES)[0])
    assert (box[0] - box[1]).abs().mean() < 0.01
    assert ovs_lite.segmenter.Segmenter(found).segment(picture(), ["dog", "sky"]).labels.shape == (40, 48)
    with pytest.raises(ValueError, match="whose weights or configuration are not those of the given 'tiny'"):
        load_method("uniovseg", tiny_clip(seed=1), path)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"quality_power": -1.0}])
def test_options_that_are_none_are_refused(method, options):
    with pytest.raises(ValueError, match="expected a positive number, or None|expected 0 or more"):
        method.predict(randn(1, 3, 32, 32), random_texts(2, 16), **options)


@torch.no_grad()
def test_images_without_any_mask_have_scores_of_0_and_no_segment(monkeypatch):
    method, text = make_uniovseg(), random_texts(3, 16)
    nothing = (torch.zeros(0, 8, 8), torch.zeros(0))
    monkeypatch.setattr(type(method.prompter), "grid_masks", lambda self, seen, side=None: [nothing, nothing])
    features = method.encode(randn(2, 3, 32, 32))
    assert features.regions.shape == (2, 0, 16)
    assert torch.equal(method.scores(features, text), torch.zeros(2, 3, 32, 32))
    for ids, infos in method.panoptic(features, text, [True] * 3):
        assert torch.equal(ids, torch.zeros(32, 32, dtype=torch.int64)) and infos == []
