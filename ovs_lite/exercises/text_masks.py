"""Exercises of notebook 04: pooling under the mask that a text draws, priors, binary masks, and your own words.

B pictures, T texts, C channels, H W pixels.
"""

import math
from typing import Any

import numpy as np
import torch

from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    agree,
    ask,
    compare,
    exercise,
    numbers,
    pair_of,
    require,
)

SHARE_OF_THING, ON_THING, ELSEWHERE, OTHER_TEXT = 0.4, 0.3, 0.2, 0.1  # cosines of 04-4
OWN_AREA, WANTED_LOSS = 0.4, 0.02
LEAST_WORDS, LEAST_AREA, MOST_AREA = 3, 0.05, 0.8


@exercise("04-1", FILL_IN, "TCL Eq. 5 and 8, pixels as in its released code")
def grounded_similarity(answer: Any) -> None:
    """answer(pixels (B, C, H, W), texts (T, C) normalised, scale, bias) -> (B, T) cosines."""
    pixels, texts = numbers(0, 2, 4, 3, 3), torch.nn.functional.normalize(numbers(1, 3, 4), dim=1)
    compare("two pictures, three texts", answer, _similarity, pixels, texts, 10.0, -2.5)
    hint = "the mask is drawn by the cosine, so a pixel's length must not move it; the mean minds it"
    louder = pixels * (1 + numbers(2, 2, 1, 3, 3).abs())
    compare("pixels of different lengths", answer, _similarity, louder, texts, 10.0, -2.5, hint=hint)
    hint = "with scale 0 every mask is even: the plain mean of the picture"
    compare("scale 0", answer, _similarity, pixels, texts, 0.0, 0.0, hint=hint)


def _similarity(pixels, texts, scale, bias) -> torch.Tensor:
    found = torch.zeros(len(pixels), len(texts))
    for i, picture in enumerate(pixels):
        for j, text in enumerate(texts):
            total = torch.zeros(len(text))
            for y, x in np.ndindex(*picture.shape[1:]):
                p = picture[:, y, x]
                total += p / (1 + math.exp(-(scale * float(p @ text / p.norm()) + bias)))
            found[i, j] = total @ text / total.norm() / text.norm()
    return found


@exercise("04-2", FILL_IN, "TCL Eq. 10")
def area_prior(answer: Any) -> None:
    """answer(masks (B, B, H, W): of text j in picture i, own=0.4, others=0.0) -> scalar."""
    even = torch.full((2, 2, 2, 2), 0.0)
    even[0, 0], even[1, 1] = 0.2, 0.6
    hint = "one mean over the batch, then the distance: a small thing may make up for a large one"
    compare("own masks of 0.2 and 0.6, the others empty", answer, _area, even, 0.4, 0.0, hint=hint)
    compare("three random pictures", answer, _area, numbers(0, 3, 3, 4, 4).sigmoid(), 0.4, 0.0)
    compare("other priors", answer, _area, numbers(1, 3, 3, 4, 4).sigmoid(), 0.7, 0.2)
    hint = "nobody else's text: that term is 0, not NaN"
    compare("a batch of one pair", answer, _area, numbers(2, 1, 1, 4, 4).sigmoid(), 0.4, 0.0, hint=hint)


def _area(masks: torch.Tensor, own: float, others: float) -> float:
    areas, size = masks.double().mean((2, 3)).tolist(), len(masks)
    mine = [areas[i][i] for i in range(size)]
    rest = [areas[i][j] for i in range(size) for j in range(size) if i != j]
    return abs(sum(mine) / size - own) + (abs(sum(rest) / len(rest) - others) if rest else 0.0)


# Wrong on purpose: a bug hunt.
def binary_mask(logits, uniform):
    """TCL, section 3.3, the mask of Eq. 6: a pixel is 1 with probability sigmoid(logit). Gradients pass the rounding.

    uniform: random numbers in (0, 1), of the shape of the logits.
    """
    noise = uniform.log() + (1 - uniform).log()
    soft = (logits + noise).sigmoid()
    hard = (soft > 0.5).float()
    return hard + soft - soft.detach()


