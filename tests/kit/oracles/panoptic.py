"""Panoptic quality by sets of pixels and fractions, and random maps with void, crowds and unlabelled segments."""

from fractions import Fraction

import numpy as np

CROWDED = 3  # of the random maps' classes, the one whose segments are often crowds


def pixels_of(ids):
    """{id: the set of its places}."""
    places = {}
    for place, number in np.ndenumerate(np.asarray(ids)):
        places.setdefault(int(number), set()).add(place)
    return places


def slow_counts(pred_ids, pred_info, target_ids, target_info):
    """{category: [true positives, false positives, false negatives, sum of IoU]} of one image, one pair at a time."""
    pred, target = pixels_of(pred_ids), pixels_of(target_ids)
    void, crowds = set(target.get(0, ())), {}
    for info in target_info:
        if info["category_id"] == -1:
            void |= target[info["id"]]
        elif info["is_crowd"]:
            crowds[info["category_id"]] = target[info["id"]]
    counts, matched = {}, set()
    for wanted in target_info:
        if wanted["is_crowd"] or wanted["category_id"] == -1:
            continue
        row = counts.setdefault(wanted["category_id"], [0, 0, 0, Fraction(0)])
        row[2] += 1
        for found in pred_info:
            p, t = pred[found["id"]], target[wanted["id"]]
            iou = Fraction(len(p & t), len((p | t) - (p & void)))
            if found["category_id"] == wanted["category_id"] and iou > Fraction(1, 2):
                matched.add(found["id"])
                row[:] = row[0] + 1, row[1], row[2] - 1, row[3] + iou
    for found in pred_info:
        p, category = pred[found["id"]], found["category_id"]
        excused = p & (void | crowds.get(category, set()))
        if found["id"] not in matched and Fraction(len(excused), len(p)) <= Fraction(1, 2):
            counts.setdefault(category, [0, 0, 0, Fraction(0)])[1] += 1
    return counts


def slow_scores(images, kept=None):
    """(PQ, SQ, RQ, classes) of several images' arguments, over the categories in `kept` (all)."""
    total = {}
    for image in images:
        for category, row in slow_counts(*image).items():
            total[category] = [a + b for a, b in zip(total.get(category, [0, 0, 0, 0]), row, strict=True)]
    rows = [row for category, row in total.items() if kept is None or category in kept]
    weights = [true + Fraction(false + missed, 2) for true, false, missed, _ in rows]
    if not rows:
        return None, None, None, 0
    pq = sum(row[3] / weight for row, weight in zip(rows, weights, strict=True)) / len(rows)
    sq = sum(row[3] / row[0] if row[0] else Fraction(0) for row in rows) / len(rows)
    rq = sum(row[0] / weight for row, weight in zip(rows, weights, strict=True)) / len(rows)
    return float(pq), float(sq), float(rq), len(rows)


def _described(ids, rng, classes, crowds):
    infos = []
    for number in sorted(set(np.unique(ids).tolist()) - {0}, key=lambda n: rng.random()):
        category = int(rng.integers(-1 if crowds else 0, classes))
        crowd = crowds and rng.random() < (0.8 if category == CROWDED else 0.15)
        infos.append({"id": number, "category_id": category, "is_crowd": bool(crowd)})
    return infos


def random_case(seed, height=14, width=17, classes=5, most=9):
    """Arguments of `PanopticQuality.update`: blocks of target segments, and a prediction that half agrees with them."""
    rng = np.random.default_rng(seed)
    numbers = np.append(0, rng.choice(np.arange(1, 10**6), most, replace=False))
    cells = rng.integers(0, most + 1, (4, 5)).repeat(4, 0).repeat(4, 1)[:height, :width]
    target = numbers[cells]
    target_info = _described(target, rng, classes, crowds=True)
    renamed = rng.permutation(numbers[1:]) + 7
    shifted = np.roll(cells, rng.integers(0, 2, 2), (0, 1))
    noisy = np.where(
        rng.random(cells.shape) < rng.choice([0, 0.1, 0.4]), rng.integers(0, most + 1, cells.shape), shifted
    )
    pred = np.append(0, renamed)[noisy]
    if rng.random() < 0.7:  # something is predicted on void, too
        pred[(pred == 0) & (rng.random(pred.shape) < 0.9)] = renamed[0]
    owner = {info["id"]: info["category_id"] for info in target_info}
    agreed = {int(renamed[k]): owner.get(int(numbers[k + 1]), -1) for k in range(most)}
    pred_info = []
    for number in set(np.unique(pred).tolist()) - {0}:
        right = agreed[number] >= 0 and rng.random() < 0.7
        pred_info.append({"id": number, "category_id": agreed[number] if right else int(rng.integers(0, classes))})
    return pred, pred_info, target, target_info
