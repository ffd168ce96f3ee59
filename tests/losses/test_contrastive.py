"""InfoNCE against a slow oracle; invariances, gradients, the clamp, and the shapes that are refused."""

import math

import pytest
import torch

from kit.oracles.contrastive import slow_info_nce
from ovs_lite.losses.contrastive import info_nce


def cosines(batch, seed=0):
    return torch.rand(batch, batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("logit_scale", [-1.0, 0.0, 2.6592, 4.6, 6.0])
def test_equals_the_slow_oracle(batch, logit_scale):
    found = info_nce(cosines(batch), torch.tensor(logit_scale, dtype=torch.float64))
    assert found.shape == ()
    assert float(found) == pytest.approx(float(slow_info_nce(cosines(batch), logit_scale)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_pairs_and_the_direction_do_not_matter(seed):
    similarity, scale = cosines(6, seed), torch.tensor(2.0, dtype=torch.float64)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    expected = info_nce(similarity, scale)
    torch.testing.assert_close(info_nce(similarity[order][:, order], scale), expected)
    torch.testing.assert_close(info_nce(similarity.T, scale), expected)
    assert not torch.isclose(info_nce(similarity[order.roll(1)], scale), expected), "pairs must stay on the diagonal"


def test_gradients_are_those_of_the_formula():
    similarity = cosines(5).requires_grad_()
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(info_nce, (similarity, scale))


def test_descent_raises_the_positives_and_lowers_the_rest():
    similarity = cosines(4).requires_grad_()
    info_nce(similarity, torch.tensor(1.0, dtype=torch.float64)).backward()
    diagonal = torch.eye(4, dtype=torch.bool)
    assert (similarity.grad[diagonal] < 0).all() and (similarity.grad[~diagonal] > 0).all()


def test_the_scale_stops_at_100_and_gets_no_gradient_beyond():
    over = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    at_limit = info_nce(cosines(4), torch.tensor(100.0, dtype=torch.float64).log())
    loss = info_nce(cosines(4), over)
    torch.testing.assert_close(loss, at_limit)
    loss.backward()
    assert over.grad == 0


def test_one_pair_has_nothing_to_contrast_with():
    similarity = torch.tensor([[0.3]], requires_grad=True)
    loss = info_nce(similarity, torch.tensor(2.0))
    loss.backward()
    assert loss == 0 and similarity.grad == 0


def test_orthogonal_batch_is_at_chance():
    assert float(info_nce(torch.zeros(7, 7), torch.tensor(3.0))) == pytest.approx(math.log(7))


@pytest.mark.parametrize("shape", [(0, 0), (3, 4), (4,), (2, 2, 2), ()])
def test_other_shapes_are_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"expected \(B, B\) with B >= 1") as error:
        info_nce(torch.zeros(shape), torch.tensor(0.0))
    assert str(tuple(shape)) in str(error.value)


def slow_with_positives(similarity, logit_scale, positives):
    """Cross-entropy of each row and column with a distribution that is even over its positives."""
    scores, total = similarity * min(100.0, math.exp(logit_scale)), 0.0
    for lines, wanted in ((scores, positives), (scores.T, positives.T)):
        for line, good in zip(lines, wanted, strict=True):
            logs = line - line.exp().sum().log()
            total -= sum(logs[column] for column in range(len(line)) if good[column]) / int(good.sum())
    return total / (2 * len(scores))


@pytest.mark.parametrize("seed", range(8))
def test_several_positives_equal_the_slow_oracle_and_one_each_the_plain_loss(seed):
    words = torch.randint(3, (6,), generator=torch.Generator().manual_seed(seed))
    equal, similarity = words[:, None] == words, cosines(6, seed)
    scale = torch.tensor(1.2, dtype=torch.float64)
    found = info_nce(similarity, scale, equal)
    assert float(found) == pytest.approx(float(slow_with_positives(similarity, 1.2, equal)), rel=1e-9)
    alone = info_nce(similarity, scale, torch.eye(6, dtype=torch.bool))
    torch.testing.assert_close(alone, info_nce(similarity, scale))
    assert torch.autograd.gradcheck(lambda s: info_nce(s, scale, equal), similarity.requires_grad_())


@pytest.mark.parametrize(
    "positives", [torch.ones(3, 3).bool(), torch.zeros(2, 2).bool(), torch.tensor([[True, False]] * 2)]
)
def test_positives_that_leave_a_row_or_column_out_are_refused(positives):
    with pytest.raises(ValueError, match="expected .* at least one in every row and column"):
        info_nce(cosines(2), torch.tensor(1.0), positives)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision_is_widened_before_the_scale(dtype):
    cosines = torch.linspace(-0.3, 0.4, 16).view(4, 4).to(dtype)
    found, scale = info_nce(cosines, torch.tensor(100.0).log()), torch.tensor(100.0).log()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, info_nce(cosines.float(), scale))
    rounded = (cosines * scale.exp().to(dtype)).float()  # what half precision makes of the logits
    assert (info_nce(rounded / 100, scale) - found).abs() > 1e-4
