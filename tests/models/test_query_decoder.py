"""The decoder of both proposal models against torch's layer, and its positions against DETR's formula."""

import itertools
import math

import pytest
import torch
from torch import nn

from ovs_lite.models.query_decoder import DecoderLayer, QueryDecoder, sine_positions


def slow_sine_positions(height, width, channels):
    """DETR's PositionEmbeddingSine by loops: temperature 10,000, normalize=True, scale 2 pi, eps = 0."""
    per_axis, rows = channels // 2, []
    for y, x in itertools.product(range(height), range(width)):
        row = []
        for place, side in ((y, height), (x, width)):
            angle = (place + 1) / side * 2 * math.pi
            scaled = [angle / 10_000 ** (2 * (i // 2) / per_axis) for i in range(per_axis)]
            row += [math.cos(value) if i % 2 else math.sin(value) for i, value in enumerate(scaled)]
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize(("height", "width", "channels"), [(3, 5, 16), (1, 1, 4), (7, 2, 64), (1, 9, 8)])
def test_sine_positions_equal_the_slow_loop(height, width, channels):
    found = sine_positions(height, width, channels)
    assert found.shape == (height * width, channels)
    torch.testing.assert_close(found, slow_sine_positions(height, width, channels), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_layer_without_positions_is_torchs_decoder_layer():
    torch.manual_seed(0)
    layer, plain = DecoderLayer(16, 2, 32), nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    names = {"self_attn": "self_attention", "multihead_attn": "cross_attention", "linear1": "feedforward.0",
             "linear2": "feedforward.2", "norm1": "norms.0", "norm2": "norms.1", "norm3": "norms.2"}  # fmt: skip
    for parameter in layer.norms.parameters():
        parameter.uniform_(0.5, 1.5)
    weights = layer.state_dict()
    plain.load_state_dict(
        {key: weights[key.replace(part := key.split(".")[0], names[part])] for key in plain.state_dict()}
    )
    queries, tokens = torch.randn(2, 5, 16), torch.randn(2, 12, 16)
    found = layer(queries, torch.zeros(5, 16), tokens, tokens)
    torch.testing.assert_close(found, plain(queries, tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("closed", ["self_attention", "cross_attention"])
@pytest.mark.parametrize("moved", ["queries", "keys"])
def test_positions_steer_both_attentions_and_are_never_read_as_values(closed, moved):
    """Where all tokens say the same it does not matter where attention goes. One of the two is shut."""
    torch.manual_seed(0)
    layer, several = DecoderLayer(16, 2, 32), torch.randn(1, 6, 16)
    getattr(layer, closed).out_proj.weight.zero_()
    places = {name: torch.randn(6, 16) * (name == moved) for name in ("queries", "keys")}
    for tokens, differ in ((several[:, :1].expand(1, 6, 16), False), (several, True)):
        plain = layer(tokens, torch.zeros(6, 16), tokens, tokens)
        placed = layer(tokens, places["queries"], tokens, tokens + places["keys"])
        unread = closed == "cross_attention" and moved == "keys"
        assert torch.allclose(plain, placed, atol=1e-5) != (differ and not unread)


@torch.no_grad()
def test_the_decoder_does_not_mind_the_order_of_tokens_but_their_positions():
    torch.manual_seed(0)
    decoder = QueryDecoder(5, 16, layers=3, heads=2, feedforward=32)
    tokens, positions, order = torch.randn(2, 12, 16), torch.randn(12, 16), torch.randperm(12)
    states = decoder(tokens, positions)
    assert len(states) == 3 and all(state.shape == (2, 5, 16) for state in states)
    torch.testing.assert_close(decoder.blocks[2](states[1], decoder.queries, tokens, tokens + positions), states[2])
    torch.testing.assert_close(decoder(tokens[:, order], positions[order])[-1], states[-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(decoder(tokens[:, order], positions)[-1], states[-1], atol=1e-3)


@torch.no_grad()
def test_queries_keep_their_place():
    """Swapped queries give swapped answers, so no query is special but for its own vector."""
    torch.manual_seed(0)
    decoder = QueryDecoder(5, 16, layers=2, heads=2, feedforward=32)
    tokens, positions, order = torch.randn(1, 12, 16), torch.randn(12, 16), torch.tensor([3, 0, 4, 1, 2])
    before = decoder(tokens, positions)[-1]
    decoder.queries.copy_(decoder.queries[order].clone())
    torch.testing.assert_close(decoder(tokens, positions)[-1], before[:, order], rtol=1e-4, atol=1e-5)
