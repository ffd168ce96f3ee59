"""Sentences are read to the end of the longest, and nothing changes by it."""

import open_clip
import pytest
import torch

from ovs_lite.clip.text_tower import encode_tokens

VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 3}


def network(kind: type = open_clip.CLIP, **text) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT | text).double()


def sentences(lengths: tuple[int, ...]) -> torch.Tensor:
    """As the tokenizer's: words, an end token of the highest number, zeros."""
    tokens = torch.zeros(len(lengths), 16, dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length], row[length - 1] = torch.randint(1, 63, (length,)), 63
    return tokens


def read(model: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Embeddings and how many tokens of a sentence the transformer saw."""
    seen = []
    part = getattr(model, "text", model).transformer
    handle = part.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    found = encode_tokens(model, tokens)
    handle.remove()
    return found, seen[0]


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("lengths", [(2,), (5, 3, 9), (16, 4)])
@pytest.mark.parametrize("head", [{}, {"proj_bias": True}, {"proj_type": "none", "width": 24}])
def test_as_the_whole_context(kind, lengths, head):
    if kind is open_clip.CLIP and "proj_bias" in head:
        head = {}  # open_clip's plain CLIP has no such projection
    model, tokens = network(kind, **head), sentences(lengths)
    found, seen = read(model, tokens)
    assert seen == max(lengths)
    torch.testing.assert_close(found, model.encode_text(tokens), atol=1e-10, rtol=0)


def test_gradients_as_those_of_the_whole_context():
    model, tokens = network(), sentences((4, 7))
    grads = []
    for encode in (model.encode_text, lambda given: encode_tokens(model, given)):
        model.zero_grad()
        encode(tokens).square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_a_tower_that_reads_the_padding_gets_it(text):
    model, tokens = network(open_clip.CustomTextCLIP, **text), sentences((3, 5))
    found, seen = read(model, tokens)
    assert seen >= 16
    assert torch.equal(found, model.encode_text(tokens))
    changed = model.encode_text(torch.where(tokens == 0, 7, tokens))
    assert not torch.allclose(changed, found), "this tower does read what follows a sentence"


def test_no_sentence():
    assert encode_tokens(network(), torch.zeros(0, 16, dtype=torch.long)).shape == (0, 24)
