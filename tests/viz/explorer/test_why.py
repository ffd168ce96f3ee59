"""Why a pixel has its label: against segmenting once per sentence, and against proposals that are known."""

import numpy as np
import pytest
import torch

from kit.colour_methods import Plain
from kit.images import noise
from ovs_lite.data.templates import fill, template_set
from ovs_lite.segmenter import Segmenter
from ovs_lite.viz.explorer.why import why

WORDS, X, Y = "red|white, green, blue", 21.7, 9.3


class Competing(Plain):
    """Classes compete."""

    def scores(self, images, text_embeddings):
        return super().scores(images, text_embeddings).softmax(1)


class Alone(Plain):
    def scores_each_class_alone(self):
        return True


class Halves(Plain):
    """Mask-based: the left half, a square in it, and the top right pixel; an empty mask."""

    def regions(self, images, text_embeddings):
        masks = torch.zeros(4, *images.shape[-2:])
        masks[0, :, :8], masks[1, 4:8, 2:6], masks[2, 0, 15] = 0.75, 1.0, 1.0
        probs = torch.tensor([[0.25, 0.5, 0], [0.125, 0, 0.75], [1.0, 0, 0], [1.0, 1, 1]])
        return [(masks, probs)]


@pytest.mark.parametrize("method", [Plain, Competing, Alone])
def test_a_sentence_scores_as_if_it_stood_for_the_word_alone(method):
    model, image = Segmenter(method()), noise(24, 32)
    seen = model.encode(image)
    result = seen.segment(WORDS)
    found = dict(why(seen, result, WORDS, X, Y)["templates"])
    best = int(result.logits[:, int(Y), int(X)].argmax())
    name = ["red", "green", "blue"][best]
    usual, clip, expected = model.clip.text_embeddings(["red", "white", "green", "blue"], ""), model.clip, {}
    for sentence in (fill(pattern, name) for pattern in template_set(model.method.templates)):
        clip.text_embeddings = lambda names, templates, one=sentence: usual.index_copy(
            0, torch.tensor([names.index(name)]), clip.encode_text([one])
        )
        expected[sentence] = float(seen.segment(WORDS).logits[best, int(Y), int(X)])
    assert set(found) == set(expected) and len(found) > 1
    assert all(found[one] == pytest.approx(expected[one], rel=6e-3) for one in expected)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_proposals_that_cover_a_pixel_are_named_best_first_else_the_nearest():
    seen = Segmenter(Halves()).encode(noise(16, 16))
    asked = "red, green, blue"
    found = why(seen, seen.segment(asked), asked, 3.5, 5.5)
    assert "cover it" in found["mask_note"]
    assert [round(cover, 2) for _, cover in found["masks"]] == [1.0, 0.75]
    assert found["masks"][0][0] == "mask 2: blue 0.75, 6 % of the window"
    assert found["masks"][1][0] == "mask 1: green 0.5, 50 % of the window"
    beside = why(seen, seen.segment(asked), asked, 11, 0)
    assert "nearest" in beside["mask_note"]
    assert beside["masks"] == [["mask 1: green 0.5, 50 % of the window, 4 pixels away", 0.0]]
    assert why(seen, seen.segment(asked), asked, 13, 0)["masks"][0][0].startswith("mask 3: red 1.0, <1 %")


def test_a_pixel_based_method_has_no_proposals_and_a_region_is_connected():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 2] = 255
    image[:, :4] = image[:, 12:] = (255, 0, 0)  # red, blue, red
    seen = Segmenter(Plain()).encode(image)
    result = seen.segment("red, blue")
    assert (result.labels == 0).mean() == 0.5
    found = why(seen, result, "red, blue", 1, 1)
    assert found["masks"] == [] and found["mask_note"] == "" and "25 % of the image" in found["region"]
