"""SCLIP, ClearCLIP, NACLIP: the last block by loops, what it may depend on and what not, MaskCLIP as a form."""

import math

import pytest
import torch
import torch.nn.functional as F

import ovs_lite
from kit.clips import random_clip, random_texts, shaken, tiny_clip
from kit.images import randn
from ovs_lite.clip.dense import penultimate_tokens, value_path
from ovs_lite.methods import get_method
from ovs_lite.methods.dense_attention import (
    FORMS,
    ITSELF,
    KEYS,
    QUERIES,
    DenseAttention,
    EveryForm,
    LastBlock,
    attended,
    last_block,
    neighbourhood,
)
from ovs_lite.methods.with_kept_features import WithKeptFeatures

NAMES = ("sclip", "clearclip", "naclip")
GRID = (2, 3)


@pytest.fixture(scope="module")
def block():
    """Two heads of 16, no weight at its start, in float64."""
    return shaken(tiny_clip().network.visual.transformer.resblocks[-1].double())


def tokens_of(count=1 + GRID[0] * GRID[1], batch=2, seed=3):
    return randn(batch, count, 32, seed=seed).double()


def slow_block(block, tokens, name):
    """The published form of one image's last block, pair by pair. tokens: (n, W); the grid is GRID."""
    attention, (n, width) = block.attn, tokens.shape
    normed, d = block.ln_1(tokens), width // attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query, key, value = (normed @ weight[i * width :][:width].T + bias[i * width :][:width] for i in range(3))
    gathered = torch.zeros(n, width, dtype=tokens.dtype)
    for head in range(attention.num_heads):
        own = slice(head * d, (head + 1) * d)
        for i in range(n):
            for part in {"sclip": (query, key), "clearclip": (query,), "naclip": (key,)}[name]:
                logits = [float(part[i, own] @ part[j, own]) / math.sqrt(d) for j in range(n)]
                if name == "naclip":
                    for j in range(1, n) if i else ():
                        down, right = (i - 1) // GRID[1] - (j - 1) // GRID[1], (i - 1) % GRID[1] - (j - 1) % GRID[1]
                        logits[j] += math.exp(-(down**2 + right**2) / (2 * 5**2))
                powers = [math.exp(logit) for logit in logits]
                for j in range(n):
                    gathered[i, own] += powers[j] / sum(powers) * value[j, own]
    found = gathered @ attention.out_proj.weight.T + attention.out_proj.bias
    if name != "sclip":
        return found
    found = tokens + found
    return found + block.mlp(block.ln_2(found))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_last_block_equals_loops_over_pairs_of_tokens(name, block):
    tokens = tokens_of()
    found = last_block(block, tokens, GRID, FORMS[name])
    for image in range(2):
        torch.testing.assert_close(found[image], slow_block(block, tokens[image], name), atol=1e-10, rtol=1e-8)


@torch.no_grad()
def test_a_token_that_looks_at_itself_is_the_value_path(block):
    tokens = tokens_of()
    kept = last_block(block, tokens, GRID, LastBlock((ITSELF,), residual=True, mlp=True))
    torch.testing.assert_close(kept, value_path(block, tokens))
    bare = last_block(block, tokens, GRID, LastBlock((ITSELF,), residual=False, mlp=False))
    value = F.linear(block.ln_1(tokens), block.attn.in_proj_weight[64:], block.attn.in_proj_bias[64:])
    torch.testing.assert_close(bare, block.attn.out_proj(value))
    for residual, mlp in ((True, False), (False, True)):
        one = last_block(block, tokens, GRID, LastBlock((ITSELF,), residual, mlp))
        start = bare + tokens if residual else bare
        torch.testing.assert_close(one, start + block.mlp(block.ln_2(start)) if mlp else start)


@pytest.mark.parametrize("height, width", [(64, 64), (40, 70)])
def test_the_identity_form_is_maskclip(height, width):
    clip, images, text = random_clip(), randn(2, 3, height, width), random_texts(3)
    found = DenseAttention(clip, FORMS["maskclip"]).predict(images, text)
    torch.testing.assert_close(found, get_method("maskclip", clip).predict(images, text), atol=1e-6, rtol=1e-5)
    for name in NAMES:
        assert (get_method(name, clip).predict(images, text) - found).abs().max() > 1e-3, name


