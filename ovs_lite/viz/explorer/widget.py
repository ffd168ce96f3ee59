"""The explorer with a kernel: words, points and boxes are answered by methods that looked at the image once.

The state is observable: `explorer.observe(function, "labels")`. M methods, K words, H W pixels, P prompts.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets
from PIL import Image

from ovs_lite.data.images import read_image
from ovs_lite.data.rle import encode_rle
from ovs_lite.files import write_json, write_text
from ovs_lite.viz.explorer.content import Origin, content, data_url
from ovs_lite.viz.explorer.inlined import output
from ovs_lite.viz.explorer.page import explorer_html, script, styles
from ovs_lite.viz.explorer.prompts import check_boxes, check_points, prompted
from ovs_lite.viz.explorer.why import why
from ovs_lite.viz.image_files import save_image
from ovs_lite.viz.overlay import overlay

DEFAULT_WORDS = "cat, grass, sky"
VIEWS = ("one", "both", "difference")
FILES = ".png or .jpg (overlay), .json (COCO RLE) or .html (the page)"


class Explorer(anywidget.AnyWidget):
    """One image, M methods, and a panel. Made by `ovs_lite.explore` or `ovs_lite.viz.explore`.

    Traits that may be set: words ("cat|kitten, grass"), points (P times [x, y, positive] in pixels), boxes (P times
    [x0, y0, x1, y1]), method, second, view ("one", "both", "difference"), opacity 0..1, contours, named, hidden
    (names), pixel ([x, y], which one to explain, or empty). Traits to read: labels, (H, W) int64 of `method`, index
    into `names`, -1 unlabelled; busy; error, what went wrong with the last words (the result before them stays);
    content, what the browser shows; why, by method that is shown, what `why.why` says of `pixel`.

    Points and boxes are answered by methods that have a `prompter`: positive points and boxes add the mask of the
    highest predicted IoU, negative points take theirs away; what is selected goes to the word with the highest mean
    score there. Departure: the paper's segmenter takes one prompt at a time; this union is ours. A trait that is set to
    what cannot be raises TraitError.
    """

    _esm = script()
    _css = styles()
    photo = traitlets.Unicode().tag(sync=True)
    content = traitlets.Dict().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    boxes = traitlets.List().tag(sync=True)
    history = traitlets.List(traitlets.Unicode()).tag(sync=True)
    promptable = traitlets.List(traitlets.Unicode()).tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    second = traitlets.Unicode().tag(sync=True)
    view = traitlets.Enum(VIEWS, "one").tag(sync=True)
    opacity = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    contours = traitlets.Bool(True).tag(sync=True)
    named = traitlets.Bool(True).tag(sync=True)
    hidden = traitlets.List(traitlets.Unicode()).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    pixel = traitlets.List().tag(sync=True)
    why = traitlets.Dict().tag(sync=True)
    labels = traitlets.Instance(np.ndarray)

    def __init__(self, models: Mapping[str, Any], image: Any, words: str, loaders: Mapping[str, str] | None = None):
        """models: by name, each with `encode` as `ovs_lite.Segmenter`. loaders: see `Origin`. Raises as
        `Segmenter.segment`."""
        pixels = read_image(image)
        self.image: Image.Image = pixels
        self._source = str(image) if isinstance(image, str | Path) else "photo.jpg"
        self._loaders, self._wrong = dict(loaders or {}), ""
        self._answers = words  # the words that the results answer
        self._models = dict(models)
        self._seen = {name: model.encode(pixels) for name, model in models.items()}
        self._results = {name: seen.segment(words) for name, seen in self._seen.items()}
        first = next(iter(models))
        start = {"words": words, "method": first, "second": next((name for name in models if name != first), "")}
        self._shown, start["content"], start["labels"] = self._answered(first)
        promptable = [name for name, model in models.items() if _takes_prompts(model)]
        super().__init__(photo=data_url(pixels), promptable=promptable, **start)
        self.observe(self._asked, ["words"])
        self.observe(self._pointed, ["points", "boxes"])
        self.observe(self._switched, ["method"])
        self.observe(self._wondered, ["pixel"])
        self.on_msg(self._received)

    def look_at(self, image: Any, name: str = "photo.jpg") -> None:
        """Another image, asked for the same words; prompts are forgotten. name: of its file, for `code`.

        Raises ValueError and FileNotFoundError as `read_image`; then nothing has changed.
        """
        pixels = read_image(image)
        seen = {method: model.encode(pixels) for method, model in self._models.items()}
        results = {method: one.segment(self._answers) for method, one in seen.items()}
        with self.hold_sync():
            self.points = self.boxes = self.pixel = []
            self.image, self._seen, self._results = pixels, seen, results
            self._source = str(image) if isinstance(image, str | Path) else name
            self.photo = data_url(pixels)
            self._show()

    def _repr_mimebundle_(self, **about: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The panel, and the canvas of what it shows now for whoever opens the notebook without a kernel."""
        data, more = super()._repr_mimebundle_(**about)
        alt = next(layer["alt"] for layer in self.content["methods"] if layer["name"] == self.method)
        shown = {"photo": self.photo} | self.content
        return data | {"text/html": output(overlay(self.image, self.labels, self.names), alt, shown)}, more

    @property
    def _origin(self) -> Origin:
        return Origin(self._source, self._answers, self._loaders)

    @property
    def names(self) -> list[str]:
        """What `labels` index."""
        return list(self._results[self.method].queries)

    @property
    def results(self) -> dict[str, Any]:
        """The segmentations by method, as they are shown: prompts included."""
        return dict(self._shown)

    def table(self) -> pd.DataFrame:
        """method, word, share (of the pixels, 0..1) and score (mean where the word won, NaN where it did not)."""
        rows = []
        for method, result in self._shown.items():
            for index, word in enumerate(result.queries):
                where = result.labels == index
                score = float(result.logits[index][where].mean()) if where.any() else float("nan")
                rows.append((method, word, float(where.mean()), score))
        return pd.DataFrame(rows, columns=["method", "word", "share", "score"])

    def code(self) -> str:
        """A line of Python that gives the same labels of `method` again; prompts are not part of it."""
        return next(layer["code"] for layer in self.content["methods"] if layer["name"] == self.method)

    def annotations(self) -> list[dict[str, Any]]:
        """`category`, `area` in pixels and `segmentation` as COCO RLE of `method`'s masks, of words that won pixels."""
        masks = {name: self.labels == index for index, name in enumerate(self.names)}
        return [
            {"category": name, "area": int(mask.sum()), "segmentation": encode_rle(mask)}
            for name, mask in masks.items()
            if mask.any()
        ]

    def save(self, path: str | Path) -> None:
        """Write by the path's suffix: .png or .jpg, `method`'s overlay; .json, its masks as COCO RLE; .html, the page
        of all methods.

        Raises ValueError for another suffix, OSError where nothing can be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            write_json(path, self.annotations())
        elif suffix == ".html":
            write_text(path, explorer_html(self.image, self._shown, origin=self._origin))
        elif suffix in (".png", ".jpg", ".jpeg"):
            save_image(overlay(self.image, self.labels, self.names), path)
        else:
            raise ValueError(f"got {str(path)!r}, expected a name that ends in {FILES}")

    def save_masks(self, folder: str | Path) -> list[Path]:
        """One black and white PNG per word of `method` that won pixels, 00.png by its place in `names`; their paths."""
        found = [index for index in range(len(self.names)) if (self.labels == index).any()]
        paths = [Path(folder) / f"{index:02d}.png" for index in found]
        Path(folder).mkdir(parents=True, exist_ok=True)
        for index, path in zip(found, paths, strict=True):
            save_image(Image.fromarray(self.labels == index).convert("L"), path)
        return paths

    @traitlets.validate("points", "boxes")
    def _possible(self, proposal: Any) -> list[Any]:
        check = check_points if proposal["trait"].name == "points" else check_boxes
        size = (self.image.height, self.image.width)
        try:
            found = [list(prompt) for prompt in check(proposal["value"], size)]
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        if found and not self.promptable:
            given = ", ".join(self._seen)
            raise traitlets.TraitError(f"got points or boxes for {given}, expected a method that takes them")
        return found

    @traitlets.validate("pixel")
    def _inside(self, proposal: Any) -> list[float]:
        try:
            found = check_points(
                [proposal["value"]] if proposal["value"] else [], (self.image.height, self.image.width)
            )
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return [value for x, y, _ in found for value in (x, y)]

    @traitlets.validate("method", "second")
    def _known(self, proposal: Any) -> str:
        if proposal["value"] not in self._results and (proposal["value"] or proposal["trait"].name == "method"):
            known = ", ".join(self._results)
            raise traitlets.TraitError(f"got the method {proposal['value']!r}, expected one of {known}")
        return proposal["value"]

    def _switched(self, change: Any) -> None:
        self.labels = self._shown[self.method].labels

    def _wondered(self, change: Any) -> None:
        def answer() -> None:
            names = [self.method, *([self.second] if self.view != "one" and self.second else [])]
            self.why = {
                name: why(self._seen[name], self._shown[name], self._answers, *self.pixel)
                for name in names
                if self.pixel
            }

        self._work(answer, show=False)

    def _received(self, _: Any, message: Any, buffers: Any) -> None:
        """A file that the user picked."""
        if isinstance(message, dict) and message.get("kind") == "picture" and buffers:
            self._work(lambda: self.look_at(bytes(buffers[0]), str(message.get("name"))), show=False)

    def _asked(self, change: Any) -> None:
        def answer() -> None:
            self._results = {name: seen.segment(self.words) for name, seen in self._seen.items()}
            self._answers = self.words
            self.hidden = [name for name in self.hidden if name in self.names]

        self._wrong = ""
        self._work(answer)
        self._wrong = self.error

    def _pointed(self, change: Any) -> None:
        longer = len(change["new"]) - len(change["old"])
        order = [*self.history, *[change["name"]] * max(0, longer)]
        counts = {"points": len(self.points), "boxes": len(self.boxes)}
        for name, count in counts.items():  # forget the last ones of what was taken back
            while order.count(name) > count:
                order = _without_last(order, name)
        self.history = order
        self._work(lambda: None)

    def _work(self, change: Callable[[], None], show: bool = True) -> None:
        """Do it while the controls are off; a mistake is shown in the panel and changes nothing."""
        self.busy = True
        try:
            change()
            if show:
                self._show()
            self.error = self._wrong  # of words that are still there and still have no answer
        except (ValueError, OSError) as error:
            self.error = str(error)
        finally:
            self.busy = False

    def _show(self) -> None:
        self.why = {}
        self._shown, self.content, self.labels = self._answered(self.method)

    def _answered(self, method: str) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
        """What is shown of each method, the same as JSON, and the labels of `method`."""
        shown: dict[str, Any] = dict(self._results)
        for name in self.promptable if self.points or self.boxes else ():
            shown[name] = prompted(self._results[name], self._seen[name].masks_at, self.points, self.boxes)
        return shown, content(self.image, shown, self._origin), shown[method].labels


def _takes_prompts(model: Any) -> bool:
    try:
        return model.method.prompter is not None
    except ValueError:
        return False


def _without_last(order: list[str], name: str) -> list[str]:
    at = len(order) - 1 - order[::-1].index(name)
    return order[:at] + order[at + 1 :]


def explore(models: Any, image: Any, words: str = DEFAULT_WORDS, loaders: Mapping[str, str] | None = None) -> Explorer:
    """A panel on one image. In a notebook, leave it as the last line of a cell; the object holds what the panel shows.

    models: one `ovs_lite.Segmenter`, several, or a dictionary of them by the name to show. image: path, PIL or array.
    words: as the queries of `Segmenter.segment`, in one string. loaders: how models are loaded, by
    name, for `Explorer.code`. Raises ValueError for models of another kind or name.
    """
    if not isinstance(models, Mapping):
        several = list(models) if isinstance(models, list | tuple) else [models]
        models = {getattr(model, "name", repr(model)): model for model in several}
        if len(models) != len(several):
            raise ValueError("got two models of one name, expected a dictionary such as {'tcl': ..., 'tcl again': ...}")
    if not models or not all(hasattr(model, "encode") and hasattr(model, "method") for model in models.values()):
        raise ValueError(f"got models {models!r}, expected what ovs_lite.load returns, or several of them")
    return Explorer(models, image, words, loaders)
