"""Time of one image in panoptic quality, against np.unique on pairs of ids as panopticapi counts. Run it by hand:

python -m tests.benchmarks.bench_panoptic
"""

import numpy as np
from timing import best_of

from ovs_lite.evaluation import PanopticQuality

CLASSES = 133
SIZES = {
    "IconWorld 128 x 128": (128, 128, 12, 16, 0),
    "COCO 640 x 427": (427, 640, 30, 1 << 24, 0),
    "the same, 30 % noise": (427, 640, 30, 1 << 24, 0.3),
}


def example(
    height: int, width: int, segments: int, ids: int, noise: float
) -> tuple[np.ndarray, list[dict], np.ndarray, list[dict]]:
    """Rectangles over each other, moved by a few pixels in the prediction.

    ids: below what number they are drawn. noise: the share of the prediction's pixels that any segment may have.
    """
    rng = np.random.default_rng(0)
    numbers = rng.choice(np.arange(1, ids), segments, replace=False)
    maps = np.zeros((2, height, width), np.int64)
    for number in numbers:
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(8, height // 2), rng.integers(8, width // 2)
        for one, shift in zip(maps, (0, 3), strict=True):
            one[y : y + h, x + shift : x + shift + w] = number
    maps[0] = np.where(rng.random(maps[0].shape) < noise, rng.choice(numbers, maps[0].shape), maps[0])
    infos = [{"id": int(n), "category_id": k % CLASSES, "is_crowd": k % 9 == 8} for k, n in enumerate(numbers)]
    present = [[info for info in infos if (one == info["id"]).any()] for one in maps]
    return maps[0], present[0], maps[1], present[1]


def pairs_alone(pred: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of every pair of ids that occurs, no metric yet."""
    pairs = target.astype(np.uint64) * np.uint64(1 << 24) + pred.astype(np.uint64)
    return np.unique(pairs, return_counts=True)


def by_unique(pred: np.ndarray, pred_info: list[dict], target: np.ndarray, target_info: list[dict]) -> list[float]:
    """The whole metric over sorted pairs and dictionaries: true and false positives, false negatives, sum of IoU."""
    keys, pixels = pairs_alone(pred, target)
    overlap = {(int(key) >> 24, int(key) & 0xFFFFFF): int(n) for key, n in zip(keys, pixels, strict=True)}
    area = dict(zip(*(found.tolist() for found in np.unique(pred, return_counts=True)), strict=True))
    target_area = dict(zip(*(found.tolist() for found in np.unique(target, return_counts=True)), strict=True))
    found = {info["id"]: info["category_id"] for info in pred_info}
    wanted = {info["id"]: info["category_id"] for info in target_info if not info["is_crowd"]}
    crowds = {info["category_id"]: info["id"] for info in target_info if info["is_crowd"]}
    matched, total = {}, 0.0
    for (t, p), inside in overlap.items():
        if t in wanted and p in found and wanted[t] == found[p]:
            iou = inside / (area[p] + target_area[t] - inside - overlap.get((0, p), 0))
            if iou > 0.5:
                matched[p], total = t, total + iou
    excused = {p: overlap.get((0, p), 0) + overlap.get((crowds.get(c, -1), p), 0) for p, c in found.items()}
    false = sum(p not in matched and excused[p] / area[p] <= 0.5 for p in found)
    return [len(matched), false, len(wanted) - len(matched), total]


def main() -> None:
    """Print one row per size. Ratios below 1: we are faster."""
    print("image                  ours ms  / by np.unique  / its pairs alone")
    for name, size in SIZES.items():
        case = example(*size)
        ours = PanopticQuality([True] * CLASSES)
        counts, plain = ours.update(*case).counts, by_unique(*case)
        assert counts[:3].sum(1).tolist() == plain[:3] and abs(counts[3].sum() / 2**40 - plain[3]) < 1e-9, "same counts"
        time_ours = 1000 * best_of(lambda ours=ours, case=case: ours.update(*case), 50)
        time_unique = 1000 * best_of(lambda case=case: by_unique(*case), 50)
        time_pairs = 1000 * best_of(lambda case=case: pairs_alone(case[0], case[2]), 50)
        print(f"{name:21s}  {time_ours:7.3f}  {time_ours / time_unique:14.2f}  {time_ours / time_pairs:17.2f}")


if __name__ == "__main__":
    main()
