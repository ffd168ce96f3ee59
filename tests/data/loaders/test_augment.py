"""Augmentations: crops as an oracle resamples them, and what "strong" does to images."""

import random
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from kit.ramps import box_of, ramp
from ovs_lite.data.loaders.augment import Augmentation, crop_box


def picture(array):
    return Image.fromarray(array.astype(np.uint8))


def rng(seed=0):
    return np.random.default_rng(seed)


def weights(inputs, outputs):
    """(outputs, inputs) of the triangle filter that widens when it shrinks, written pixel by pixel."""
    table = np.zeros((outputs, inputs))
    step = inputs / outputs
    for o in range(outputs):
        for i in range(inputs):
            table[o, i] = max(0.0, 1 - abs((i + 0.5) - (o + 0.5) * step) / max(step, 1))
    return table / table.sum(1, keepdims=True)


def oracle(image, top, left, height, width, mirrored, size):
    """(3, S, S) in 255ths by explicit sums."""
    cut = image[top : top + height, left : left + width].astype(float)
    small = np.einsum("yi,xj,ijc->cyx", weights(height, size), weights(width, size), cut)
    return small[..., ::-1] if mirrored else small


@pytest.mark.parametrize(("height", "width", "size"), [(40, 48, 16), (50, 30, 24), (20, 20, 40), (60, 12, 16)])
def test_a_crop_is_what_the_oracle_resamples(height, width, size):
    """Also where the image is enlarged, and where no crop of the allowed shapes fits."""
    image = np.clip(ramp(height, width, 100) + rng().integers(-3, 4, (height, width, 3)), 0, 255)
    small, large = (Augmentation("crop", side, (0.3, 1.0)) for side in (size, 64))
    boxes = []
    for seed in range(20):
        mirrored = seed % 2 == 1
        boxes.append(box_of(large(picture(ramp(height, width)), mirrored, rng(seed))))
        expected = oracle(image, *boxes[-1], size)
        found = small(picture(image), mirrored, rng(seed)).numpy() * 255
        np.testing.assert_allclose(found, expected, rtol=0, atol=1.01)
        assert boxes[-1][4] == mirrored
    assert len(set(boxes)) > (15 if height < 60 else 1)


def test_crops_lie_anywhere_with_areas_and_shapes_from_the_ranges():
    generator = rng()
    boxes = np.array([crop_box(60, 60, (0.2, 0.35), generator) for _ in range(2000)])  # all fit
    top, left, height, width = boxes.T
    areas, shapes = height * width / 3600, width / height
    assert top.min() == 0 and left.min() == 0 and (top + height).max() == 60 and (left + width).max() == 60
    assert 0.19 < areas.min() < 0.21 and 0.34 < areas.max() < 0.36
    assert 0.72 < shapes.min() < 0.77 and 1.30 < shapes.max() < 1.38
    assert abs(np.log(shapes).mean()) < 0.02, "uniform in the logarithm"
    for start, side in ((top, height), (left, width)):
        places = start / (60 - side)
        assert abs(places.mean() - 0.5) < 0.03 and abs(places.std() - 12**-0.5) < 0.03, "uniform"


@pytest.mark.parametrize(("height", "width", "box"), [(60, 12, (22, 0, 16, 12)), (9, 60, (0, 24, 9, 12))])
def test_where_nothing_fits_the_largest_allowed_box_at_the_centre_is_taken(height, width, box):
    assert {crop_box(height, width, (1, 1), rng(seed)) for seed in range(4)} == {box}


def test_the_whole_of_a_square_image_is_the_image():
    found = Augmentation("crop", 40, (1, 1))(picture(ramp(40, 40, 7)), False, rng())
    torch.testing.assert_close(found, torch.from_numpy(ramp(40, 40, 7)).permute(2, 0, 1) / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["crop", "strong"])
def test_an_image_of_one_pixel_is_an_image(kind):
    found = Augmentation(kind, 8, (0.5, 1.0))(picture(ramp(1, 1, 9)), False, rng())
    assert found.shape == (3, 8, 8) and found.min() >= 0 and found.max() <= 1
    if kind == "crop":
        assert torch.equal(found, torch.tensor([0, 0, 9 / 255]).view(3, 1, 1).expand(3, 8, 8))


