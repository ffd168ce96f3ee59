"""Segmentation's counts and mIoU: one image, one class and one Boolean mask at a time."""

import numpy as np
from PIL import Image

from ovs_lite.inference import encode_image, resized_classes


def category_map(record):
    owner = {info["id"]: info["category_id"] for info in record["segments_info"]} | {0: -1}
    return np.vectorize(owner.get, otypes=[int])(record["segments"])


def logits_of(scores, size):
    return np.concatenate([plane.float().numpy() for plane in resized_classes(scores, size)])


def slow_images(method, records, world, window, background=None, kept=None, present=False, **options):
    """Per image {class name: (right, predicted, target)}, one image, one class and one Boolean mask at a time."""
    kept = list(world.names) if kept is None else kept
    ground = None if world.background is None else world.names[world.background]
    asked = [name for name in kept if name != ground]
    text = method.clip.text_embeddings(asked, "vild14")
    result = []
    for record in records:
        truth = category_map(record)
        image = Image.fromarray(record["image"])
        logits = logits_of(encode_image(method, image, window).scores(text, **options), truth.shape)
        for k, name in enumerate(asked):
            if present and not (truth == world.names.index(name)).any():
                logits[k] = -np.inf
        beaten = present and ground is not None and not (truth == world.background).any()
        cut = -np.inf if background is None or beaten else background
        labels = np.where(logits.max(0) < cut, -1, logits.argmax(0))
        found = np.array([*asked, ground], object)[labels]
        wanted = np.array([*world.names, None], object)[truth]
        counts = {}
        for name in kept:
            valid = np.isin(wanted, kept)
            p, t = (found == name) & valid, (wanted == name) & valid
            counts[name] = ((p & t).sum(), p.sum(), t.sum())
        result.append(counts)
    return result


def as_counts(images):
    """(3, C) lists of `slow_images`, image by image."""
    return [[[counts[name][part] for name in counts] for part in range(3)] for counts in images]


def slow_miou(images, whole=None):
    """Mean IoU of a list of (3, C) counts, one class at a time, and {class: IoU}.

    whole: IoUs of classes that are missing in the list.
    """
    ious = {}
    for k in range(len(images[0][0])):
        right, predicted, target = (sum(int(counts[part][k]) for counts in images) for part in range(3))
        if predicted + target > right:
            ious[k] = right / (predicted + target - right)
    shown = ious if whole is None else {k: ious.get(k, value) for k, value in whole.items()}
    return sum(shown.values()) / len(shown), ious
