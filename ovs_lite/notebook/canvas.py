"""Several methods' results on one image, to be looked at after the kernel is gone."""

from collections.abc import Mapping
from pathlib import Path

from IPython.display import display
from PIL import Image

from ovs_lite.files import to_json, write_text
from ovs_lite.viz.explorer.content import Result
from ovs_lite.viz.explorer.inlined import inlined_content, output
from ovs_lite.viz.image_files import save_image
from ovs_lite.viz.overlay import overlay
from ovs_lite.viz.sheets import contact_sheet

SIDE_BY_SIDE = "side-by-side.png"  # what `show_canvas` leaves; .txt: its alt text; .json: the canvas's content


def show_canvas(image: Image.Image, results: Mapping[str, Result], alt: str, folder: str | Path | None = None) -> None:
    """Display a canvas with the results by name: hover, toggles, two methods side by side, without a kernel.

    Where scripts are off the picture and all results stand there, side by side. alt: what that shows. folder: leaves
    it, and the canvas's content, for the report of the run. Raises ValueError for an empty `alt`, and as `content`.
    """
    if not alt.strip():
        raise ValueError("got an empty alt text, expected a sentence that says what the image shows")
    shown = inlined_content(image, results)
    drawn = [overlay(image, result.labels, list(result.queries), legend=False) for result in results.values()]
    still = contact_sheet([image, *drawn], ["picture", *results])
    if folder is not None:
        path = Path(folder) / SIDE_BY_SIDE
        save_image(still, path)
        write_text(path.with_suffix(".txt"), alt)
        write_text(path.with_suffix(".json"), to_json(shown))
    display({"text/html": output(still, alt, shown), "text/plain": f"[image: {alt}]"}, raw=True)
