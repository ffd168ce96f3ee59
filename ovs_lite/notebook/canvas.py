"""Several methods' results on one image, to be looked at after the kernel is gone."""

from collections.abc import Mapping
from pathlib import Path

from IPython.display import display
from PIL import Image

from ovs_lite.files import to_json, write_text
from ovs_lite.viz.explorer.content import Result
from ovs_lite.viz.explorer.inlined import inlined_content, output
from ovs_lite.viz.image_files import save_image

SIDE_BY_SIDE = "side-by-side.png"  # what `show_canvas` leaves; .txt: its alt text; .json: the canvas's content


def show_canvas(
    image: Image.Image, results: Mapping[str, Result], still: Image.Image, alt: str, folder: str | Path | None = None
) -> None:
    """Display a canvas with the results by name: hover, toggles, two methods side by side, without a kernel.

    still, alt: the image, and its description, that are shown where scripts are off. folder: leaves them there, and the
    content, for the report of the run. Raises ValueError for an empty `alt`, and as `content`.
    """
    if not alt.strip():
        raise ValueError("got an empty alt text, expected a sentence that says what the image shows")
    shown = inlined_content(image, results)
    if folder is not None:
        path = Path(folder) / SIDE_BY_SIDE
        save_image(still, path)
        write_text(path.with_suffix(".txt"), alt)
        write_text(path.with_suffix(".json"), to_json(shown))
    display({"text/html": output(still, alt, shown), "text/plain": f"[image: {alt}]"}, raw=True)
