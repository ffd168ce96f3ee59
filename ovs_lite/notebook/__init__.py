"""What a notebook needs next to the science: its configuration and folders, a record of numbers, progress, figures.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ovs_lite.claims import get_claim, verdict
from ovs_lite.config import RANDOM, Profile, get_profile, lookup, override, read_changes, to_dict
from ovs_lite.data.record import first, load_split
from ovs_lite.files import data_path, data_root, runs_root, write_json
from ovs_lite.iconworld.build import split_folder
from ovs_lite.methods.registry import get_recipe, split_changes
from ovs_lite.notebook.canvas import show_canvas
from ovs_lite.notebook.live import LiveCurve, MaskFilm, another_quarter, headless
from ovs_lite.notebook.logs import CLAIMS, METRICS, append_row, claim_line, format_number
from ovs_lite.notebook.others import wait_for_others
from ovs_lite.notebook.real_pictures import photographs
from ovs_lite.notebook.threads import each

if TYPE_CHECKING:
    from ovs_lite.train import OnStep

__all__ = [
    "Context", "LiveCurve", "MaskFilm", "at_once", "photographs", "progress", "record", "setup", "show", "show_canvas",
]  # fmt: skip

FIGURE_DPI = 110


@dataclass
class Context:
    """A notebook's resolved profile, the name it runs under, and where its products go.

    changes: {recipe: {dotted key: value}}, what `setup` was asked to change in recipes.
    """

    profile: Profile
    notebook: str
    out: Path
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def device(self) -> torch.device:
        """The GPU where there is one. Asked for lazily, so that no GPU is touched before training starts."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def config(self, recipe: str, **changes: Any) -> Any:
        """A recipe's resolved settings: this profile's preset, the run's seed, what `setup` changed, and `changes`.

        changes: keyword per field, those of the loop included, e.g. config("tcl", steps=30, area_weight=0.0).
        """
        preset = lookup(get_recipe(recipe).presets, self.profile.name, f"profile of {recipe}")
        return override(preset, {"loop.seed": self.profile.seed, **self.changes.get(recipe, {}), **changes})

    def train(
        self,
        recipe: str,
        config: Any = None,
        out: str | Path | None = None,
        on_step: "OnStep | None" = None,
        fresh: bool = False,
        processes: int | None = None,
    ) -> Any:
        """Train a recipe and return what it trained, as read from the weights that it wrote.

        config: default `self.config(recipe)`. out: folder below the run's, default the recipe's name; a run that
        stopped there resumes, unless `fresh`. on_step, processes: see `ovs_lite.train.launch.launch`.
        """
        from ovs_lite.train.launch import launch  # it imports timm and torchvision, which takes seconds

        config = self.config(recipe) if config is None else config
        return launch(recipe, config, self.out / (out or recipe), on_step, processes, fresh)

    def train_each(
        self, recipe: str, configs: Mapping[str, Any], out: str = "", on_step: "Mapping[str, OnStep] | None" = None
    ) -> dict[str, Any]:
        """Train a recipe afresh for each of some configurations, on all cores; title -> what was trained.

        Below `out` each has its folder. on_step: title -> what is called after its steps. See
        `ovs_lite.train.side_by_side.launch_each`.
        """
        from ovs_lite.train.side_by_side import launch_each  # as above

        ended = progress(count(1), "training", total=len(configs))
        next(ended)
        trained = launch_each(recipe, configs, self.out / out, on_step, fresh=True, done=lambda title: next(ended))
        ended.close()
        return trained

    def ablations(
        self, recipe: str, titles: Iterable[str], seeds: Sequence[int] = (0,), **here: Any
    ) -> dict[tuple[str, int], Any]:
        """Rows of a paper's table, as the kit has trained them: {(title, seed): what was trained}.

        Where `setup` or --config changes the recipe, they are trained here with these changes, which can take hours; in
        profile smoke with its steps and scenes. here: settings of such a training alone, such as its data.
        See `ovs_lite.methods.ablations`. Raises what `load_ablation` raises.
        """
        from ovs_lite.methods.ablations import ablation_config, load_ablation  # as above

        rows = [(title, seed) for title in titles for seed in seeds]
        changes = self.changes.get(recipe)
        if not changes:
            return {row: load_ablation(recipe, *row) for row in rows}
        if self.profile.name == "smoke":
            here = {"loop.steps": get_recipe(recipe).presets["smoke"].loop.steps, **here}
        changes, scenes = {**here, **changes}, self.profile.data.folder
        configs = {f"{title}-{n}": ablation_config(recipe, title, n, scenes, **changes) for title, n in rows}
        return dict(zip(rows, self.train_each(recipe, configs, "ablations").values(), strict=True))

    def claim(
        self,
        name: str,
        ours: float,
        interval: tuple[float, float] | None,
        n: int,
        seeds: Sequence[int] | None = None,
        part: str | None = None,
    ) -> None:
        """Add what was measured for a claim of the ledger to claims.jsonl, and print the verdict.

        name: id of the claim.
        ours: what was measured, in the unit of the ledger.
        interval: its 95 % interval (low, high), which contains it; None leaves the claim inconclusive.
        n: how many images, pairs or targets it was measured on.
        seeds: of the training runs behind it; default this run's.
        part: which part of a claim that has some.
        Raises ValueError for an unknown claim or part, and for numbers that cannot be (see `ovs_lite.claims.verdict`).
        Of a CLIP with random weights nothing is added: it settles nothing.
        """
        wanted, ours = get_claim(name).part(part), float(ours)
        interval = None if interval is None else (float(interval[0]), float(interval[1]))
        seeds = [self.profile.seed] if seeds is None else [int(seed) for seed in seeds]
        row = {"id": name, "part": part or "", "verdict": verdict(wanted, ours, interval), "ours": ours}
        row |= {"interval": interval, "n": int(n), "seeds": seeds}
        if n < 1 or not seeds:
            raise ValueError(f"got n={n} and seeds={seeds} for claim {name!r}, expected at least one of each")
        row |= {key: getattr(wanted, key) for key in ("direction", "margin", "unit", "paper")}
        if self.profile.clip.pretrained == RANDOM:
            print(f"claim {name}: not settled, as the weights of {self.profile.clip.name} are random")
            return
        append_row(self.out / CLAIMS, {**row, "notebook": self.notebook, "profile": self.profile.name})
        print(claim_line(row))

    def wait_for_others(self) -> None:
        """Return when the other notebooks of this run have ended: what follows reads what they found."""
        wait_for_others(self.out)

    def photos(self) -> datasets.Dataset:
        """The profile's photographs, as many as it evaluates. Raises FileNotFoundError with the cure."""
        return first(load_photos(self.profile), self.profile.notebooks.eval_images)

    def data(self, name: str, split: str) -> Path:
        """Folder of one split, e.g. data("icon-coco", "train"). Raises FileNotFoundError with the cure."""
        folder = split_folder(data_root(), self.profile.data, name, split)
        if not folder.is_dir():
            command = f"ovs-lite data build --profile {self.profile.name}"
            raise FileNotFoundError(f"no data at {folder}; build it with: {command}")
        return folder


