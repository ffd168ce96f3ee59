"""Features that are kept: the same scores, one encoding per batch of images, the method's own options."""

import pytest
import torch

from kit.clips import random_texts
from kit.images import randn
from kit.ovseg import make_ovseg
from ovs_lite.methods.with_kept_features import WithKeptFeatures


def test_scores_are_the_methods_own_and_a_batch_is_encoded_once():
    method = make_ovseg()
    kept, encoded, plain = WithKeptFeatures(method), [], method.encode
    method.encode = lambda images: encoded.append(len(images)) or plain(images)
    first, second = randn(2, 3, 32, 32), randn(2, 3, 32, 32, seed=5)
    for weight in (0.0, 0.7, 1.0):
        for images in (first, second):
            expected = method.scores(plain(images), random_texts(3, 16), ensemble_weight=weight)
            assert torch.equal(kept.predict(images, random_texts(3, 16), ensemble_weight=weight), expected)
    assert encoded == [2, 2] and kept.name == method.name and kept.templates == method.templates


def test_another_option_is_refused_as_by_the_method():
    kept = WithKeptFeatures(make_ovseg())
    with pytest.raises(ValueError, match="got option 'pooling', expected one of ensemble_weight for ovseg"):
        kept.predict(randn(1, 3, 32, 32), random_texts(3, 16), pooling="hard")