def test_shrinking_averages_what_it_shrinks():
    """An image of stripes, one pixel each, is grey when it becomes four times smaller."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = Augmentation("crop", 16, (1, 1))(picture(stripes), False, rng())
    coarse = interpolate(torch.from_numpy(stripes).permute(2, 0, 1)[None] / 255, (16, 16), mode="nearest")
    assert (small - 0.5).abs().max() < 0.05 and (coarse - 0.5).abs().min() == 0.5


def strong_images(array, count, size=32):
    strong = Augmentation("strong", size, (0.08, 1.0))
    return torch.stack([strong(picture(array), False, rng(seed)) for seed in range(count)])


def test_strong_erases_a_quarter_with_noise():
    """On a plain image red and green of noise rise and fall apart; at the edges of what is turned they agree, or not,
    everywhere."""
    images = strong_images(np.ones((40, 40, 1)) * [124, 116, 104], 400)
    assert images.min() == 0 and images.max() == 1, "noise beyond black and white is cut"
    across, down = images.diff(dim=-1)[:, :, 1:], images.diff(dim=-2)[..., 1:]
    varied = (across.abs() > 0.02).all(1) & (down.abs() > 0.02).all(1)
    agreeing = across[:, 0] * across[:, 1] > 0
    noisy = torch.minimum((varied & agreeing).sum((1, 2)), (varied & ~agreeing).sum((1, 2))) > 4
    assert 70 < noisy.sum() < 130, "a quarter of 400"
    assert 0.15 < varied[noisy].float().mean((1, 2)).max() < 0.4, "up to a third of the image"
    noise = images[noisy][:, :, 1:, 1:].movedim(1, -1)[varied[noisy]]
    inner = noise[((noise > 0) & (noise < 1)).all(1)]
    assert torch.allclose(inner.mean(0), torch.tensor([0.485, 0.456, 0.406]), atol=0.03)
    assert 0.15 < inner.std() < 0.23


def test_strong_changes_colours_of_some_images():
    colour = torch.tensor([60, 120, 200])
    middle = strong_images(np.ones((40, 40, 1)) * colour.numpy(), 200).flatten(2).median(-1).values
    assert 30 < ((middle - colour / 255).abs() > 0.03).any(1).sum() < 150


def test_strong_turns_as_far_as_level_9_of_10():
    """By 27 degrees as timm's m9, not by a third of it as torchvision counts by itself."""
    bar = np.full((96, 96, 3), 255)
    bar[:, 44:52] = 0
    strong, angles = Augmentation("strong", 96, (1, 1)), []
    for seed in range(300):
        dark = (strong(picture(bar), False, rng(seed)) < 0.2).all(0)[24:72]
        if dark.sum() > 300:
            rows, columns = torch.nonzero(dark, as_tuple=True)
            angles.append(np.degrees(np.arctan(np.polyfit(rows.numpy(), columns.numpy(), 1)[0])))
    assert len(angles) > 150 and 22 < np.abs(angles).max() < 50, "two may add up"
    assert sum(abs(abs(angle) - 27) < 1.5 for angle in angles) > 5 and sum(abs(angle) < 1 for angle in angles) > 90


def test_strong_is_mirrored_where_asked():
    strong = Augmentation("strong", 32, (0.9, 1.0))
    for mirrored, sign in ((False, 1), (True, -1)):
        images = [strong(picture(ramp(60, 60)), mirrored, rng(seed)) for seed in range(100)]
        spans = [(image[0, :, 24] - image[0, :, 8]).median().item() * sign for image in images]
        assert np.mean([span > 0 for span in spans]) > 0.75, "not all: erasing and translating hide some"


@pytest.mark.parametrize("kind", ["crop", "strong"])
def test_the_global_generators_are_neither_read_nor_left_changed(kind):
    augmentation, image = Augmentation(kind, 24, (0.3, 1.0)), picture(ramp(40, 48))
    found = []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        found.append(augmentation(image, False, rng(3)))
        assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
    assert torch.equal(*found), "other global seeds, same image"
    assert not torch.equal(found[0], augmentation(image, False, rng(4)))


def test_the_global_generator_comes_back_after_an_error(monkeypatch):
    def fail(pixels):
        torch.rand(1)
        raise ArithmeticError

    monkeypatch.setattr("ovs_lite.data.loaders.augment._strong", lambda: fail)
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError):
        Augmentation("strong", 24, (0.3, 1.0))(picture(ramp(8, 8)), False, rng())
    assert torch.equal(torch.get_rng_state(), before)


def test_strong_refuses_to_draw_in_a_thread():
    errors = []

    def ask(kind):
        try:
            Augmentation(kind, 8, (0.5, 1.0))(picture(ramp(8, 8)), False, rng())
        except RuntimeError as error:
            errors.append(str(error))

    for kind in ("crop", "strong"):
        thread = threading.Thread(target=ask, args=(kind,))
        thread.start()
        thread.join()
    assert errors == ['got augment="strong" in a thread, expected the main thread or workers >= 1 (processes)']


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("all", 8, (0.5, 1)), "got augment='all', expected one of crop, strong"),
        (("crop", 0, (0.5, 1)), "size=0"),
        (("crop", 8, (0, 1)), r"crop_area=\(0, 1\)"),
        (("crop", 8, (0.8, 0.5)), r"crop_area=\(0.8, 0.5\)"),
        (("crop", 8, (0.5, 1.1)), r"crop_area=\(0.5, 1.1\), .* a range in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(*settings)
