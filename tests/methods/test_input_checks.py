"""What `predict`, `encode` and `scores` say to inputs of the wrong shape, type, class or device: got / expected."""

import functools

import pytest
import torch

from kit.clips import random_clip, random_texts
from kit.images import randn
from ovs_lite.methods import METHODS, get_method, method_class
from ovs_lite.methods.base import PatchFeatures
from ovs_lite.methods.reco.bank import ImageBank
from ovs_lite.methods.reco.method import Reco
from ovs_lite.methods.with_pamr import WithPamr

NAMES = [name for name in METHODS if method_class(name).load_own is None]


@functools.cache
def built(name):
    """ReCo's own bank, of a thousand drawings, is tested with it."""
    clip = random_clip()
    if name == "reco":
        return Reco(clip, ImageBank.from_images(clip, randn(60, 3, 64, 64).sigmoid())).eval()
    return get_method(name, clip).eval()


@functools.cache
def encoded(method):
    return method.encode(randn(1, 3, 64, 64))


@pytest.fixture(params=[*NAMES, f"{NAMES[0]} + PAMR"])
def method(request):
    name, _, pamr = request.param.partition(" + ")
    return WithPamr(built(name)) if pamr else built(name)


WRONG_IMAGES = {
    "a list": [[1.0]], "an array": randn(1, 3, 64, 64).numpy(), "one image": randn(3, 64, 64),
    "grey": randn(1, 1, 64, 64), "channels last": randn(1, 64, 64, 3), "none": randn(0, 3, 64, 64),
    "no pixel": randn(1, 3, 0, 64), "bytes": randn(1, 3, 64, 64).byte(), "double": randn(1, 3, 64, 64).double(),
    "elsewhere": torch.zeros(1, 3, 64, 64, device="meta"),
}  # fmt: skip
WRONG_TEXTS = {
    "names": ["cat", "dog"], "an array": random_texts(2).numpy(), "one text": random_texts(1)[0],
    "another CLIP's": random_texts(2, 512), "per image": random_texts(2)[None], "none": random_texts(0),
    "integers": random_texts(2).long(), "half": random_texts(2).half(), "elsewhere": torch.zeros(2, 128, device="meta"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_wrong_images_are_refused_in_words(method, kind):
    for call in (method.encode, lambda images: method.predict(images, random_texts(2))):
        with pytest.raises(ValueError, match=r"^got images .*, expected .*"):
            call(WRONG_IMAGES[kind])


@pytest.mark.parametrize("kind", WRONG_TEXTS)
def test_wrong_texts_are_refused_in_words(method, kind):
    features = encoded(method)
    for call in (lambda text: method.scores(features, text), lambda text: method.predict(randn(1, 3, 64, 64), text)):
        with pytest.raises(ValueError, match=r"^got text_embeddings .*, expected .*"):
            call(WRONG_TEXTS[kind])


def test_features_that_encode_did_not_return_are_refused(method):
    expected = r"^got features of type \w+, expected \w+Features, which .*'s encode returns"
    for wrong in (randn(1, 3, 64, 64), None, random_texts(2), object()):
        with pytest.raises(ValueError, match=expected):
            method.scores(wrong, random_texts(2))


def test_features_of_another_clip_are_refused():
    with pytest.raises(ValueError, match="got features with 512 channels, expected 128"):
        built("clip-cam").scores(PatchFeatures((64, 64), randn(1, 512, 8, 8)), random_texts(2))


@pytest.mark.parametrize(
    "name, options, message",
    [("maskclip", {"refine": True}, "got option 'refine', expected one of key_smoothing, prompt_denoising for mask"),
     ("clip-cam", {"x": 1}, "got option 'x', expected one of none for clip-cam"),
     ("tcl", {"refine": "no"}, "got refine='no', expected a value like True for tcl"),
     ("tcl", {"kp_weight": "0.3"}, "got kp_weight='0.3', expected a value like 0.3 for tcl"),
     ("tcl", {"kp_weight": True}, "got kp_weight=True"), ("tcl", {"kp_weight": None}, "got kp_weight=None"),
     ("reco", {"text_attention": 0}, "got text_attention=0, expected a value like True for reco")],
)  # fmt: skip
def test_options_of_another_name_or_type_are_refused(name, options, message):
    for method in (built(name), WithPamr(built(name))):
        with pytest.raises(ValueError, match=message):
            method.predict(randn(1, 3, 64, 64), random_texts(2), **options)


def test_scores_that_are_nan_are_an_error_and_no_class(method):
    images, text = randn(1, 3, 64, 64), random_texts(2)
    for given in ((images, text * torch.nan), (images * torch.nan, text)):
        with pytest.raises(ValueError, match=r"got scores of .* that are NaN, expected numbers"):
            method.predict(*given)


def test_any_number_is_a_number():
    found = [built("tcl").predict(randn(1, 3, 64, 64), random_texts(2), kp_weight=one) for one in (1, 1.0)]
    assert torch.equal(*found)
