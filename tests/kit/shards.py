"""Tar shards of image-text pairs, member by member."""

import io
import tarfile

import numpy as np
from PIL import Image

from ovs_lite.data.images import encode_image


def image_file(number, kind="PNG", side=8):
    """Bytes of an image in one colour, which tells its number."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side + 1), (number % 256, number // 256, 7)).save(stream, kind)
    return stream.getvalue()


def number_of(record):
    """The number that the image of `image_file` tells."""
    red, green, blue = record["image"].getpixel((0, 0))
    assert blue == 7
    return red + 256 * green


def member(name, content=b"", **header):
    """A member of an archive: its header, with these fields changed, and its content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    return info, content


def sample(number, text=None, key=None):
    """The members of one pair, and a JSON file."""
    key, text = key or f"{number:09d}", f"picture {number}" if text is None else text
    return [member(f"{key}.png", image_file(number)), member(f"{key}.txt", text.encode()), member(f"{key}.json", b"{}")]


def write_shard(path, members):
    """Write an archive of members; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, counts, stem="part"):
    """One shard per count, images numbered through; the pattern of their paths."""
    starts = np.cumsum([0, *counts])
    for number, count in enumerate(counts):
        members = [part for i in range(count) for part in sample(int(starts[number]) + i)]
        write_shard(folder / f"{stem}-{number:05d}.tar", members)
    return folder / f"{stem}-*.tar"


def shard_of_pairs(path, records, textless=()):
    """A shard of records with one caption each; those whose number is in `textless` lose it."""
    members = []
    for number, record in enumerate(records):
        members.append(member(f"{number:09d}.png", encode_image(record["image"])))
        if number not in textless:
            members.append(member(f"{number:09d}.txt", record["captions"][0].encode()))
    return write_shard(path, members)
