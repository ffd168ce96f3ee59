"""Images of every kind come out as upright RGB, or are refused by name."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from ovs_lite.data import images
from ovs_lite.data.images import encode_image, read_image, read_image_file, upright

ARROW = np.zeros((4, 6, 3), dtype=np.uint8)  # no symmetry: all eight orientations differ
ARROW[0, :4] = (250, 10, 20)
ARROW[2:, 0] = (10, 240, 30)


def save(path, image, **options):
    image.save(path, **options)
    return path


def with_orientation(path, value, size=(60, 40)):
    exif = Image.Exif()
    exif[0x0112] = value
    picture = Image.fromarray(ARROW).resize(size, Image.NEAREST)
    return save(path, picture, exif=exif)


def huge_png(path, side):
    """A PNG header that claims side x side pixels; a few bytes long."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_masks_can_follow(tmp_path, orientation):
    path = with_orientation(tmp_path / "turned.png", orientation)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
        mask = np.asarray(stored)[..., 0] > 100
    picture = read_image_file(path)
    assert np.array_equal(np.asarray(read_image(path)), expected)
    assert np.array_equal(upright(mask, picture.orientation), expected[..., 0] > 100)
    assert (picture.height, picture.width) == expected.shape[:2]
    assert picture.stored_size == (40, 60)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.encoded))), expected)
    assert Image.open(io.BytesIO(picture.encoded)).getexif().get(0x0112) is None  # not turned a second time


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_impossible_orientation_is_ignored(tmp_path, value):
    assert read_image_file(with_orientation(tmp_path / "odd.png", value)).orientation == 1


def test_damaged_exif_does_not_lose_the_image(tmp_path):
    path = save(tmp_path / "exif.jpg", Image.new("RGB", (8, 6), "red"), exif=b"Exif\0\0XX*\0garbage")
    picture = read_image_file(path)
    assert (picture.height, picture.width, picture.orientation) == (6, 8, 1)
    assert Image.open(io.BytesIO(picture.encoded)).getexif().get(0x0112) is None


def test_plain_jpeg_keeps_its_bytes(tmp_path):
    path = save(tmp_path / "plain.jpg", Image.fromarray(ARROW))
    assert read_image_file(path).encoded == path.read_bytes()
    grey = save(tmp_path / "grey.jpg", Image.fromarray(ARROW[..., 0]))
    assert Image.open(io.BytesIO(read_image_file(grey).encoded)).mode == "RGB"


def test_grey_palette_and_one_bit(tmp_path):
    grey = save(tmp_path / "grey.png", Image.fromarray(ARROW[..., 0]))
    assert np.array_equal(np.asarray(read_image(grey)), np.repeat(ARROW[..., :1], 3, axis=2))
    palette = save(tmp_path / "palette.png", Image.fromarray(ARROW).quantize(4))
    assert np.abs(np.asarray(read_image(palette)).astype(int) - ARROW).max() <= 8
    bits = save(tmp_path / "bits.png", Image.fromarray(ARROW[..., 0] > 100))
    assert np.array_equal(np.asarray(read_image(bits))[..., 1], (ARROW[..., 0] > 100) * np.uint8(255))


def test_alpha_is_composited_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, (0, 255, 128)
    path = save(tmp_path / "alpha.png", Image.fromarray(rgba))
    result = np.asarray(read_image(path))[0].tolist()
    assert result[0] == [255, 255, 255] and result[1] == [200, 0, 0]
    assert np.allclose(result[2], [227, 127, 127], atol=2)
    assert np.array_equal(np.asarray(read_image(rgba)), np.asarray(read_image(path)))
    see_through = Image.fromarray(ARROW).quantize(4)
    path = save(tmp_path / "palette.png", see_through, transparency=see_through.getpixel((5, 1)))
    assert read_image(path).getpixel((5, 1)) == (255, 255, 255)


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = save(tmp_path / "deep.png", Image.fromarray(values))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert np.asarray(read_image(values))[0, :, 2].tolist() == [0, 1, 128, 255]


def test_cmyk(tmp_path):
    path = save(tmp_path / "print.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=95)
    red, green, blue = read_image(path).getpixel((4, 4))
    assert red > 240 and green < 20 and blue < 20


def test_float_pixels_are_refused(tmp_path):
    path = save(tmp_path / "float.tiff", Image.fromarray(np.ones((4, 4), dtype=np.float32)))
    with pytest.raises(ValueError, match=r"float\.tiff.*mode 'F'"):
        read_image(path)
    with pytest.raises(ValueError, match="70000"):
        read_image(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)))


