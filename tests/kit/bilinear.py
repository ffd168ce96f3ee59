"""Bilinear interpolation written pixel by pixel, for tests."""


def slow_sample(mask, x, y):
    """Value of a mask (list of lists) at (x, y) in [0, 1]: every pixel's tent, one pixel wide on each side of its
    centre at +0.5. Outside there are no pixels, so nothing is added there."""
    column, row, total = x * len(mask[0]) - 0.5, y * len(mask) - 0.5, 0.0
    for r, line in enumerate(mask):
        for c, value in enumerate(line):
            total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * value
    return total


def slow_resize(mask, height, width):
    """A mask (list of lists) at the pixel centres of height x width; the outermost pixels go on outside."""

    def inside(position, side):
        return min(max(position * side, 0.5), side - 0.5) / side

    rows = [inside((r + 0.5) / height, len(mask)) for r in range(height)]
    columns = [inside((c + 0.5) / width, len(mask[0])) for c in range(width)]
    return [[slow_sample(mask, x, y) for x in columns] for y in rows]
