"""OpenSeg Eq. 2-4 word by word, in plain Python numbers."""

import math


def slow_score(regions, words, tau):
    """Eq. 3 of one image and one caption: lists of vectors."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for word in words:
        cosines = [cosine(region, word) for region in regions]
        weights = [math.exp(value / tau) for value in cosines]
        total += sum(weight * value for weight, value in zip(weights, cosines, strict=True)) / sum(weights)
    return total / len(words)


def slow_grounding_loss(regions, words, word_valid, tau):
    """Eq. 4 over the pairs that have a word."""
    images, captions = regions.tolist(), []
    for row, valid in zip(words.tolist(), word_valid.tolist(), strict=True):
        captions.append([word for word, use in zip(row, valid, strict=True) if use])
    pairs = [b for b, caption in enumerate(captions) if caption]
    score = {(a, b): slow_score(images[a], captions[b], tau) for a in pairs for b in pairs}
    total = 0.0
    for b in pairs:
        right = math.exp(score[b, b] / tau)
        total -= math.log(right / sum(math.exp(score[a, b] / tau) for a in pairs))
        total -= math.log(right / sum(math.exp(score[b, c] / tau) for c in pairs))
    return total / len(pairs) if pairs else 0.0
