"""A CLIP and methods that see colours, records of painted pixels, and a slow mIoU with one Boolean mask at a time."""

import math

import numpy as np
import torch
from PIL import Image
from torch import nn

from ovs_lite.data.vocabulary import parse_vocabulary
from ovs_lite.inference import Window, encode_image, resized_classes
from ovs_lite.methods import Method

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
SLIDE = Window(10, 6, 4)
WHOLE = Window(8, 64, 64)


def vocabulary(*names, background=None, synonyms=None):
    classes = [
        {"id": i, "name": name, "synonyms": (synonyms or {}).get(name, []), "is_thing": False}
        for i, name in enumerate(names)
    ]
    ground = None if background is None else {"class": background}
    content = {"name": "toy", "source": "test", "count": len(names), "ignore_index": 65535, "background": ground}
    return parse_vocabulary(content | {"classes": classes})


RGB = vocabulary("red", "green", "blue")
FOUR = vocabulary("red", "green", "blue", "white", synonyms={"blue": ["azure"]})
GROUND = vocabulary("green", "background", "blue", "red", background=1)


class ToyClip(nn.Module):
    """A class name's embedding is its colour in [0, 1]."""

    image_size, device = 8, torch.device("cpu")

    def normalise(self, images):
        return images * 2 - 1

    def text_embeddings(self, names, templates):
        self.asked = (list(names), templates)
        return torch.tensor([COLOURS[name] for name in names]) / 255


class Likeness(Method):
    """Minus the distance of a pixel's colour to the class's; the window's first pixel says how much red is worth, so
    that every window has an opinion. Only operations that are exact whatever the batch.
    """

    name = "likeness"

    def __init__(self):
        super().__init__(ToyClip())
        self.shapes = []

    def encode(self, images):
        self.shapes.append(tuple(images.shape))
        return images

    def scores(self, images, text_embeddings, gain=1.0):
        red, green, blue = (images[:, None] / 2 + 0.5 - text_embeddings[:, :, None, None]).abs().unbind(2)
        opinion = images[:, 0, 0, 0].view(-1, 1, 1, 1) * text_embeddings[:, 0].view(-1, 1, 1)
        return opinion - gain * (red + green + blue)


class Plain(Likeness):
    """The same without the window's opinion."""

    def scores(self, images, text_embeddings):
        return -(images[:, None] / 2 + 0.5 - text_embeddings[:, :, None, None]).abs().sum(2)


def painted(name, image, categories):
    """A record from (H, W, 3) colours and (H, W) class ids; -1 is a segment without class, -2 is nobody's."""
    image, categories = np.asarray(image, np.uint8), np.asarray(categories)
    known = sorted(set(np.unique(categories)) - {-2})
    segments, infos = np.zeros(categories.shape, np.int32), []
    for number, category in enumerate(known, 1):
        segments[categories == category] = number
        infos.append({"id": number, "category_id": int(category), "is_thing": False, "is_crowd": False})
    return {"image_id": name, "image": image, "segments": segments, "segments_info": infos, "captions": []}


def by_name(name, rows, categories):
    """A record whose picture is given by colour names, "r", "g", "b", "w" per pixel."""
    colours = {key[0]: colour for key, colour in COLOURS.items()}
    return painted(name, [[colours[letter] for letter in row] for row in rows], categories)


def noise(seed, height, width, classes=4, name=None):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3))
    return painted(name or f"noise-{seed}", image, rng.integers(-2, classes, (height, width)))


SIZES = [(9, 12)] * 4 + [(12, 9)] * 2 + [(9, 12)] + [(20, 17)] * 3 + [(8, 8)] * 3
RECORDS = [noise(seed, *size) for seed, size in enumerate(SIZES)]
RECORDS.insert(3, noise(99, 9, 12) | {"segments_info": [], "segments": np.zeros((9, 12), np.int32)})


def category_map(record):
    owner = {info["id"]: info["category_id"] for info in record["segments_info"]} | {0: -1}
    return np.vectorize(owner.get, otypes=[int])(record["segments"])


def logits_of(scores, size):
    return np.concatenate([plane.float().numpy() for plane in resized_classes(scores, size)])


def slow_pictures(method, records, world, window, background=None, kept=None, present=False, **options):
    """Per picture {class name: (right, predicted, target)}, one picture, one class and one Boolean mask at a time."""
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
        labels = np.where(logits.max(0) < (-np.inf if background is None else background), -1, logits.argmax(0))
        found = np.array([*asked, ground], object)[labels]
        wanted = np.array([*world.names, None], object)[truth]
        counts = {}
        for name in kept:
            valid = np.isin(wanted, kept)
            p, t = (found == name) & valid, (wanted == name) & valid
            counts[name] = ((p & t).sum(), p.sum(), t.sum())
        result.append(counts)
    return result


def slow_miou(pictures):
    ious = []
    for name in pictures[0]:
        right, predicted, target = (sum(int(counts[name][part]) for counts in pictures) for part in range(3))
        if predicted + target > right or right:
            ious.append(right / (predicted + target - right))
    return sum(ious) / len(ious) if ious else math.nan


def as_counts(pictures):
    return [[[counts[name][part] for name in counts] for part in range(3)] for counts in pictures]