@pytest.mark.parametrize(
    "array",
    [np.ones((4, 4, 3)), np.ones((3, 9, 8), np.uint8), np.ones((0, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint16)],
    ids=["float", "channels first", "empty", "16-bit colour"],
)
def test_unfit_arrays_are_refused(array):
    with pytest.raises(ValueError, match="expected"):
        read_image(array)


def test_sizes_from_one_pixel_to_a_ribbon(tmp_path):
    for size in ((1, 1), (20_000, 1), (8_000, 3)):
        assert read_image(save(tmp_path / "size.png", Image.new("RGB", size))).size == size
        assert read_image(np.zeros((size[1], size[0], 3), np.uint8)).size == size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 14_000, 60_000])
def test_bombs_are_refused_before_decoding(tmp_path, side, monkeypatch):
    with pytest.raises(ValueError, match=r"bomb\.png"):
        read_image(huge_png(tmp_path / "bomb.png", side))
    with pytest.raises(ValueError, match="million"):
        monkeypatch.setattr(images, "MAX_PIXELS", 9_999)
        read_image(Image.new("1", (100, 100)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused_by_name(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format=kind)
    path = tmp_path / "short.img"
    path.write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    for reader in (read_image, read_image_file):
        with pytest.raises(ValueError, match=r"short\.img"):
            reader(path)


def test_other_things_are_refused_by_name(tmp_path):
    page = tmp_path / "page.jpg"
    page.write_text("<html><body>404</body></html>")
    for source in (page, tmp_path):
        with pytest.raises(ValueError, match=source.name):
            read_image(source)
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="type"):
        read_image(42)


def test_result_does_not_share_memory_with_the_input():
    source = Image.new("RGB", (2, 2), "red")
    result = read_image(source)
    source.putpixel((0, 0), (0, 0, 255))
    assert result.getpixel((0, 0)) == (255, 0, 0)


def test_encoding_round_trips_and_keeps_bytes():
    encoded = encode_image(ARROW)
    assert np.array_equal(np.asarray(read_image(encoded)), ARROW)
    assert encode_image(encoded) is encoded


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(ARROW).resize((60, 40), Image.NEAREST), {"exif": exif}


def one_transparent(image, value):
    return image, {"transparency": value}


AWKWARD = {
    "turned jpeg": ("JPEG", *turned()),
    "turned png": ("PNG", *turned()),
    "plain jpeg": ("JPEG", Image.fromarray(ARROW), {}),
    "plain png": ("PNG", Image.fromarray(ARROW), {}),
    "16 bits": ("PNG", Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)), {}),
    "16 bits, one see-through": ("PNG", *one_transparent(Image.fromarray(np.array([[9, 257]], np.uint16)), 9)),
    "alpha": ("PNG", Image.fromarray(np.array([[[200, 0, 0, 0], [200, 0, 0, 255]]], np.uint8)), {}),
    "grey and alpha": ("PNG", Image.fromarray(np.array([[[7, 0], [7, 255]]], np.uint8)), {}),
    "a see-through colour": ("PNG", *one_transparent(Image.fromarray(ARROW), (250, 10, 20))),
    "grey": ("PNG", Image.fromarray(ARROW[..., 0]), {}),
    "cmyk": ("JPEG", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {}),
    "webp": ("WEBP", Image.fromarray(ARROW), {"lossless": True}),
    "animation": (
        "GIF",
        Image.new("RGB", (6, 4), "red"),
        {"save_all": True, "append_images": [Image.new("1", (6, 4))]},
    ),
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_path_bytes_and_pil_image_go_through_one_door(tmp_path, kind):
    """The stored bytes, opened by anybody without rules of their own, show the same image whichever way it came."""
    form, image, options = AWKWARD[kind]
    path = save(tmp_path / "image.bin", image, format=form, **options)
    with Image.open(path) as opened:
        found = [read_image_file(source) for source in (path, path.read_bytes(), opened)]
    expected = np.asarray(read_image(path))
    for each in found:
        stored = Image.open(io.BytesIO(each.encoded))
        assert np.array_equal(np.asarray(stored.convert("RGB")), expected)
        assert stored.mode == "RGB" and stored.getexif().get(0x0112, 1) == 1 and "transparency" not in stored.info
        assert (each.height, each.width, each.orientation) == (*expected.shape[:2], 6 if "turned" in kind else 1)
    kept = kind in ("plain jpeg", "plain png")
    assert [each.encoded == path.read_bytes() for each in found[:2]] == [kept, kept]


def test_see_through_colours_become_white_whatever_their_depth():
    for image, value in ((np.array([[9, 257]], np.uint16), 9), (np.array([[9, 1]], np.uint8), 9)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", transparency=value)
        assert np.asarray(read_image(stream.getvalue()))[0, :, 0].tolist() == [255, 1]


@pytest.mark.parametrize("reader", [read_image, read_image_file])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_and_folders_are_refused_and_endless_names_too(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(ValueError, match="it is no file but a folder, a pipe or a device"):
            reader(path)
    with pytest.raises(ValueError, match="name too long"):
        reader("a" * 5000)
