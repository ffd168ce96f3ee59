"""How long methods take for an image when every image asks new words: TCL's Table 5.

The text tower reads all class names again for every image, nothing is cached. Compare ratios: the papers' images per
second are a V100's.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ovs_lite.data.templates import fill, template_set
from ovs_lite.methods import Method


@torch.no_grad()
def seconds_per_image(
    cases: Mapping[str, tuple[Method, Mapping[str, Any]]],
    names: list[str],
    size: int,
    repeats: int = 10,
    templates: str = "single",
) -> dict[str, np.ndarray]:
    """Seconds of one (1, 3, size, size) image with all its texts: {case: (repeats,)}.

    The cases take turns, so that what slows the machine down slows all of them; the first round is not counted.
    cases: {name: (method, options of its `predict`)}.
    names: of the classes.
    templates: prompt set; TCL's paper names one sentence.
    Raises ValueError for repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"got repeats={repeats}, expected at least 1")
    prompts = [fill(pattern, name) for name in names for pattern in template_set(templates)]
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    rounds = [
        [_seconds(method, image, prompts, len(names), options) for method, options in cases.values()]
        for _ in range(repeats + 1)
    ]
    return dict(zip(cases, np.array(rounds[1:]).T, strict=True))


def _seconds(
    method: Method, image: torch.Tensor, prompts: list[str], classes: int, options: Mapping[str, Any]
) -> float:
    clip = method.clip
    image = clip.normalise(image.to(clip.device))

    def predict() -> None:
        texts = clip.encode_text(prompts).view(classes, -1, clip.embed_dim).mean(1)
        method.predict(image, torch.nn.functional.normalize(texts, dim=1), **options)

    return timed(predict, clip.device)[1]


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What `work` returns, and the seconds until the device has it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    found = work()
    wait()
    return found, time.perf_counter() - start
