"""The ensemble of both stages against loops over proposals and classes; what is kept, saved and refused."""

import pytest
import torch
import torch.nn.functional as F

from kit.clips import random_texts, tiny_clip
from kit.images import randn
from kit.ovseg import make_ovseg
from ovs_lite.checkpoints import load_method, save_method
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.ovseg.method import OVSeg, ensemble


def slow_scores(method, images, text, weight):
    """Sum over proposals of (softmax over K + 1, void dropped)^(1-w) (softmax over K)^w sigmoid(mask), as released."""
    kept = method.encode(images)
    segmenter = method.network["segmenter"].network
    classes = torch.cat([text, F.normalize(segmenter.no_object.detach(), dim=0)[None]])
    scale = min(100.0, float(method.clip.logit_scale.exp()))
    height, width = images.shape[-2:]
    padded = [4 * side for side in kept.mask_logits.shape[-2:]]
    masks = F.interpolate(kept.mask_logits, padded, mode="bilinear", align_corners=False).sigmoid()
    masks = masks[..., :height, :width]
    total = torch.zeros(len(images), len(text), *images.shape[-2:])
    for b in range(len(images)):
        for n in range(masks.shape[1]):
            first = torch.stack([100 * kept.embeddings[b, n] @ c for c in classes]).softmax(0)[:-1]
            second = torch.stack([scale * kept.regions[b, n] @ c for c in text]).softmax(0)
            if not kept.valid[b, n]:
                second = torch.zeros(len(text)) if weight == 1 else torch.ones(len(text))
            for k in range(len(text)):
                total[b, k] += first[k] ** (1 - weight) * second[k] ** weight * masks[b, n]
    return total


@pytest.fixture(scope="module")
def method():
    made = make_ovseg()
    with torch.no_grad():  # masks of all kinds, some of them empty
        made.network["segmenter"].network.to_mask.requires_grad_(False)[-2].bias.add_(torch.linspace(-1, 1, 16))
    return made


@pytest.mark.parametrize("weight", [0.0, 0.45, 0.7, 1.0])
@torch.no_grad()
def test_scores_equal_loops_over_proposals_and_classes(method, weight):
    images, text = randn(2, 3, 32, 48), random_texts(4, 16)
    found = method.predict(images, text, ensemble_weight=weight)
    torch.testing.assert_close(found, slow_scores(method, images, text, weight), atol=1e-4, rtol=1e-4)


def probabilities(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


def test_an_invalid_proposal_counts_as_certain_of_everything_and_has_no_say_in_clip_alone():
    first, second = probabilities(2, 3), probabilities(2, 3, seed=1)
    valid = torch.tensor([True, False])
    found = ensemble(first, second, valid, 0.7)
    torch.testing.assert_close(found[1], first[1] ** 0.3)
    torch.testing.assert_close(found[0], first[0] ** 0.3 * second[0] ** 0.7)
    assert (ensemble(first, second, valid, 1.0)[1] == 0).all()
    torch.testing.assert_close(ensemble(first, second, valid, 0.0), first)


@pytest.mark.parametrize("seed", range(10))
def test_a_class_that_both_prefer_wins_at_every_weight(seed):
    first, second = probabilities(5, 4, seed=seed), probabilities(5, 4, seed=seed + 50)
    second = second.gather(1, second.argsort(1)).scatter(1, first.argsort(1), second.sort(1).values)  # the same order
    for weight in (0.0, 0.3, 0.7, 1.0):
        joined = ensemble(first, second, torch.ones(5, dtype=torch.bool), weight)
        assert torch.equal(joined.argmax(1), first.argmax(1))
        torch.testing.assert_close(joined.log(), (1 - weight) * first.log() + weight * second.log())


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="ensemble weight"):
        ensemble(probabilities(2, 3), probabilities(2, 3), torch.ones(2, dtype=torch.bool), weight)


def test_new_words_need_no_new_crops(method):
    kept = method.encode(randn(1, 3, 32, 32))
    asked = []
    handle = method.prompted.network.visual.conv1.register_forward_hook(lambda *_: asked.append(1))
    method.scores(kept, random_texts(2, 16))
    method.scores(kept, random_texts(5, 16))
    handle.remove()
    assert not asked


@pytest.mark.parametrize("last", [False, True])
def test_what_was_saved_predicts_the_same_and_brings_its_sizes(tmp_path, last):
    method, clip = make_ovseg(depth=1, last=last), tiny_clip()
    save_method(method, tmp_path / "ovseg.safetensors")
    back = load_method("ovseg", clip, tmp_path / "ovseg.safetensors")
    assert (back.prompted.depth, back.prompted.last) == (1, last) and back.config == method.config
    assert back.network["segmenter"].config == method.network["segmenter"].config
    images, text = randn(1, 3, 32, 32), random_texts(3, 16)
    torch.testing.assert_close(back.predict(images, text), method.predict(images, text), atol=0.05, rtol=0.05)
    assert torch.equal(back.prompted.mask_embedding, method.prompted.mask_embedding.half().float())


def test_a_maskformer_of_other_embeddings_is_refused():
    segmenter = MaskFormerProposer(MaskFormerConfig(backbone="test_convnext"), random_texts(5, 12))
    with pytest.raises(ValueError, match="embeddings of 12 numbers, expected the 16 of tiny"):
        OVSeg(tiny_clip(), segmenter)
