"""Images that show where they were cropped: red is the column, green the row, blue the image's number."""

import numpy as np

STEP = 4  # between neighbouring pixels, in 255ths


def ramp(height, width, number=0):
    """(H, W, 3): red grows with the column, green with the row; sides up to 60."""
    columns, rows = np.arange(width) * STEP, np.arange(height)[:, None] * STEP
    return np.stack([np.tile(columns, (height, 1)), np.tile(rows, width), np.full((height, width), number)], -1)


def pair(number, height=40, width=48, captions=None):
    """A record of a ramp without segments."""
    captions = [f"picture {number}"] if captions is None else captions
    image = ramp(height, width, number).astype(np.uint8)
    return {"image_id": f"p{number}", "image": image, "segments": None, "segments_info": None, "captions": captions}


def box_of(image):
    """(top, left, height, width, mirrored) of the crop that became `image`, (3, S, S) of a ramp, by straight lines
    through the inner half of its rows and columns. S must be large, because the values are rounded."""
    size, found = image.shape[-1], []
    inner = np.arange(size // 4, size - size // 4)
    for profile in (image[1].mean(1), image[0].mean(0)):
        slope, start = np.polyfit(inner + 0.5, profile.double().numpy()[inner] * 255 / STEP + 0.5, 1)
        found.append((start + min(0, slope * size), abs(slope) * size, slope < 0))
    (top, height, _), (left, width, mirrored) = found
    return round(top), round(left), round(height), round(width), bool(mirrored)
