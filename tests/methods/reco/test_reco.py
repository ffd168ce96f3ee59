"""ReCo: votes against loops, a planted common object, the bank's figures, and what is computed how often."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from kit.images import randn
from ovs_lite.clip import load_clip
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.stream import CaptionStream
from ovs_lite.inference import Window, encode_image
from ovs_lite.methods.reco.bank import ALONE, ICONWORLD_SEED, ImageBank, iconworld_bank
from ovs_lite.methods.reco.method import Reco, prototype, seeds, votes


@pytest.fixture(scope="module")
def clip():
    return load_clip("ViT-Lite-8")


@pytest.fixture(scope="module")
def bank(clip):
    return iconworld_bank(clip, 60)


def unit(*shape, seed=0):
    """Random features, L2-normalised along axis 1."""
    return F.normalize(randn(*shape, seed=seed), dim=1)


def slow_votes(features):
    k, _, height, width = features.shape
    result = torch.zeros(k, height, width)
    cells = list(itertools.product(range(height), range(width)))
    for a, (y, x) in itertools.product(range(k), cells):
        others = [b for b in range(k) if b != a]
        best = [max(float(features[a, :, y, x] @ features[b, :, v, u]) for v, u in cells) for b in others]
        result[a, y, x] = sum(best) / len(others)
    return result


@pytest.mark.parametrize("k", [2, 4])
def test_votes_equal_a_loop_over_pairs_of_places(k):
    features = unit(k, 5, 2, 3)
    torch.testing.assert_close(votes(features), slow_votes(features))


def test_votes_follow_pictures_and_places_wherever_they_lie():
    features = unit(4, 5, 1, 6)
    pictures, places = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 0, 1, 4, 2])
    expected = votes(features)[pictures][..., places]
    torch.testing.assert_close(votes(features[pictures][..., places]), expected)


def planted(k=4, channels=32, side=4):
    """Pictures of noise with one vector in common, at another place in each."""
    features, common, where = unit(k, channels, side, side), unit(1, channels, seed=9)[0], [3, 8, 0, 14][:k]
    for number, place in enumerate(where):
        features[number, :, place // side, place % side] = common
    return features, common, where


def test_what_pictures_have_in_common_is_found():
    features, common, where = planted()
    found = seeds(votes(features))
    assert found.tolist() == where
    torch.testing.assert_close(prototype(features, found), common)


def test_the_prototype_is_the_normalised_mean_of_one_place_per_picture():
    features = unit(3, 5, 2, 3)
    expected = features[0, :, 0, 1] + features[1, :, 1, 2] + features[2, :, 0, 0]
    torch.testing.assert_close(prototype(features, torch.tensor([1, 5, 0])), expected / expected.norm())


@torch.no_grad()
@pytest.mark.parametrize("name", ["ViT-Lite-8", "ConvNeXt-Lite"])
def test_the_bank_holds_what_clip_sees(name):
    clip, pictures = load_clip(name), list(CaptionStream(7, 64, 3)(0)[0])
    bank = ImageBank.from_images(clip, iter(pictures), chunk=3, dtype=torch.float32)
    images = clip.normalise(torch.stack(pictures))
    torch.testing.assert_close(bank.embeddings, clip.encode_image(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bank.features, F.normalize(clip.dense(images, "last"), dim=1), atol=1e-5, rtol=1e-4)
    assert len(bank) == 7


def test_pictures_of_any_kind_and_size_become_squares(clip):
    pixels = CaptionStream(1, 96, 3)(0)[0][0]
    drawing = transforms.to_pil_image(pixels)
    as_tensor, as_pil = (ImageBank.from_images(clip, [p], dtype=torch.float32) for p in (pixels, drawing))
    assert as_tensor.features.shape == as_pil.features.shape == (1, 128, 8, 8)
    assert float((as_tensor.embeddings * as_pil.embeddings).sum()) > 0.99
    wide = ImageBank.from_images(clip, [drawing.resize((150, 64)), Image.new("L", (9, 9))])
    assert wide.features.shape == (2, 128, 8, 8) and wide.features.dtype == torch.float16
    torch.testing.assert_close(wide.features.float().norm(dim=1), torch.ones(2, 8, 8), atol=2e-3, rtol=0)


def test_the_nearest_pictures_come_first():
    bank = ImageBank(unit(9, 5), unit(9, 4, 2, 2))
    text = unit(1, 5, seed=3)[0]
    cosines = [float(row @ text) for row in bank.embeddings]
    expected = sorted(range(9), key=lambda n: -cosines[n])
    assert bank.nearest(text, 9).tolist() == expected and bank.nearest(text, 2).tolist() == expected[:2]
    for wrong in (0, 10):
        with pytest.raises(ValueError, match=f"k={wrong} for a bank of 9 images"):
            bank.nearest(text, wrong)


def test_the_default_bank_shows_every_noun_and_words_find_it():
    clip, nouns = load_clip("ConvNeXt-Lite"), load_nouns()
    bank = iconworld_bank(clip, len(nouns))
    captions = CaptionStream(len(nouns), 64, ICONWORLD_SEED, (ALONE,))(0)[1]
    names = [noun.noun for noun in nouns]
    found = [captions[int(bank.nearest(text, 1))] for text in clip.text_embeddings(names)]
    assert sum(name in caption for name, caption in zip(names, found, strict=True)) > 0.4 * len(names), found
    first = iconworld_bank(clip, 70)  # crosses a chunk
    torch.testing.assert_close(first.embeddings, bank.embeddings[:70], atol=1e-5, rtol=1e-4)
    other = iconworld_bank(clip, 2, seed=1)
    assert (other.embeddings - bank.embeddings[:2]).abs().max() > 0.01


@torch.no_grad()
def slow_scores(clip, bank, images, text, k, attention=True):
    """For one text and one picture of whole patches, at patches: retrieval, votes and the two factors by loops."""
    cosines = [float(row @ text) for row in bank.embeddings]
    features = bank.features[sorted(range(len(bank)), key=lambda n: -cosines[n])[:k]].float()
    voted = slow_votes(features).flatten(1)
    seeds = [features[n].flatten(1)[:, max(range(voted.shape[1]), key=lambda p: voted[n, p])] for n in range(k)]
    proto = sum(seeds) / sum(seeds).norm()
    own, text_aligned = (F.normalize(clip.dense(images, mode), dim=1)[0] for mode in ("last", "value"))
    scores = torch.zeros(own.shape[1:])
    for y, x in itertools.product(*map(range, scores.shape)):
        scores[y, x] = 1 / (1 + math.exp(-float(own[:, y, x] @ proto)))
        if attention:
            scores[y, x] /= 1 + math.exp(-10 * float(text_aligned[:, y, x] @ text))
    return scores


@pytest.mark.parametrize("attention", [True, False])
def test_scores_equal_loops_over_patches(clip, attention):
    """Each factor is a sigmoid at patches, then enlarged; the product is of pixels."""
    bank = ImageBank(unit(6, 128), unit(6, 128, 2, 3, seed=1))
    image, text = randn(1, 3, 24, 32), unit(2, 128, seed=4)
    method = Reco(clip, bank, k=3)
    found = method.predict(image, text, text_attention=attention)[0]
    own = torch.stack([slow_scores(clip, bank, image, row, 3, False) for row in text])
    expected = F.interpolate(own[None], (24, 32), mode="bilinear")[0]
    if attention:
        both = torch.stack([slow_scores(clip, bank, image, row, 3) for row in text])
        expected = expected * F.interpolate((both / own)[None], (24, 32), mode="bilinear")[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("height, width", [(64, 64), (40, 70)])
def test_shape_range_order_and_company(clip, bank, height, width):
    method, images = Reco(clip, bank), randn(2, 3, height, width)
    text = clip.text_embeddings(["cat", "grass", "sky", "umbrella"])
    scores, order = method.predict(images, text), torch.tensor([3, 0, 2, 1])
    assert scores.shape == (2, 4, height, width) and not scores.requires_grad
    assert scores.min() > 0 and scores.max() < 1 and (scores[:, 0] - scores[:, 1]).abs().max() > 1e-3
    torch.testing.assert_close(method.predict(images, text[order]), scores[:, order], atol=1e-5, rtol=1e-4)
    for k in range(4):
        alone = Reco(clip, bank).predict(images[:1], text[k : k + 1])
        torch.testing.assert_close(alone, scores[:1, k : k + 1], atol=1e-5, rtol=1e-4)


def test_a_convnet_can_be_the_clip():
    clip = load_clip("ConvNeXt-Lite", pretrained=None)
    method = Reco(clip, iconworld_bank(clip, 12), k=3)
    assert method.predict(randn(1, 3, 64, 100), unit(2, 128)).shape == (1, 2, 64, 100)


def test_a_text_is_co_segmented_once_whatever_the_windows(clip, bank, monkeypatch):
    method, asked = Reco(clip, bank), []
    plain = ImageBank.nearest
    monkeypatch.setattr(ImageBank, "nearest", lambda self, text, k: asked.append(text) or plain(self, text, k))
    picture, text = Image.new("RGB", (200, 100), "teal"), clip.text_embeddings(["cat", "grass", "cat"])
    encode_image(method, picture, Window(128, 64, 32)).scores(text)
    assert len(asked) == 2, "one query twice, many windows"
    first = method.prototypes(text)
    assert torch.equal(first[0], first[2]) and len(asked) == 2
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    changed = method.prototypes(clip.text_embeddings(["cat", "dog"]))
    assert len(asked) == 3 and torch.equal(changed[0], first[0]) and (changed[1] - first[1]).abs().max() > 1e-3
    assert method.prototypes(text[:0]).shape == (0, 128)


def test_the_default_bank_is_drawn_at_the_first_prediction(clip, bank, monkeypatch):
    made = []
    monkeypatch.setattr("ovs_lite.methods.reco.method.iconworld_bank", lambda clip: made.append(clip) or bank)
    method = Reco(clip)
    assert made == []
    method.predict(randn(1, 3, 64, 64), unit(1, 128))
    method.predict(randn(1, 3, 64, 64), unit(1, 128, seed=5))
    assert made == [clip] and method.bank is bank
    assert Reco(clip, bank).bank is bank and len(made) == 1


def test_wrong_banks_and_numbers_are_named(clip, bank):
    with pytest.raises(ValueError, match="k=1, expected at least 2"):
        Reco(clip, bank, k=1)
    with pytest.raises(ValueError, match="1 images to co-segment"):
        votes(unit(1, 5, 2, 2))
    with pytest.raises(ValueError, match="k=61 for a bank of 60"):
        Reco(clip, bank, k=61).predict(randn(1, 3, 64, 64), unit(1, 128))
    with pytest.raises(ValueError, match="bank with 64 dimensions, ViT-Lite-8 has 128"):
        Reco(clip, ImageBank(unit(3, 64), unit(3, 64, 2, 2)))
    with pytest.raises(ValueError, match="no image for the bank"):
        ImageBank.from_images(clip, [])
    with pytest.raises(ValueError, match=r"shape \(1, 3, 64, 64\), expected PIL"):
        ImageBank.from_images(clip, [randn(1, 3, 64, 64)])
    for embeddings, features in (
        (unit(2, 5), unit(3, 5, 2, 2)),
        (unit(2, 5), unit(2, 5)),
        (unit(0, 5), unit(0, 5, 2, 2)),
    ):
        with pytest.raises(ValueError, match="a bank with embeddings"):
            ImageBank(embeddings, features)
