"""Why a pixel has its label: the words' scores there, the proposals that cover it, the sentences that found the word.

K queries, P phrases of them, T sentences of a template set, N proposals, H W pixels.
"""

from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ovs_lite.data.queries import parse_queries, phrases
from ovs_lite.data.templates import fill, template_set
from ovs_lite.regions.score_maps import enlarged
from ovs_lite.viz.explorer.content import WORDS, Result, short
from ovs_lite.viz.overlay import rounded_share

MASKS = 3  # proposals that are named


def why(seen: Any, result: Result, asked: str, x: float, y: float) -> dict[str, Any]:
    """What `why.js` shows of pixel (x, y) of an image, as JSON.

    seen: the image as `Segmenter.encode` gives it. result: its answer to the words `asked`.
    words: [name, score at the pixel], best first. region: a sentence on the connected region around it. masks:
    [description, how far the proposal covers the pixel, 0..1], `mask_note` above them; empty for a pixel-based method.
    templates: [sentence, score at the pixel], best first, of the best word.
    """
    row, column = min(int(y), seen.image.height - 1), min(int(x), seen.image.width - 1)
    scores = np.asarray(result.logits)[:, row, column]
    best = np.argsort(-scores, kind="stable")[:WORDS]
    every, owners = phrases(parse_queries(asked))
    text = seen.method.clip.text_embeddings(every, seen.method.templates)
    note, masks = _proposals(seen, text, [result.queries[owner] for owner in owners], row, column)
    place = owners.index(int(best[0]))
    return {
        "words": [[result.queries[k], short(scores[k])] for k in best],
        "region": _region(result.labels, row, column),
        "mask_note": note,
        "masks": masks,
        "templates": [[one, short(score)] for one, score in sentence_scores(seen, every, text, place, row, column)],
    }


def sentence_scores(
    seen: Any, every: list[str], text: torch.Tensor, place: int, row: int, column: int
) -> list[tuple[str, float]]:
    """The score at a pixel of phrase `place` if one sentence alone stood for it, for each of T sentences, best first.

    every: P phrases; text: (P, D), their embeddings. The other phrases keep all their sentences, since in some methods
    classes compete.
    """
    method, patterns = seen.method, template_set(seen.method.templates)
    sentences = [fill(pattern, every[place]) for pattern in patterns]
    with torch.no_grad():
        alone = method.clip.encode_text(sentences).to(text.dtype)
    if method.scores_each_class_alone():
        found = _at(seen, seen.features.scores(alone), row, column)
    else:
        versions = (torch.cat([text[:place], one[None], text[place + 1 :]]) for one in alone)
        found = torch.stack([_at(seen, seen.features.scores(version), row, column)[place] for version in versions])
    return sorted(zip(sentences, found.tolist(), strict=True), key=lambda pair: -pair[1])


def _at(seen: Any, scores: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """(1, K, h, w) -> (K,), at a pixel of the image, as if the scores were resized to it."""
    whole = enlarged(scores, (seen.image.height, seen.image.width))
    return whole[0, :, row, column].float().cpu()


def _proposals(seen: Any, text: torch.Tensor, names: list[str], row: int, column: int) -> tuple[str, list[Any]]:
    """The likeliest proposals that cover a pixel, or the nearest where none does: a line above them, and the rows."""
    height, width = seen.features.times.shape
    y, x = int((row + 0.5) * height / seen.image.height), int((column + 0.5) * width / seen.image.width)
    found = []
    for place, features in seen.features.windows:
        rows, columns = place[-2:]
        if not (rows.start <= y < rows.stop and columns.start <= x < columns.stop):
            continue
        try:
            masks, probs = seen.method.regions(features, text)[0]
        except ValueError:  # a pixel-based method
            return "", []
        found += _rows(masks.float().cpu(), probs.float().cpu(), names, y - rows.start, x - columns.start)
    covering = sorted((one for one in found if one[1] > 0.5), key=lambda one: -one[2])[:MASKS]
    if covering:
        return "Proposals that cover it, by their words' probability:", [
            [text, short(cover)] for text, cover, *_ in covering
        ]
    nearest = sorted(found, key=lambda one: one[3])[:1]
    return "No proposal covers it; the nearest one:", [[text, short(cover)] for text, cover, *_ in nearest]


def _rows(
    masks: torch.Tensor, probs: torch.Tensor, names: list[str], y: int, x: int
) -> list[tuple[str, float, float, float]]:
    """Of each proposal: its description, how far it covers (y, x), its probability, and the pixels to it."""
    found = []
    for number, (mask, row) in enumerate(zip(masks.numpy(), probs, strict=True), 1):
        inside, score = mask > 0.5, float(row.max())
        if not inside.any():
            continue
        ys, xs = np.nonzero(inside)
        away = float(np.hypot(ys - y, xs - x).min())
        far = "" if inside[y, x] else f", {away:.0f} pixels away"
        named = f"{names[int(row.argmax())]} {short(score)}"
        about = f"mask {number}: {named}, {rounded_share(float(inside.mean()))} of the window{far}"
        found.append((about, float(mask[y, x]), score, away))
    return found


def _region(labels: np.ndarray, row: int, column: int) -> str:
    parts, _ = ndimage.label(labels == labels[row, column])
    share = float((parts == parts[row, column]).mean())
    return f"Its region, of one label and connected, is {rounded_share(share)} of the image."
