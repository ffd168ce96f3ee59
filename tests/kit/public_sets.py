"""Tiny public data sets in their real layouts."""

import io
import json
import tarfile

import numpy as np
import scipy.io
from PIL import Image

from ovs_lite.data.rle import encode_rle

SIZE = (6, 4)  # width, height


def picture(path, size=SIZE, seed=0):
    """A JPEG of noise; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def label_map(path, numbers, dtype=np.uint8):
    """A map with a row of `numbers`, repeated; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.array(numbers, dtype), (SIZE[1], 1))).save(path)
    return path


def voc(root, stems=("2007_000032", "2007_000033"), listed=None, numbers=(0, 1, 15, 20, 255, 255)):
    """VOC2012: images, palette maps with void 255, and lists."""
    base = root / "VOCdevkit" / "VOC2012"
    for stem in stems:
        picture(base / "JPEGImages" / f"{stem}.jpg")
        indexed = Image.fromarray(np.tile(np.array(numbers, np.uint8), (SIZE[1], 1)), "L")
        indexed.putpalette([(7 * i) % 256 for i in range(768)])
        (base / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        indexed.save(base / "SegmentationClass" / f"{stem}.png")
    picture(base / "JPEGImages" / "2009_999999.jpg")  # an image without a map, as most are
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in listed or stems))
    return root


def ade_full(root, folder="validation/home/kitchen", size=SIZE):
    """ADE20K 2021_17_01: colours that hold class and instance; part maps and instances lie next to them."""
    place = root / "ADE20K_2021_17_01" / "images" / "ADE" / folder
    name = "ADE_val_00000001"
    picture(place / f"{name}.jpg", size)
    wall, sky, unlisted = 2978, 2420, 1
    columns = np.array([wall, wall, sky, unlisted, 0, sky])[np.arange(size[0]) * 6 // size[0]]
    red, green = columns // 256 * 10, columns % 256
    blue = np.arange(size[0]) % 256  # the instance, which is no class
    colours = np.stack([red, green, blue], -1).astype(np.uint8)
    for ending in ("_seg", "_parts_1"):
        Image.fromarray(np.tile(colours, (size[1], 1, 1))).save(place / f"{name}{ending}.png")
    (place / name).mkdir()
    Image.new("L", size).save(place / name / f"instance_000_{name}.png")
    (root / "ADE20K_2021_17_01" / "index_ade20k.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/ade-was-unpickled'\ntR.")
    return root


CONTEXT_NUMBERS = {"aeroplane": 2, "bag": 9, "wood": 458, "accordion": 1}


def context(root, names, rows=((2, 9, 458, 1, 0, 0),)):
    """PASCAL-Context: VOC 2010's images and lists, MATLAB maps of 16 bits, and labels.txt.

    names: those of the 59 classes, which get numbers among the 459 that are not their order.
    """
    taken = dict(CONTEXT_NUMBERS)
    free = (number for number in range(457, 9, -1) if number not in taken.values())
    taken |= {name: next(free) for name in names if name not in taken}
    filler = {number: f"filler {number}" for number in range(1, 460)} | {n: name for name, n in taken.items()}
    (root / "labels.txt").write_text("0: empty\n" + "".join(f"{n}: {filler[n]}\n" for n in sorted(filler)))
    base = root / "VOCdevkit" / "VOC2010"
    (base / "ImageSets" / "Main").mkdir(parents=True)
    (root / "pascal-context" / "trainval").mkdir(parents=True)
    for number, row in enumerate(rows):
        stem = f"2008_{number:06d}"
        picture(base / "JPEGImages" / f"{stem}.jpg")
        values = np.tile(np.array(row, np.uint16), (SIZE[1], 1))
        scipy.io.savemat(root / "pascal-context" / "trainval" / f"{stem}.mat", {"LabelMap": values})
        (base / "ImageSets" / "Main" / "val.txt").write_text(f"{stem}\n")
    return root


def cityscapes(root):
    """Images and maps in folders of towns; maps of trainIds, instances and polygons lie next to those of ids."""
    for stem in ("town_000000_000001", "town_000000_000002"):
        picture(root / "leftImg8bit" / "val" / "town" / f"{stem}_leftImg8bit.png")
        for ending, numbers in (("labelIds", (0, 4, 7, 8, 33, 11)), ("instanceIds", (26001,) * 6)):
            dtype = np.uint16 if ending == "instanceIds" else np.uint8
            label_map(root / "gtFine" / "val" / "town" / f"{stem}_gtFine_{ending}.png", numbers, dtype)
        (root / "gtFine" / "val" / "town" / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def coco_stuff(root, numbers=(0, 10, 12, 91, 181, 255)):
    """COCO's images with COCO-Stuff's maps, which count from 0."""
    picture(root / "val2017" / "000000000139.jpg")
    label_map(root / "stuffthingmaps" / "val2017" / "000000000139.png", numbers)
    return root


def add_member(archive, name, content):
    """A file of bytes in a tar file that is open."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def sa1b(path, names=("sa_1", "sa_2"), masks=None, size=SIZE, exif=None, stated=None):
    """A tar file of SA-1B. masks: segmentations; two that overlap otherwise. stated: another size in the JSON."""
    if masks is None:
        left, all_of_it = np.zeros(size[::-1], bool), np.ones(size[::-1], bool)
        left[:, :2] = True
        masks = [encode_rle(left), encode_rle(all_of_it)]
    width, height = stated or size
    about = {"image_id": 1, "width": width, "height": height, "file_name": "sa_1.jpg"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            stream = io.BytesIO()
            pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(stream, "JPEG", **({"exif": exif} if exif else {}))
            annotations = [{"id": n, "segmentation": rle, "predicted_iou": 0.9} for n, rle in enumerate(masks)]
            add_member(archive, f"./{name}.jpg", stream.getvalue())
            add_member(archive, f"./{name}.json", json.dumps({"image": about, "annotations": annotations}).encode())
    return path


def pairs(path, captions=("a cat", "a dog on grass", "snow")):
    """A webdataset shard as img2dataset writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, caption in enumerate(captions):
            stream = io.BytesIO()
            Image.new("RGB", SIZE, (number, 0, 0)).save(stream, "JPEG")
            add_member(archive, f"{number:09d}.jpg", stream.getvalue())
            add_member(archive, f"{number:09d}.txt", caption.encode())
            add_member(archive, f"{number:09d}.json", b"{}")
    return path
