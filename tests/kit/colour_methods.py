"""Methods that see colours, whose scores are known pixel by pixel, and records of painted noise in several sizes."""

import numpy as np

from kit.clips import ColourClip
from kit.records import painted_noise
from ovs_lite.inference import Window
from ovs_lite.methods import Method

SLIDE = Window(10, 6, 4)
WHOLE = Window(8, 64, 64)
SIZES = [(9, 12)] * 4 + [(12, 9)] * 2 + [(9, 12)] + [(20, 17)] * 3 + [(8, 8)] * 3
RECORDS = [painted_noise(seed, *size) for seed, size in enumerate(SIZES)]
RECORDS.insert(3, painted_noise(99, 9, 12) | {"segments_info": [], "segments": np.zeros((9, 12), np.int32)})


class Likeness(Method):
    """Minus the distance of a pixel's colour to the class's; the window's first pixel says how much red is worth, so
    that every window has an opinion. Only operations that are exact whatever the batch.
    """

    name = "likeness"

    def __init__(self):
        super().__init__(ColourClip())
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