@torch.no_grad()
def weights_of(form):
    """The attention weights that `attended` uses on one image, (heads, n, n): every token's value is its own place."""
    block, tokens = shaken(tiny_clip().network.visual.transformer.resblocks[-1].double()), tokens_of(batch=1)
    places = torch.eye(7, 16, dtype=torch.float64).repeat(1, 2)
    block.attn.in_proj_weight[64:] = (torch.linalg.pinv(block.ln_1(tokens[0])) @ places).T
    block.attn.in_proj_bias[64:] = 0
    return attended(block, tokens, GRID, form)[0].unflatten(1, (2, 16))[..., :7].transpose(0, 1)


@pytest.mark.parametrize("name, total", [("sclip", 2), ("clearclip", 1), ("naclip", 1), ("maskclip", 1)])
def test_rows_of_the_weights_add_up_to_the_number_of_softmaxes(name, total):
    weights = weights_of(FORMS[name])
    torch.testing.assert_close(weights.sum(-1), torch.full((2, 7), total, dtype=torch.float64))
    if name == "maskclip":
        torch.testing.assert_close(weights, torch.eye(7, dtype=torch.float64).expand(2, 7, 7))


def test_the_two_softmaxes_are_those_of_queries_and_of_keys():
    queries, keys = (weights_of(LastBlock((part,), True, True)) for part in (QUERIES, KEYS))
    torch.testing.assert_close(weights_of(FORMS["sclip"]), queries + keys)
    assert (queries - keys).abs().max() > 1e-3


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_the_order_of_heads_changes_nothing(name):
    block, tokens = shaken(tiny_clip().network.visual.transformer.resblocks[-1].double()), tokens_of()
    before = last_block(block, tokens, GRID, FORMS[name])
    swapped = torch.arange(32).roll(16)
    for part in (block.attn.in_proj_weight, block.attn.in_proj_bias):
        part.copy_(torch.cat([third[swapped] for third in part.split(32)]))
    assert (last_block(block, tokens, GRID, FORMS[name]) - before).abs().max() > 1e-3, "out_proj still reads as before"
    block.attn.out_proj.weight.copy_(block.attn.out_proj.weight[:, swapped])
    torch.testing.assert_close(last_block(block, tokens, GRID, FORMS[name]), before)


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_patches_may_come_in_any_order_unless_their_places_count(name, block):
    tokens, order = tokens_of(), torch.tensor([0, 3, 6, 1, 5, 2, 4])
    there, here = (last_block(block, t, GRID, FORMS[name]) for t in (tokens[:, order], tokens))
    difference = float((there - here[:, order]).abs().max())
    assert difference > 1e-6 if name == "naclip" else difference < 1e-10


@pytest.mark.parametrize("grid, sigma", [((2, 3), 5.0), ((4, 1), 0.7), ((1, 1), 5.0)])
def test_the_neighbourhood_equals_a_loop_over_pairs(grid, sigma):
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    found = neighbourhood(grid, sigma)
    assert found.shape == (1 + len(places), 1 + len(places)) and not found[0].any() and not found[:, 0].any()
    for i, (row, column) in enumerate(places, 1):
        for j, (other_row, other_column) in enumerate(places, 1):
            distance = math.hypot(row - other_row, column - other_column)
            assert float(found[i, j]) == pytest.approx(math.exp(-(distance**2) / (2 * sigma**2)), abs=1e-12)


def test_a_wide_neighbourhood_is_key_key_attention_that_prefers_patches_to_the_class_token():
    """Every pair of patches gets the same bonus of one logit, so that among patches nothing changes."""
    wide, plain = (weights_of(LastBlock((KEYS,), False, False, sigma)) for sigma in (1e9, None))
    among = [w[:, 1:, 1:] / w[:, 1:, 1:].sum(-1, keepdim=True) for w in (wide, plain)]
    torch.testing.assert_close(*among)
    to_the_token = [w[:, 1:, 1] / w[:, 1:, 0] for w in (wide, plain)]
    torch.testing.assert_close(to_the_token[0], math.e * to_the_token[1])
    torch.testing.assert_close(wide[:, 0], plain[:, 0])
    narrow = weights_of(LastBlock((KEYS,), False, False, 1e-3))
    assert (narrow.diagonal(dim1=1, dim2=2)[:, 1:] > plain.diagonal(dim1=1, dim2=2)[:, 1:]).all()


