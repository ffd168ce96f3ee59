"""Sentences that begin alike are read once, and their embeddings are those of the sentences read one by one."""

import open_clip
import pytest
import torch

from ovs_lite.clip import prefix_tree as module
from ovs_lite.clip import text_tower
from ovs_lite.clip.prefix_tree import can_read, prefix_tree
from ovs_lite.clip.text_tower import encode_tokens
from ovs_lite.data.templates import fill, template_set

END, CONTEXT = 63, 16
VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": CONTEXT, "vocab_size": 64, "width": 32, "heads": 4, "layers": 3}
SENTENCES = [(1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2, 3, 9, 4, 5, 6), (1, 2, 3, 4, 5), (1, 7), (1, 2, 3, 9, 4, 8)]


def network(kind: type = open_clip.CLIP, **text) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT | text).double()


def rows(sentences=SENTENCES) -> torch.Tensor:
    return torch.tensor([[*words, END, *[0] * (CONTEXT - len(words) - 1)] for words in sentences])


@pytest.fixture
def trees(monkeypatch):
    """The trees that were read."""
    seen, read = [], text_tower.read_ends
    monkeypatch.setattr(text_tower, "read_ends", lambda tower, tree: seen.append(tree) or read(tower, tree))
    return seen


def test_a_row_for_each_beginning_and_it_sees_its_own():
    tree = prefix_tree(SENTENCES)
    beginnings = list(dict.fromkeys(words[:length] for words in SENTENCES for length in range(1, len(words) + 1)))
    assert tree.tokens.tolist() == [beginning[-1] for beginning in beginnings]
    assert tree.depths.tolist() == [len(beginning) - 1 for beginning in beginnings]
    assert [beginnings[end] for end in tree.ends] == SENTENCES
    for beginning, sees in zip(beginnings, tree.sees.tolist(), strict=True):
        assert sees == [beginning[: len(other)] == other for other in beginnings]


def test_what_the_module_says_of_one_name():
    """With the tokenizer of CLIP, which all models share."""
    tokens = open_clip.get_tokenizer("ViT-B-32")([fill(pattern, "cat") for pattern in template_set("vild14")])
    sentences = [row[: end + 1] for row, end in zip(tokens.tolist(), tokens.argmax(1).tolist(), strict=True)]
    found = sum(map(len, sentences)), len(prefix_tree(sentences).tokens)
    assert f"of the {found[0]} tokens of ViLD's 14 templates around a name of one token,\n{found[1]} " in module.__doc__


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("text", [{}, {"layers": 1}, {"ls_init_value": 0.3}, {"proj_type": "none", "width": 24}])
def test_as_sentence_by_sentence(kind, text, trees):
    model, tokens = network(kind, **text), rows()
    with torch.no_grad():
        found = encode_tokens(model, tokens)
        expected = torch.cat([model.encode_text(row[None]) for row in tokens])
    assert len(trees) == 1 and len(trees[0].tokens) < (tokens > 0).sum()
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@torch.no_grad()
def test_sentences_with_nothing_in_common_are_read_as_they_are(trees):
    encode_tokens(network(), rows([(5, 6, 7), (8, 9, 10)]))
    encode_tokens(network(), rows([(5, 6, 7)]))
    encode_tokens(network(), rows(SENTENCES * 20))
    assert trees == []


@torch.no_grad()
def test_other_blocks_are_not_imitated(trees):
    model = network()
    assert can_read(model)
    model.transformer.resblocks[1].attn = torch.nn.Identity()
    assert not can_read(model)
    model.transformer.resblocks = torch.nn.ModuleList()
    assert not can_read(model)


def test_a_gradient_goes_the_usual_way(trees):
    encode_tokens(network(), rows()).sum().backward()
    assert trees == []
