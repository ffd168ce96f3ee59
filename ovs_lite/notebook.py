"""What a notebook needs besides the science: its configuration and folders, a record of numbers, progress, figures.

context = setup(profile, seed, out)          # in the cell after `parameters`
for batch in progress(batches, "training"): ...
show(figure, "heat map of 'cat': warm on the cat, cold elsewhere")
record("mIoU masked crops", 41.2, n=120, unit="%", paper=20.1)
"""

import base64
import html
import io
import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ovs_lite.config import Profile, data_root, get_profile, override, runs_root, to_dict
from ovs_lite.data.iconworld.build import split_folder
from ovs_lite.files import write_json
from ovs_lite.live_curve import LiveCurve, MaskFilm, headless
from ovs_lite.metrics_log import METRICS, append_metric, format_number

__all__ = ["Context", "LiveCurve", "MaskFilm", "progress", "record", "setup", "show"]

FIGURE_DPI = 110
PROGRESS_LINES = 4


@dataclass
class Context:
    """A notebook's resolved profile, the name it runs under, and where its products go."""

    profile: Profile
    notebook: str
    out: Path

    @cached_property
    def device(self) -> torch.device:
        """The GPU where there is one. Asked for lazily, so that no GPU is touched before training starts."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def data(self, name: str, split: str) -> Path:
        """Folder of one split, e.g. data("icon-coco", "train"). Raises FileNotFoundError with the cure."""
        folder = split_folder(data_root(), self.profile.data, name, split)
        if not folder.is_dir():
            command = f"ovs-lite data build --profile {self.profile.name}"
            raise FileNotFoundError(f"no data at {folder}; build it with: {command}")
        return folder


_current: Context | None = None


def setup(profile: str, seed: int = 0, out: str | Path | None = None, **overrides: Any) -> Context:
    """Resolve a profile, seed every generator, and start the run's folder with config.json and no metrics.

    out: the run's folder; None, as in a notebook opened by hand, is runs/by-hand/<profile>/<notebook>.
    overrides: changes of the profile with dotted keys, as in setup("lite", **{"data.val_scenes": 8}).
    Raises ValueError for an unknown profile or key.
    """
    global _current
    resolved = override(get_profile(profile), {**overrides, "seed": seed})
    if out is None:
        by_hand = Path(os.environ.get("JPY_SESSION_NAME", "notebook")).stem
        out = runs_root() / "by-hand" / resolved.name / by_hand
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_dict(resolved))
    (folder / METRICS).unlink(missing_ok=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    _current = Context(resolved, folder.name, folder)
    return _current


def record(name: str, value: float, n: int | None = None, unit: str = "", paper: float | None = None, **fields) -> None:
    """Append a measured number to metrics.jsonl of the current run and print it in one line.

    n: how many pictures (or pairs) it was measured on. paper: the number printed in the paper, in the same unit.
    fields: anything else worth keeping. Raises RuntimeError before `setup`.
    """
    if _current is None:
        raise RuntimeError(f"record({name!r}, ...) was called before setup(profile, seed, out)")
    value = value if isinstance(value, int | str) else float(value)
    about = {"notebook": _current.notebook, "profile": _current.profile.name, "seed": _current.profile.seed}
    row = {"name": name, "value": value, "n": n, "unit": unit, "paper": paper, **fields, **about}
    append_metric(_current.out, {**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    notes = [f"n = {n}"] * (n is not None) + [f"paper: {format_number(paper, unit)}"] * (paper is not None)
    print(f"{name}: {format_number(value, unit)}" + (f"  ({', '.join(notes)})" if notes else ""))


def progress(items: Iterable, desc: str = "", total: int | None = None) -> Iterator:
    """Go through `items` with a live bar; in a headless run, with a line per quarter instead, the same every time."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if not headless():
        yield from tqdm(items, desc=desc, total=total)
        return
    lines = 0
    for done, item in enumerate(items, 1):
        yield item
        while total and lines < done * PROGRESS_LINES // total:
            lines += 1
            if lines == done * PROGRESS_LINES // total:
                print(f"{desc}: {100 * lines // PROGRESS_LINES} % ({done} of {total})", flush=True)


def show(picture: Figure | Image.Image, alt: str) -> None:
    """Display a matplotlib figure or a PIL image as PNG with a text for those who cannot see it.

    The figure is closed, so that it is not shown twice. Raises ValueError for an empty `alt`.
    """
    if not alt.strip():
        raise ValueError("got an empty alt text, expected a sentence that says what the picture shows")
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=FIGURE_DPI, bbox_inches="tight")
        pyplot.close(picture)
    else:
        picture.save(buffer, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    tag = f'<img alt="{html.escape(alt)}" src="{source}" style="max-width: 100%">'
    display({"text/html": tag, "text/plain": f"[picture: {alt}]"}, raw=True)
