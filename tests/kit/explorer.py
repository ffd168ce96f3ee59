"""Results that are known pixel by pixel, words that try to be markup, and segmenters that count what they do."""

import numpy as np
from PIL import Image

from kit.colour_methods import Plain
from kit.images import noise
from ovs_lite.segmenter import Segmentation, Segmenter

HOSTILE = [
    "<script>window.owned=1</script>", "</script><script>window.owned=1</script>", "<img src=x onerror=window.owned=1>",
    "<svg onload=window.owned=1>", '" onmouseover="window.owned=1', "' onfocus='window.owned=1' autofocus='",
    "javascript:window.owned=1", "<!--", "-->", "]]>", "<![CDATA[", "&lt;script&gt;", "\u2028window.owned=1//",
    "${window.owned=1}", "`+(window.owned=1)+`", "\\u003cscript\\u003e", "</style><style>*{display:none}",
    "</noscript>", "<iframe srcdoc='<script>parent.owned=1</script>'>", "__proto__",
]  # fmt: skip


def stripes(queries, size=(30, 40), background=False):
    """Scores of random noise on upright stripes; with `background` the first column is unlabelled."""
    generator = np.random.default_rng(len(queries))
    logits = generator.random((len(queries), *size)).astype(np.float32) / 2
    owner = np.arange(size[1]) * len(queries) // size[1]
    logits[owner, :, np.arange(size[1])] += 1
    labels = logits.argmax(0).astype(np.int64)
    labels[:, : int(background)] = -1
    return Segmentation(labels, logits, list(queries), Image.fromarray(noise(*size)))


class Squares:
    """A prompter whose masks are squares about points, small and large, the large one better; and whole boxes."""

    def look(self, image):
        self.looks = getattr(self, "looks", 0) + 1
        return image.shape[:2]

    def masks_at(self, seen, points=None, boxes=None):
        import torch

        rows, columns = np.mgrid[: seen[0], : seen[1]] + 0.5
        if points is not None:
            found = [[(abs(columns - x) <= r) & (abs(rows - y) <= r) for r in (1, 3)] for x, y in points]
            return torch.as_tensor(np.array(found)).float(), torch.tensor([[0.2, 0.9]] * len(points))
        found = [[(columns > a) & (columns < c) & (rows > b) & (rows < d)] for a, b, c, d in boxes]
        return torch.as_tensor(np.array(found)).float(), torch.ones(len(boxes), 1)


class Promptable(Plain):
    """Colours that also take points and boxes."""

    name = "promptable"

    def __init__(self):
        super().__init__()
        self.squares = Squares()

    @property
    def prompter(self):
        return self.squares


def segmenters():
    """Two methods by name; `method.shapes` grows with every image that one encodes."""
    return {"colours": Segmenter(Plain()), "promptable": Segmenter(Promptable())}
