"""An evaluation in blocks that two processes share, run through `kit.processes.launch`, and one that is killed."""

import os
import signal

import numpy as np
import torch

from kit.clips import ColourClip
from kit.colour_methods import RECORDS, SLIDE, Likeness
from kit.processes import save
from kit.vocabularies import GROUND
from ovs_lite import distributed
from ovs_lite.evaluation.panoptic import PanopticCounter
from ovs_lite.evaluation.run import evaluate_in_blocks, evaluate_set

HOW = {"window": SLIDE, "background": (-1.5, -0.5), "grounding": True, "data": "painted noise", "batch": 4, "block": 3}


class Network(torch.nn.Module):
    """As much of a CLIP as a card asks for."""


class Known(Likeness):
    """Likeness with a CLIP that a card can describe, and with noise of its own."""

    def __init__(self, noise=0.0):
        super().__init__()
        clip = ColourClip()
        clip.name, clip.network, clip.fingerprint = "colours", Network(), lambda: "colours"
        clip.mean = clip.std = torch.full((3, 1, 1), 0.5)
        self.clip, self.noise = clip, noise

    def scores(self, images, text_embeddings, gain=1.0):
        scores = super().scores(images, text_embeddings, gain)
        return scores + self.noise * torch.rand(scores.shape)


def by_colour(image):
    """Red and other pixels of an image as two segments, for panoptic evaluation."""
    ids = 1 + (image[..., 0] > 128)
    return ids, [{"id": number, "category_id": number} for number in np.unique(ids).tolist()]


def evaluated(folder=None, records=RECORDS, **how):
    return evaluate_set(Known(how.pop("noise", 0.05)), records, GROUND, folder=folder, **(HOW | how))


def panoptic(folder=None, **how):
    counter = PanopticCounter(by_colour, GROUND)
    return evaluate_in_blocks(counter, RECORDS, folder=folder, block=3, key="colours", **how)


def two_processes(out):
    """Each process keeps counts in a folder of its own, or both in one; saves what it got."""
    found = {}
    for name, folder in (("own", f"{out}/own-{distributed.rank()}"), ("shared", f"{out}/shared"), ("none", None)):
        method = Known(0.05)
        report = evaluate_set(method, RECORDS, GROUND, folder=folder, **HOW)
        found[name] = {
            "ids": list(report.image_ids), "ignored": report.ignored, "seen": sum(s[0] for s in method.shapes),
            "counts": [torch.from_numpy(report.counts[cut].copy()) for cut in report.counts],
            "grounding": [torch.from_numpy(one.copy()) for one in report.grounding.counts.values()],
        }  # fmt: skip
    found["panoptic"] = torch.from_numpy(panoptic().per_image)
    few = evaluate_set(Known(0.05), RECORDS[:2], GROUND, **HOW)
    found["few"] = torch.from_numpy(few.per_image.copy())
    save(found, out)


def killed(folder):
    """End this process, without a word, while the third block is counted."""
    read = []

    class Dying(list):
        def __getitem__(self, index):
            read.append(index)
            if len(read) == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    evaluated(folder, Dying(RECORDS))
