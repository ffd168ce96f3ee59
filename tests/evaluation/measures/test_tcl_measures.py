"""The small measures of notebook 04: areas of masks, specific prompts, speed. On methods whose answers are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kit.records import make_record
from kit.vocabularies import vocabulary
from ovs_lite.evaluation.measures.mask_areas import mean_mask_areas
from ovs_lite.evaluation.measures.prompt_specificity import Twins, prompt_specificity, twin_images
from ovs_lite.evaluation.measures.speed import seconds_per_image

CLASSES = ["cat", "dog", "tree"]
WORLD = vocabulary(*CLASSES)


class Words:
    """A CLIP whose embedding of the n-th text that it is ever asked for is the n-th axis."""

    image_size, device, embed_dim = 8, torch.device("cpu"), 32

    def __init__(self):
        self.known, self.asked = {}, []

    def text_embeddings(self, names, templates="vild14"):
        return torch.stack([torch.eye(32)[self.known.setdefault(name, len(self.known))] for name in names])

    def encode_text(self, prompts, normalise=True):
        self.asked.append(list(prompts))
        return self.text_embeddings(prompts)

    def normalise(self, images):
        return images

    def preprocess(self, image, size):
        return torch.from_numpy(np.array(image.resize((size, size), 0))).permute(2, 0, 1)[None] / 255


class Areas:
    """Every mask is a constant: 0.1 for the first text, 0.2 for the second, and so on."""

    templates, name = "vild14", "areas"

    def __init__(self):
        self.clip = Words()

    def predict(self, images, text_embeddings, gain=1.0):
        values = gain * (text_embeddings.argmax(1) + 1) / 10
        return values.view(1, -1, 1, 1).expand(len(images), -1, *images.shape[-2:])


def record(**areas):
    info = [{"id": i + 1, "category_id": CLASSES.index(n), "area": a} for i, (n, a) in enumerate(areas.items())]
    return make_record("toy", Image.new("RGB", (10, 10)), None, info)


def test_areas_are_told_apart_by_what_is_in_the_picture():
    found = mean_mask_areas(Areas(), [record(cat=30), record(cat=10, dog=50)], WORLD)
    assert found.present == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert found.absent == pytest.approx((0.2 + 0.3 + 0.3) / 3)
    assert found.truth == pytest.approx((0.3 + 0.1 + 0.5) / 3)
    assert found.absent_by_image == pytest.approx((0.25, 0.3))
    doubled = mean_mask_areas(Areas(), [record(cat=30)], WORLD, gain=2.0)
    assert doubled.present == pytest.approx(0.2)


def test_two_segments_of_a_class_are_one_area():
    both = record(cat=30)
    both["segments_info"].append({"id": 9, "category_id": 0, "area": 20})
    assert mean_mask_areas(Areas(), [both], WORLD).truth == pytest.approx(0.5)


def test_nothing_labelled_is_an_error_and_nothing_absent_is_nan():
    with pytest.raises(ValueError, match="no image with a class of 'toy'"):
        mean_mask_areas(Areas(), [record()], WORLD)
    assert np.isnan(mean_mask_areas(Areas(), [record(cat=1, dog=1, tree=1)], WORLD).absent)


def twins():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 4:] = True, True
    image = torch.zeros(3, 8, 8)
    image[0, :, :4], image[2, :, 4:] = 1, 1
    return Twins(image, "cat", ("red", "blue"), masks)


class Colours:
    """Knows colours when asked to: the text's mask is where the picture has its colour; "cat" is everywhere."""

    templates = "single"

    def __init__(self, knows=1.0):
        self.clip, self.knows = Words(), knows

    def predict(self, images, text_embeddings):
        names = [list(self.clip.known)[int(row.argmax())] for row in text_embeddings]
        everywhere = torch.ones(images.shape[-2:])
        maps = {"red cat": images[0, 0], "blue cat": images[0, 2]}
        rows = [self.knows * maps.get(n, everywhere) + (1 - self.knows) * everywhere for n in names]
        return torch.stack(rows)[None]


def test_who_knows_colours_gains_and_who_does_not_gains_nothing():
    knows = prompt_specificity(Colours(), iter([twins(), twins()]), threshold=0.4)
    assert knows.noun == pytest.approx(0.5) and knows.specific == 1.0 and knows.share == 1.0 and knows.images == 2
    assert knows.gains == pytest.approx((0.5, 0.5))
    blind = prompt_specificity(Colours(knows=0.0), iter([twins()]), threshold=0.4)
    assert blind.noun == blind.specific == pytest.approx(0.5) and blind.share == pytest.approx(0.5)
    half = prompt_specificity(Colours(knows=0.5), iter([twins()]), threshold=0.4)
    assert half.specific == pytest.approx(0.5) and half.share == pytest.approx(1 / 1.5)
    swapped = replace(twins(), masks=twins().masks.flip(0))
    mixed = prompt_specificity(Colours(), iter([twins(), swapped]), threshold=0.4)
    assert mixed.shares == pytest.approx((1.0, 0.0)) and mixed.share == pytest.approx(0.5), "each colour on the other"
    hidden = twins()
    hidden.masks[1, :2] = False
    uneven = prompt_specificity(Colours(knows=0.0), iter([hidden]), threshold=0.4)
    assert uneven.shares == pytest.approx((0.5,)), "one mask for both: what the smaller thing lacks the larger one has"
    with pytest.raises(ValueError, match="no image"):
        prompt_specificity(Colours(), iter([]), threshold=0.4)


def test_twins_are_two_of_a_kind_in_two_colours_and_always_the_same():
    first, again, other = (list(twin_images(6, 64, seed)) for seed in (0, 0, 1))
    assert len(first) == 6 and all(pair.colours[0] != pair.colours[1] for pair in first)
    for pair in first:
        assert pair.masks.shape == (2, 64, 64) and pair.masks.flatten(1).any(1).all()
        assert not (pair.masks[0] & pair.masks[1]).any()
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].image, other[0].image)


def test_speed_reads_all_texts_for_every_image_and_the_cases_take_turns(monkeypatch):
    clock = iter(np.arange(0, 100, 0.25))
    monkeypatch.setattr("ovs_lite.evaluation.measures.speed.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    asked, first, second = [], Areas(), Areas()
    first.clip.asked = second.clip.asked = asked
    second.predict = lambda images, texts, slow: [next(clock) for _ in range(slow)]
    found = seconds_per_image({"a": (first, {}), "b": (second, {"slow": 2})}, ["cat", "dog"], 16, repeats=3)
    assert found["a"].tolist() == [0.25] * 3 and found["b"].tolist() == [0.75] * 3
    assert asked == [["a photo of a cat.", "a photo of a dog."]] * 2 * 4
    with pytest.raises(ValueError, match="repeats=0"):
        seconds_per_image({}, ["cat"], 16, repeats=0)