@exercise("04-3", BUG_HUNT, "TCL, section 3.3, the mask of Eq. 6 (Gumbel, straight through)", bug=binary_mask)
def straight_through(answer: Any) -> None:
    """answer(logits, uniform in (0, 1)) -> 0 or 1 with the gradient of the soft mask."""
    steps = (torch.arange(1000) + 0.5) / 1000  # every thousandth once, in place of luck
    for logit in (0.0, -2.0, 2.0):
        case = f"share of ones of 1000 draws at logit {logit:g}"
        drawn = torch.as_tensor(ask(case, answer, torch.full_like(steps, logit), steps)).float()
        share, wanted = float(drawn.mean()), 1 / (1 + math.exp(-logit))
        hint = "the difference of two Gumbel variables is symmetric around 0: is this noise?"
        require(case, abs(share - wanted) <= 0.005, f"{wanted:.3f}", f"{share:.3f}", hint)
    logits, uniform = numbers(0, 3, 4), torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    odds = uniform / (1 - uniform)
    soft = odds * logits.exp() / (1 + odds * logits.exp())
    logits.requires_grad_()
    drawn = torch.as_tensor(ask("random draws", answer, logits, uniform))
    agree("random draws are 0 or 1", drawn, (soft > 0.5).double())
    hint = "the threshold itself has no gradient: add the soft mask and take its detached self away"
    require("the gradient", drawn.requires_grad, "a gradient", "none", hint)
    agree("the gradient is the soft mask's", torch.autograd.grad(drawn.sum(), logits)[0], soft * (1 - soft), hint)


@exercise("04-4", TWEAK, "TCL Eq. 5 and 10")
def scale_and_bias(answer: Any) -> None:
    """answer: (scale, bias) that bring Eq. 10 to 0.02 for a thing that covers 0.4 of its picture."""
    scale, bias = map(float, pair_of("the answer", answer, "(scale, bias), two numbers"))
    on, off, other = (1 / (1 + math.exp(-_limited(scale * c + bias))) for c in (ON_THING, ELSEWHERE, OTHER_TEXT))
    own = SHARE_OF_THING * on + (1 - SHARE_OF_THING) * off
    case = f"Eq. 10 with scale {scale:g}, bias {bias:g}: own mask {own:.3f}, others {other:.3f}"
    hint = (
        "a mask ends at the cosine -bias / scale, as sharply as scale says: cosines are 0.3 on the thing, 0.2 beside it"
    )
    loss = abs(own - OWN_AREA) + other
    require(
        case,
        loss <= WANTED_LOSS and on > 0.9,
        f"{WANTED_LOSS} at most, over 0.9 on the thing",
        f"{loss:.3f}, {on:.3f}",
        hint,
    )


def _limited(logit: float) -> float:
    return max(-700.0, min(700.0, logit))


@exercise("04-5", OWN, "TCL Eq. 5 (a text draws a mask)")
def your_words(answer: Any) -> None:
    """answer: a Segmentation of your picture by three words or more, each on 5 % to 80 % of the pixels."""
    fits = hasattr(answer, "labels") and hasattr(answer, "queries")
    require("the answer", fits, "what Segmenter(...).segment(picture, words) gives", type(answer).__name__)
    words, labels = list(answer.queries), np.asarray(answer.labels)
    require("the words", len(words) >= LEAST_WORDS, f"{LEAST_WORDS} or more", f"{len(words)}: {', '.join(words)}")
    for number, word in enumerate(words):
        share = float((labels == number).mean())
        hint = "a word that is not in the picture finds little, one that fits everything leaves nothing"
        wanted = f"{LEAST_AREA:.0%} to {MOST_AREA:.0%}"
        require(f"the mask of {word!r}", LEAST_AREA <= share <= MOST_AREA, wanted, f"{share:.1%} of the pixels", hint)