def load_photos(profile: Profile) -> datasets.Dataset:
    """All of a profile's photographs. Raises FileNotFoundError with the cure, ValueError for damaged ones."""
    folder = data_path(profile.photos)
    if not folder.is_dir():
        command = "ovs-lite data get coco-val, then ovs-lite data prepare coco-val --limit 300"
        raise FileNotFoundError(f"no photographs at {folder}; fetch and prepare them with: {command}")
    return load_split(folder)


_current: Context | None = None


def setup(profile: str, seed: int = 0, out: str | Path | None = None, **overrides: Any) -> Context:
    """Resolve a profile, seed every generator, and start the run's folder with config.json, no metrics and no claims.

    out: the run's folder; None, as in a notebook opened by hand, is runs/by-hand/<profile>/<notebook>.
    overrides: changes with dotted keys, of the profile or of a recipe, as in setup("lite", **{"data.val_scenes": 8,
        "tcl.batch": 32}). They come on top of those of the file $OVS_CONFIG (`ovs-lite reproduce --config`).
    Raises ValueError for an unknown profile or key.
    """
    global _current
    from_file = read_changes(os.environ["OVS_CONFIG"]) if os.environ.get("OVS_CONFIG") else {}
    of_profile, changes = split_changes({**from_file, **overrides})
    resolved = override(get_profile(profile), {**of_profile, "seed": seed})
    if out is None:
        by_hand = Path(os.environ.get("JPY_SESSION_NAME", "notebook")).stem
        out = runs_root() / "by-hand" / resolved.name / by_hand
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (METRICS, CLAIMS):
        (folder / left).unlink(missing_ok=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    _current = Context(resolved, folder.name, folder, changes)
    changed = {recipe: to_dict(_current.config(recipe)) for recipe in changes}  # a wrong key is an error here
    write_json(folder / "config.json", {**to_dict(resolved), **({"recipes": changed} if changed else {})})
    return _current


def record(name: str, value: float, n: int | None = None, unit: str = "", paper: float | None = None, **fields) -> None:
    """Append a measured number to metrics.jsonl of the current run and print it in one line.

    n: how many images (or pairs) it was measured on. paper: the number printed in the paper, in the same unit.
    fields: anything else worth keeping. Raises RuntimeError before `setup`, ValueError for n below 1.
    """
    if n is not None and n < 1:
        raise ValueError(f"got n={n} for {name!r}, expected at least 1: a metric over nothing says nothing")
    if _current is None:
        raise RuntimeError(f"record({name!r}, ...) was called before setup(profile, seed, out)")
    value = value if isinstance(value, int | str) else float(value)
    fields |= {"weights": RANDOM} if _current.profile.clip.pretrained == RANDOM else {}
    about = {"notebook": _current.notebook, "profile": _current.profile.name, "seed": _current.profile.seed}
    row = {"name": name, "value": value, "n": n, "unit": unit, "paper": paper, **fields, **about}
    append_row(_current.out / METRICS, row)
    notes = [f"n = {n}"] * (n is not None) + [f"paper: {format_number(paper, unit)}"] * (paper is not None)
    print(f"{name}: {format_number(value, unit)}" + (f"  ({', '.join(notes)})" if notes else ""))


def progress(items: Iterable, desc: str = "", total: int | None = None) -> Iterator:
    """Go through `items` with a live bar; in a headless run, with a line per quarter instead, the same every time."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if not headless():
        yield from tqdm(items, desc=desc, total=total)
        return
    for done, item in enumerate(items, 1):
        yield item
        if total and done <= total and another_quarter(done, total):
            print(f"{desc}: {100 * done // total} % ({done} of {total})", flush=True)


def at_once(function: Callable[[Any], Any], items: Iterable, desc: str = "evaluation") -> Iterator[tuple[Any, Any]]:
    """(item, function(item)) of all items, in their order, with progress: several at once on the cores of a CPU.

    function: reads only, such as an evaluation; see `ovs_lite.notebook.threads.each`.
    """
    items = list(items)
    return progress(each(function, items), desc, total=len(items))


def show(image: Figure | Image.Image, alt: str) -> None:
    """Display a matplotlib figure or a PIL image as PNG with a text for those who cannot see it.

    The figure is closed, so that it is not shown twice. Raises ValueError for an empty `alt`.
    """
    if not alt.strip():
        raise ValueError("got an empty alt text, expected a sentence that says what the image shows")
    buffer = io.BytesIO()
    if isinstance(image, Figure):
        image.savefig(buffer, format="png", dpi=FIGURE_DPI, bbox_inches="tight")
        pyplot.close(image)
    else:
        image.save(buffer, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    tag = f'<img alt="{html.escape(alt)}" src="{source}" style="max-width: 100%">'
    display({"text/html": tag, "text/plain": f"[image: {alt}]"}, raw=True)
