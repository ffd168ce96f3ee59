"""Exercises of notebook 00: zero-shot names, the contrastive loss, its temperature, and what word order is worth.

B pictures, K classes, T sentences of each class, D embedding.
"""

import math
from collections import Counter
from typing import Any

import torch

from ovs_lite.clip import load_clip
from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    compare,
    exercise,
    number_of,
    numbers,
    pair_of,
    require,
)

RIGHT, WRONG, BATCH, WANTED_LOSS = 0.3, 0.2, 100, 0.5
ALIKE = 0.95  # cosine of two texts that a CLIP hardly tells apart; "a cat" and "a dog" have 0.79


@exercise("00-1", FILL_IN, "CLIP, section 3.1.4, and Fig. 1 (3)")
def zero_shot(answer: Any) -> None:
    """answer(pictures (B, D), sentences (K, T, D), temperature) -> (B, K) probabilities."""
    few = numbers(0, 2, 4), numbers(1, 3, 5, 4), 0.1
    compare("two pictures, three classes of five sentences", answer, _zero_shot, *few)
    sentences = numbers(2, 2, 2, 3)
    sentences[0, 0] *= 100
    hint = "normalise each sentence before the mean, or the longest vector outvotes the others"
    compare(
        "one sentence's vector is 100 times as long", answer, _zero_shot, numbers(3, 1, 3), sentences, 0.1, hint=hint
    )
    torn = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    hint = "the mean of unit vectors is shorter than 1: normalise it again"
    compare("a class whose sentences disagree", answer, _zero_shot, torch.tensor([[1.0, 1.0]]), torn, 0.1, hint=hint)


def _zero_shot(pictures: torch.Tensor, sentences: torch.Tensor, temperature: float) -> torch.Tensor:
    rows = []
    for picture in pictures.double():
        exponents = []
        for some in sentences.double():
            mean = sum(one / math.sqrt(float(one @ one)) for one in some)
            cosine = picture @ mean / math.sqrt(float(picture @ picture) * float(mean @ mean))
            exponents.append(math.exp(float(cosine) / temperature))
        rows.append([value / sum(exponents) for value in exponents])
    return torch.tensor(rows)


@exercise("00-2", TWEAK, "TCL Eq. 7 (CLIP's loss)")
def temperature(answer: Any) -> None:
    """answer: the temperature at which cosines of 0.3 (right) and 0.2 (99 wrong ones) cost 0.5."""
    tau = number_of("the temperature", answer)
    require("the temperature", tau > 0, "a number above 0", tau)
    loss = math.log1p((BATCH - 1) * math.exp(min(700.0, (WRONG - RIGHT) / tau)))
    hint = f"knowing nothing costs log {BATCH} = {math.log(BATCH):.2f}; CLIP's temperature ends at 0.01"
    case = f"the loss at temperature {tau:g}"
    require(case, abs(loss - WANTED_LOSS) <= 0.02, f"{WANTED_LOSS} within 0.02", f"{loss:.3f}", hint)


# Wrong on purpose: a bug hunt.
def info_nce(similarity, temperature):
    """TCL Eq. 7: each picture finds its caption (rows), each caption its picture (columns); their mean."""
    logits = similarity / temperature
    by_picture = logits.log_softmax(1).diag()
    by_caption = logits.T.log_softmax(0).diag()
    return -(by_picture + by_caption).mean() / 2


@exercise("00-3", BUG_HUNT, "TCL Eq. 7 (CLIP's loss)", bug=info_nce)
def both_directions(answer: Any) -> None:
    """answer(similarity (B, B), temperature) -> scalar."""
    popular = torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.3, 0.1], [0.8, 0.1, 0.3]])
    hint = "its column must cost: who asks which picture belongs to this caption?"
    compare("caption 0 resembles every picture", answer, _info_nce, popular, 0.2, hint=hint)
    hint = "pictures and captions change roles, so the loss must stay"
    compare("the same matrix, transposed", answer, _info_nce, popular.T, 0.2, hint=hint)
    compare("five random pairs", answer, _info_nce, numbers(0, 5, 5), 0.5)


def _info_nce(similarity: torch.Tensor, temperature: float) -> float:
    table, total = similarity.double().tolist(), 0.0
    for i in range(len(table)):
        for line in (table[i], [row[i] for row in table]):
            total -= math.log(math.exp(line[i] / temperature) / sum(math.exp(s / temperature) for s in line))
    return total / (2 * len(table))


@exercise("00-4", OWN, "CLIP, section 2.3 (captions as one vector)")
def word_order(answer: Any) -> None:
    """answer: two captions of the same words in another order, which mean something else."""
    case, texts = "the two captions", pair_of("the two captions", answer, "a pair of texts")
    require(case, all(isinstance(text, str) for text in texts), "a pair of texts", repr(texts)[:80])
    first, second = (text.lower().split() for text in texts)
    require(case, len(first) >= 5, "five words or more", f"{len(first)} words")
    require(case, Counter(first) == Counter(second), "the same words in both", f"{sorted(first)}, {sorted(second)}")
    require(case, first != second, "another order", "the same order")
    embeddings = load_clip("ConvNeXt-Lite").text_embeddings(list(texts), "bare")
    cosine = float(embeddings[0] @ embeddings[1])
    hint = "exchange the colours of two things, or what lies on what"
    require("the cosine of the two", cosine >= ALIKE, f"at least {ALIKE}", f"{cosine:.3f}", hint)
