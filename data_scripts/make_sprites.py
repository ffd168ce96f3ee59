"""Draw the shipped sprites: python data_scripts/make_sprites.py FOLDER, needs pip install -r requirements-sprites.txt

FOLDER holds the npm packages of SOURCES as `npm pack NAME@VERSION` leaves them. Written are one file per style and the
index in ovs_lite/iconworld/sprites; the same packages and the same requirements give the same bytes. Which emoji draw
which noun stands in ovs_lite/iconworld/nouns.json, by the names that Noto gives them.
"""

import argparse
import io
import json
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image, ImageDraw, ImageFont

from ovs_lite.files import write_text
from ovs_lite.iconworld.nouns import Noun, load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES, measured_colours, turned

TARGET = Path(__file__).parents[1] / "ovs_lite" / "iconworld" / "sprites"
SIDE = 96
COLUMNS = 24
SIDES = ("left", "top", "width", "height")
SOURCES = {  # style -> npm package, version, licence, whether training may show it
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0", True),
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", True),
    "emojione": ("@iconify-json/emojione", "1.2.3", "CC-BY-4.0", True),
    "firefox": ("@iconify-json/fxemoji", "1.2.2", "Apache-2.0", True),
    "mdi": ("fonticon-materialdesignicons7", "7.2.96", "Apache-2.0", True),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", False),
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", False),
    "fa": ("fonticon-fontawesome6", "6.4.0", "CC-BY-4.0", False),
}
# icon fonts: style -> module, its table of glyph names, font file
FONTS = {
    "mdi": ("fonticon_mdi7", "MDI7", "materialdesignicons-webfont.ttf"),
    "fa": ("fonticon_fa6", "FA6S", "Font Awesome 6 Free-Solid-900.otf"),
}
# What one would not name so, in a style that draws it otherwise, or as a whole little scene with a sky of its own
LEFT_OUT = {
    "noto": (),
    "twemoji": ("mount-fuji", "tennis", "statue-of-liberty"),
    "emojione": ("motorcycle", "tent", "mountain", "mount-fuji", "basketball", "person-swimming"),
    "firefox": (
        "bird", "umbrella", "sailboat", "tent", "fountain", "ship", "mount-fuji", "keyboard", "basketball", "tennis",
        "world-map", "game-die", "window", "framed-picture", "star", "rainbow", "statue-of-liberty", "tokyo-tower",
        "construction", "roller-coaster", "mountain", "sunglasses", "pushpin", "linked-paperclips", "telephone",
        "desktop-computer", "cloud", "snowboarder", "person-surfing",
    ),
    "fluent-flat": (),
    "fluent-3d": ("paperclip",),
}  # fmt: skip
# Firefox's own names where they are not the character's name
FIREFOX_NAMES = {
    "hot-pepper": "chilipepper", "rabbit-face": "bunny", "rabbit": "bunnyside", "cat": "catside", "dog": "dogside",
    "mouse": "mouseside", "pig": "pigside", "tiger": "tigerside", "leopard": "leopardside", "dragon": "dragonside",
    "dragon-face": "dragonhead", "womans-boot": "boot", "mobile-phone": "cellphone", "gem-stone": "gem",
    "high-heeled-shoe": "heels", "evergreen-tree": "evergreen", "bouquet": "bouquetofflowers",
    "fallen-leaf": "fallingleaf", "leaf-fluttering-in-wind": "leaffluttering", "wrapped-gift": "present",
    "racing-car": "racecar", "womans-sandal": "sandals", "tennis": "tennisball", "necktie": "tie",
    "tokyo-tower": "toykotower", "mans-shoe": "mensshoe", "t-shirt": "mansshirt",
    "running-shoe": "mensrunner", "megaphone": "bullhornwithsoundwaves", "printer": "printericon",
    "snow-capped-mountain": "snowmountains", "spouting-whale": "spurtingwhale",
    "front-facing-baby-chick": "frontfacingchick", "hamster": "hampster",
    "magnifying-glass-tilted-left": "leftmagnifyingglass", "mantelpiece-clock": "manltepiececlock",
    "computer-mouse": "onebuttonmouse", "studio-microphone": "studiomic", "police-officer": "cop",
    "construction": "construct", "video-camera": "handheldvideocamera", "clutch-bag": "makeupbag",
    "purse": "pinkwallet", "videocassette": "videocasette", "file-folder": "folder", "open-file-folder": "openfolder",
    "fax-machine": "faxicon", "high-speed-train": "highspeedtrainbulletnose", "framed-picture": "framewithtiles",
    "desktop-computer": "oldpersonalcomputer", "globe-showing-americas": "americasglobe", "droplet": "blackdroplet",
    "globe-showing-asia-australia": "asiaaustraliaglobe", "globe-showing-europe-africa": "europeafricaglobe",
    "notebook-with-decorative-cover": "notebookdecorativecover", "pushpin": "blackpushpin", "pile-of-poo": "poo",
    "dollar-banknote": "banknotedollar", "euro-banknote": "banknoteeuro", "pound-banknote": "banknotepound",
    "floppy-disk": "softshellfloppy", "optical-disk": "opticaldiscicon", "raised-hand": "hand", "mouth": "lips",
    "person-walking": "walking", "person-running": "running", "person-swimming": "swimming", "sun": "sunrays",
    "triangular-flag": "", "closed-mailbox-with-raised-flag": "closedmailboxraised",
}  # fmt: skip