def test_a_block_can_be_differentiated(block):
    for name in FORMS:
        tokens = tokens_of(batch=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda t, form=FORMS[name]: last_block(block, t, GRID, form), tokens), name


def test_one_patch_no_image_and_one_class(block):
    for form in FORMS.values():
        assert last_block(block, tokens_of(2), (1, 1), form).shape == (2, 2, 32)
        assert last_block(block, tokens_of(batch=0), GRID, form).shape == (0, 7, 32)
    for name in NAMES:
        assert get_method(name, random_clip()).predict(randn(1, 3, 3, 5), random_texts(1)).shape == (1, 1, 3, 5)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_cosines_whatever_the_company(name):
    method, images, text = get_method(name, random_clip()), randn(3, 3, 48, 80), random_texts(5)
    scores, order = method.predict(images, text), torch.tensor([3, 0, 1, 4, 2])
    assert scores.shape == (3, 5, 48, 80) and scores.abs().max() <= 1 + 1e-5 and not scores.requires_grad
    torch.testing.assert_close(method.predict(images, text[order]), scores[:, order], atol=1e-6, rtol=1e-5)
    alone = torch.cat([method.predict(image[None], text) for image in images])
    torch.testing.assert_close(alone, scores, atol=1e-5, rtol=1e-4)
    whole = method.clip.network.visual
    tokens, grid = penultimate_tokens(whole, images)
    patches = last_block(whole.transformer.resblocks[-1], tokens, grid, FORMS[name])[:, 1:]
    expected = F.normalize(whole.ln_post(patches) @ whole.proj, dim=-1)[0] @ text.T
    centres = scores[0, :, 4::8, 4::8]
    nearest = expected.T.unflatten(1, grid)
    assert (centres - nearest).abs().mean() < 0.25 * nearest.std(), "bilinear: half a pixel off the patch's own"


def test_the_shipped_clip_and_the_towers_that_have_no_block():
    for name in NAMES:
        segmenter = ovs_lite.load(name)
        assert segmenter.name == name and segmenter.clip.name == "ViT-Lite-8"
        message = f"ConvNeXt-Lite, whose image tower has no attention block, expected a ViT for {name}"
        with pytest.raises(ValueError, match=message):
            get_method(name, random_clip("ConvNeXt-Lite"))


def test_forms_that_say_nothing_are_refused():
    with pytest.raises(ValueError, match=r"got compared=\(\), expected some of queries, keys, itself"):
        LastBlock((), True, True)
    with pytest.raises(ValueError, match=r"got compared=\('values',\)"):
        LastBlock(("values",), True, True)
    for sigma in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="expected a positive number of patches"):
            LastBlock((QUERIES,), True, True, sigma)


def test_every_form_from_one_encoding_equals_the_method_of_that_form_and_of_none_clip_cam():
    clip, images, text = tiny_clip(), randn(2, 3, 20, 30), random_texts(3, 16)
    shaken(clip)
    seen, blocks = [], clip.network.visual.transformer.resblocks
    handle = blocks[0].register_forward_hook(lambda *_: seen.append(1))
    reader = WithKeptFeatures(EveryForm(clip))
    found = {name: reader.predict(images, text, form=form) for name, form in FORMS.items()}
    found["clip-cam"] = reader.predict(images, text)
    handle.remove()
    assert len(seen) == 1
    for name, scores in found.items():
        method = get_method(name, clip) if name == "clip-cam" else DenseAttention(clip, FORMS[name])
        torch.testing.assert_close(scores, method.predict(images, text), atol=1e-6, rtol=1e-5)
    assert (found["sclip"] - found["clip-cam"]).abs().max() > 1e-4
