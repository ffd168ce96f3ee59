"""How many pictures a second a method segments when every picture asks new words: TCL's Table 5.

The text tower reads all class names again for every picture, nothing is cached. Compare figures of one run only.
"""

import statistics
import time

import torch

from ovs_lite.data.prompts import fill, template_set
from ovs_lite.methods import Method


@torch.no_grad()
def images_per_second(
    method: Method, names: list[str], size: int, repeats: int = 10, templates: str = "single", **options
) -> float:
    """1 / median seconds of one (1, 3, size, size) picture with all its texts; one call before is not counted.

    templates: prompt set; TCL's paper names one sentence. options: the method's own. Raises ValueError for repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"got repeats={repeats}, expected at least 1")
    clip, seconds = method.clip, []
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(clip.device)
    prompts = [fill(pattern, name) for name in names for pattern in template_set(templates)]
    for _ in range(repeats + 1):
        _wait(clip.device)
        start = time.perf_counter()
        texts = clip.encode_text(prompts).view(len(names), -1, clip.embed_dim).mean(1)
        method.predict(clip.normalise(picture), torch.nn.functional.normalize(texts, dim=1), **options)
        _wait(clip.device)
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