def plain(name: str) -> str:
    """A name with nothing but its letters and digits."""
    return re.sub("[^a-z0-9]", "", name.lower())


class Packages:
    """The npm packages in a folder: emoji by Noto's name."""

    def __init__(self, folder: Path):
        self.folder = folder
        characters = self.read("noto", "chars.json")
        self.codes = {name: code.replace("-fe0f", "") for code, name in characters.items()}

    def archive(self, style: str) -> Path:
        """Path of a style's package. Raises FileNotFoundError with the command that fetches it."""
        package, version, *_ = SOURCES[style]
        path = self.folder / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: cd {self.folder} && npm pack {package}@{version}")
        return path

    @cache  # noqa: B019 (one object for the length of the script)
    def read(self, style: str, file: str) -> dict:
        """A JSON file of a style's package."""
        with tarfile.open(self.archive(style)) as archive:
            return json.load(archive.extractfile(f"package/{file}"))

    @cache  # noqa: B019 (one object for the length of the script)
    def pictures(self, style: str) -> dict[str, bytes]:
        """Character code -> picture file, of a package of pictures."""
        with tarfile.open(self.archive(style)) as archive:
            files = [file for file in archive.getmembers() if file.name.endswith(".webp")]
            return {Path(f.name).stem.replace("-fe0f", ""): archive.extractfile(f).read() for f in files}

    @cache  # noqa: B019 (one object for the length of the script)
    def names(self, style: str) -> dict[str, str]:
        """Character code -> the package's own name, of a package of drawings; some packages give names only."""
        characters = self.read(style, "chars.json")
        if characters:
            return {code.replace("-fe0f", ""): name for code, name in characters.items()}
        own = {plain(name): name for name in self.read(style, "icons.json")["icons"]}
        found = {}
        for noto, code in self.codes.items():
            unicode_name = unicodedata.name(chr(int(code, 16)), "") if "-" not in code else ""
            known = FIREFOX_NAMES.get(noto) if style == "firefox" else None
            candidates = [plain(noto), plain(unicode_name)] if known is None else [known]
            if match := next((own[name] for name in candidates if name in own), None):
                found[code] = match
        return found

    def draw(self, style: str, noto_name: str) -> Image.Image | None:
        """An emoji as RGBA, larger than needed; None where the style lacks it."""
        code = self.codes[noto_name]
        if style == "fluent-3d":
            data = self.pictures(style).get(code)
            return None if data is None else Image.open(io.BytesIO(data)).convert("RGBA")
        name = self.names(style).get(code)
        if name is None:
            return None
        package = self.read(style, "icons.json")
        icon = package["icons"].get(name) or package["icons"][package["aliases"][name]["parent"]]
        sides = {"left": 0, "top": 0, "width": 16, "height": 16} | {k: v for k, v in package.items() if k in SIDES}
        box = [icon.get(key, sides[key]) for key in SIDES]
        head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        svg = f'<svg {head} viewBox="{" ".join(map(str, box))}" width="{box[2]}" height="{box[3]}">{icon["body"]}</svg>'
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=3 * SIDE, height=3 * SIDE))
        return Image.open(io.BytesIO(data)).convert("RGBA")


