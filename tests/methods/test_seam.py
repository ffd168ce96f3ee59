"""The seam of every method: an image is encoded once, texts and options come later, and predict is both in one."""

import functools

import pytest
import torch

from kit.clips import random_texts
from kit.images import randn
from ovs_lite.checkpoints import load_method
from ovs_lite.clip import load_clip
from ovs_lite.inference import Window, encode_windows, sliding_scores
from ovs_lite.methods import METHODS, Method, get_method, method_class
from ovs_lite.methods.reco.bank import iconworld_bank
from ovs_lite.methods.reco.method import Reco
from ovs_lite.methods.with_pamr import WithPamr

KEYS = [{"key_smoothing": "released"}, {"key_smoothing": "paper", "prompt_denoising": 0.3}]
OPTIONS = {
    "clip-cam": [{}],
    "maskclip": [{}, {"prompt_denoising": 0.5}, *KEYS],
    "sclip": [{}],
    "clearclip": [{}],
    "naclip": [{}],
    "reco": [{}, {"text_attention": False}],
    "openseg": [{}, {"proposals": False}, {"attention": True}, {"pooling": "hard"}],
    "lseg": [{}],
    "uniovseg": [{}, {"quality_power": 0.0}, {"temperature": 0.1}],
    "clip-proposals": [{}],
    "ovseg": [{}, {"ensemble_weight": 0.0}, {"ensemble_weight": 1.0}],
    "tcl": [{}, {"refine": False}, {"kp_weight": 0.0}, {"kp_weight": 0.7, "kp_variant": "paper"}],
}
OWN_BACKBONE = ("openseg", "lseg", "uniovseg")  # uniovseg's CLIP sees an image as often as it has sizes
ONLY_VIT = ("sclip", "clearclip", "naclip")
ALONE = ("clip-cam", "maskclip", "tcl", "openseg", *ONLY_VIT)  # whose classes score the same in any company
CASES = [("ViT-Lite-8", name) for name in OPTIONS if name not in OWN_BACKBONE]
CASES += [("ConvNeXt-Lite", name) for name in OPTIONS if name not in (*ONLY_VIT, "tcl", "ovseg")]


@functools.cache
def built(clip_name, name):
    clip = load_clip(clip_name)
    return Reco(clip, iconworld_bank(clip, 12)) if name == "reco" else load_method(name, clip)


@pytest.fixture(params=CASES, ids="-".join)
def method(request):
    return built(*request.param)


@pytest.fixture
def encoded(method):
    """How many images the tower's first layer has seen, added to at each call."""
    visual, seen = method.clip.network.visual, []
    first = visual.trunk.stem if hasattr(visual, "trunk") else visual.conv1
    if method.name in (*OWN_BACKBONE, "ovseg"):
        first = next(module for name, module in method.network.named_modules() if name.endswith("model.stem"))
    handle = first.register_forward_hook(lambda layer, given, found: seen.append(len(given[0])))
    yield seen
    handle.remove()


def texts(method, count=3, seed=1):
    return random_texts(count, method.clip.embed_dim, seed)


def options_of(method):
    usable = OPTIONS[method.name.removesuffix(" + PAMR")]
    return [o for o in usable if hasattr(method.clip.network.visual, "transformer") or "key_smoothing" not in o]


@pytest.mark.parametrize("size", [(64, 64), (50, 91)])
@pytest.mark.parametrize("pamr", [False, True], ids=["bare", "PAMR"])
def test_every_text_and_every_option_is_scored_from_one_encoding(method, pamr, size, encoded):
    method = WithPamr(method).eval() if pamr else method
    images = randn(2, 3, *size)
    method.predict(images, texts(method))  # ReCo draws its bank at first
    encoded.clear()
    features = method.encode(images)
    once, found = sum(encoded), []
    for options in options_of(method):
        for text in (texts(method), texts(method, 1, seed=2)):
            found.append((text, options, method.scores(features, text, **options)))
    assert sum(encoded) == once == len(images)
    for text, options, scores in found:
        assert torch.equal(scores, method.predict(images, text, **options)), options
        assert scores.shape == (2, len(text), *size) and not scores.requires_grad
    assert sum(encoded) == once * (1 + len(found))
    different = [scores for text, _, scores in found if len(text) == 3]
    assert all((first - second).abs().max() > 1e-4 for first, second in zip(different, different[1:], strict=False))


def test_windows_are_encoded_once(method, encoded):
    images, window = randn(2, 3, 64, 120), Window(64, 64, 32)
    method.predict(images, texts(method))
    encoded.clear()
    features = encode_windows(method, images, window)
    assert sum(encoded) == 2 * 3
    for options in options_of(method):
        for text in (texts(method), texts(method, 2, seed=3)):
            found = features.scores(text, **options)
            windows = [method.predict(images[..., left : left + 64], text, **options) for left in (0, 32, 56)]
            total, times = torch.zeros(2, len(text), 64, 120), torch.zeros(120)
            for left, scores in zip((0, 32, 56), windows, strict=True):
                total[..., left : left + 64] += scores
                times[left : left + 64] += 1
            torch.testing.assert_close(found, total / times, atol=1e-5, rtol=1e-5)
    encoded.clear()
    features.scores(texts(method, 4))
    assert encoded == []
    assert torch.equal(sliding_scores(method, images, text, window, **options), found)


def test_a_class_scores_the_same_in_any_company_where_a_method_says_so(method):
    features, text = method.encode(randn(1, 3, 64, 64)), texts(method, 5)
    for options in options_of(method):
        whole = method.scores(features, text, **options)
        apart = torch.cat([method.scores(features, part, **options) for part in text.split(2)], 1)
        if method.scores_each_class_alone(**options):
            torch.testing.assert_close(apart, whole, atol=1e-5, rtol=1e-5)
    assert method.scores_each_class_alone() == (method.name in ALONE)


@pytest.mark.parametrize("name", METHODS)
def test_predict_is_written_once(name):
    kind = method_class(name)
    assert kind.predict is Method.predict and kind.encode is not Method.encode and kind.scores is not Method.scores


def test_a_method_with_an_encoder_of_its_own_takes_no_clip():
    own = [name for name in METHODS if method_class(name).load_own is not None]
    assert own == ["groupvit"]
    for clip in (("ViT-Lite-8", "lite"), load_clip("ViT-Lite-8", pretrained=None)):
        with pytest.raises(ValueError, match="got the CLIP .*ViT-Lite-8.*, but groupvit has an encoder of its own"):
            load_method("groupvit", clip)


def test_a_checkpoint_is_checked_before_a_clip_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.trained.load_clip", lambda *args: pytest.fail("a CLIP was loaded"))
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such weights"):
        load_method("tcl", ("ViT-Lite-8", "lite"), tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="maskclip has no trained weights"):
        load_method("maskclip", None, tmp_path / "none.safetensors")


def test_without_a_clip_it_is_the_shipped_one():
    method = load_method("maskclip")
    assert method.clip.name == "ViT-Lite-8" and not method.training
    images, text = randn(1, 3, 64, 64), texts(method)
    assert torch.equal(method.predict(images, text), get_method("maskclip", load_clip()).predict(images, text))
