"""Exercises of notebook 03: from regions to pixels, how sharp attention is, over what it is normalised, which words.

N regions, K words, D embedding, H W pixels.
"""

import math
from typing import Any

import torch

from ovs_lite.data.captions import NO_REGION, extract_words, lemmas_and_tags
from ovs_lite.data.tagging import load_tagger
from ovs_lite.exercises.judging import BUG_HUNT, FILL_IN, OWN, TWEAK, compare, exercise, number_of, numbers, require

OWN_COSINE, OTHER_COSINE, OTHERS, WANTED = 0.5, 0.1, 127, 0.9


@exercise("03-1", FILL_IN, "OpenSeg Eq. 6 and section 3.2 (z)")
def pixel_scores(answer: Any) -> None:
    """answer(pixels (D, H, W), masks (N, H, W) in [0, 1], words (K, D)) -> (K, H, W)."""
    pixels, masks, words = numbers(0, 4, 3, 5), numbers(1, 6, 3, 5).sigmoid(), numbers(2, 2, 4)
    compare("six soft masks, two words", answer, _pixel_scores, pixels, masks, words)
    dim = torch.cat([0.01 * masks[:1], masks[1:]])
    hint = "a faint mask has a short z: the cosine must not mind, the pixels must"
    compare("the first mask is a hundredth as strong", answer, _pixel_scores, pixels, dim, words, hint=hint)
    hint = "a word is a direction: its length must not matter"
    compare("words three times as long", answer, _pixel_scores, pixels, masks, 3 * words, hint=hint)


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def _pixel_scores(pixels, masks, words) -> torch.Tensor:
    scores = torch.zeros(len(words), *masks.shape[1:])
    for mask in masks:
        z = [float((mask * channel).sum()) for channel in pixels]
        for k, word in enumerate(words.tolist()):
            scores[k] += _cosine(z, word) * mask
    return scores


@exercise("03-2", TWEAK, "OpenSeg Eq. 2")
def sharp_attention(answer: Any) -> None:
    """answer: the temperature at which a word gives 0.9 of its attention to its own region among 128."""
    tau = number_of("the temperature", answer)
    require("the temperature", tau > 0, "a number above 0", tau)
    share = 1 / (1 + OTHERS * math.exp((OTHER_COSINE - OWN_COSINE) / tau))
    hint = "127 wrong regions add up: compare exp(0.5 / tau) with 127 exp(0.1 / tau)"
    case = f"attention on the own region at temperature {tau:g}"
    require(case, abs(share - WANTED) <= 0.005, f"{WANTED} within 0.005", f"{share:.3f}", hint)


# Wrong on purpose: a bug hunt.
def caption_score(regions, words, temperature):
    """OpenSeg Eq. 2 and 3: G(I, C), the mean over words of their cosines with regions, weighted by attention.

    regions: (N, D). words: (K, D).
    """
    z, w = torch.nn.functional.normalize(regions, dim=1), torch.nn.functional.normalize(words, dim=1)
    cosines = w @ z.T
    attention = (cosines / temperature).softmax(0)
    return (attention * cosines).sum(1).mean()


@exercise("03-3", BUG_HUNT, "OpenSeg Eq. 2 and 3", bug=caption_score)
def over_regions(answer: Any) -> None:
    """answer(regions (N, D), words (K, D), temperature) -> scalar."""
    regions, word = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.6, 0.0, 0.8]]), torch.tensor([[1.0, 0.0, 0.0]])
    hint = "a single word has to choose among regions: its attention over them sums to 1"
    compare("one word, and one of three regions is it", answer, _caption_score, regions, word, 0.1, hint=hint)
    twice = torch.cat([word, word])
    hint = "G is a mean over words: saying a word twice changes nothing"
    compare("the same word said twice", answer, _caption_score, regions, twice, 0.1, hint=hint)
    compare("five regions, three words", answer, _caption_score, numbers(0, 5, 4), numbers(1, 3, 4), 0.3)


def _caption_score(regions, words, temperature) -> float:
    total = 0.0
    for word in words.tolist():
        cosines = [_cosine(region, word) for region in regions.tolist()]
        weights = [math.exp(cosine / temperature) for cosine in cosines]
        total += sum(weight * cosine for weight, cosine in zip(weights, cosines, strict=True)) / sum(weights)
    return total / len(words)


@exercise("03-4", OWN, "OpenSeg, section 3.2 and Table 5 (which words)")
def your_caption(answer: Any) -> None:
    """answer: a caption of 8 words or more: three nouns that look for regions, a plural, a stopped word."""
    require("the caption", isinstance(answer, str), "a text", type(answer).__name__)
    said = answer.lower().replace(".", " ").replace(",", " ").split()
    require("the caption", len(said) >= 8, "8 words or more", f"{len(said)} words")
    tagger = load_tagger("shipped")
    kept, tagged = extract_words(answer, ("noun",), tagger=tagger), lemmas_and_tags(answer, tagger)
    require("nouns that look for a region", len(kept) == 3, "three", f"{len(kept)}: {', '.join(kept)}")
    plurals = [word for word, tag in tagged if tag in ("NNS", "NNPS") and word in kept]
    hint = "kept words are in the singular, so that 'dogs' and 'dog' are one text"
    require("nouns that were said in the plural", plurals, "one or more", "none: " + ", ".join(kept), hint)
    stopped = [word for word, tag in tagged if tag.startswith("NN") and word in NO_REGION]
    hint = "a noun such as 'photo' or 'view' names no region; an attention over regions would still send it somewhere"
    require("nouns of the stop list", stopped, "one or more", "none", hint)