def fitted(picture: Image.Image) -> Image.Image:
    """RGBA scaled so that what is drawn fills a SIDE x SIDE square with one pixel to spare, nothing where invisible."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    drawn = picture.crop(box)
    factor = (SIDE - 2) / max(drawn.size)
    size = [max(1, round(side * factor)) for side in drawn.size]
    drawn = drawn.convert("RGBa").resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC)
    square = Image.new("RGBa", (SIDE, SIDE))
    square.paste(drawn, ((SIDE - drawn.width) // 2, (SIDE - drawn.height) // 2))
    return square.convert("RGBA")


def glyph(style: str, name: str) -> Image.Image:
    """A glyph of an icon font as white RGBA, larger than needed. Raises ValueError for a name without a glyph."""
    module, table, file = FONTS[style]
    package = import_module(module)
    key = getattr(getattr(package, table), name, None)
    if not isinstance(key, str):
        raise ValueError(f"font {style!r} ({module}) has no glyph named {name!r}")
    large = 4 * SIDE
    face = ImageFont.truetype(str(Path(package.__file__).parent / "fonts" / file), large)
    alpha = Image.new("L", (2 * large, 2 * large))
    ImageDraw.Draw(alpha).text((large, large), key.rsplit(".", 1)[-1], font=face, fill=255, anchor="mm")
    picture = Image.new("RGBA", alpha.size, "white")
    picture.putalpha(alpha)
    return picture


def drawings(packages: Packages, style: str) -> Iterator[tuple[Noun, str, Image.Image]]:
    """Every noun's drawings in a style: the noun, the drawing's name, the sprite."""
    for noun in load_nouns():
        names = ([getattr(noun, style)] if getattr(noun, style) else []) if style in FONTS else noun.emoji
        for name in names:
            if style in FONTS:
                yield noun, name, fitted(glyph(style, name))
            elif name not in LEFT_OUT[style] and (drawn := packages.draw(style, name)) is not None:
                yield noun, name, fitted(drawn)


def sheet(sprites: list[Image.Image]) -> Image.Image:
    """All sprites of a style in rows of COLUMNS."""
    picture = Image.new("RGBA", (COLUMNS * SIDE, -(-len(sprites) // COLUMNS) * SIDE))
    for index, sprite in enumerate(sprites):
        picture.paste(sprite, (index % COLUMNS * SIDE, index // COLUMNS * SIDE))
    return picture


def colour_row(sprite: Image.Image, made: bool) -> list[int]:
    """Colour words of a sprite, by hue turn for a made thing; -1 where no colour covers most of it."""
    pixels = torch.from_numpy(np.asarray(sprite.convert("RGBA"), dtype=np.float32) / 255).permute(2, 0, 1)
    return measured_colours(turned(pixels) if made else pixels[None]).tolist()


def index_lines(style: str, rows: list[tuple[str, str, list[int]]]) -> str:
    """A style's part of the index."""
    package, version, licence, training = SOURCES[style]
    head = {"file": f"{style}.webp", "package": package, "version": version, "licence": licence, "training": training}
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return f'  {json.dumps(style)}: {json.dumps(head)[:-1]}, "drawings": [\n{lines}\n  ]}}'


def main() -> None:
    """Write all styles and the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the npm packages lie")
    packages = Packages(parser.parse_args().folder)
    TARGET.mkdir(exist_ok=True)
    parts = []
    for style in SOURCES:
        found = list(drawings(packages, style))
        sheet([sprite for *_, sprite in found]).save(TARGET / f"{style}.webp", lossless=True, quality=80, method=4)
        painted = style in FONTS  # a glyph takes any colour
        parts.append(
            index_lines(style, [(n.noun, name, [] if painted else colour_row(s, n.made)) for n, name, s in found])
        )
        print(f"{style}: {len(found)} drawings, {(TARGET / f'{style}.webp').stat().st_size / 1e6:.2f} MB")
    head = f'  "side": {SIDE}, "columns": {COLUMNS}, "colours": {json.dumps(COLOUR_NAMES)},\n  "styles": {{\n'
    write_text(TARGET / "index.json", "{\n" + head + ",\n".join(parts) + "\n  }\n}\n")


if __name__ == "__main__":
    main()
