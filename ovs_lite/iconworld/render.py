"""Draw scenes: stuff textures, then things composited on top, for a whole batch in tensor code.

B scenes, R stuff regions, T things, H = W = size pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ovs_lite.iconworld.atlas import glyph_atlas, variant_atlas
from ovs_lite.iconworld.palette import pigments
from ovs_lite.iconworld.scene import SceneBatch
from ovs_lite.iconworld.textures import paint_stuff


@dataclass
class Rendering:
    """A drawn batch and who owns its pixels.

    images: (B, 3, H, W) RGB in [0, 1].
    ids: (B, H, W) int64, 1..R a stuff region, R + 1 + t thing t (no void).
    shapes: (B, T, H, W) bool, each thing's own outline before anything covers it.
    """

    images: torch.Tensor
    ids: torch.Tensor
    shapes: torch.Tensor


def region_map(scene: SceneBatch, size: int) -> torch.Tensor:
    """Which stuff region covers each pixel: (B, size, size) int64 in 0..R-1."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    angle, amplitude, frequency, phase = (value.view(-1, 1, 1) for value in scene.layout.unbind(1))
    u, v = axis.view(1, 1, -1), axis.view(1, -1, 1)
    along = v * angle.cos() + u * angle.sin() + 0.5
    across = u * angle.cos() - v * angle.sin()
    along = along + amplitude * torch.sin(2 * torch.pi * (across * frequency + phase))
    borders = scene.borders.masked_fill(~scene.stuff_valid[:, 1:], torch.inf)
    return (along[:, None] > borders[:, :, None, None]).sum(1)


def _paint_background(scene: SceneBatch, regions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    batch, number = scene.stuff_ids.shape
    size = regions.shape[-1]
    background = torch.zeros(batch, 3, size, size)
    for style in (False, True):
        rows, columns = (scene.stuff_valid & (scene.new_style == style)[:, None]).nonzero(as_tuple=True)
        if len(rows) == 0:
            continue
        textures = paint_stuff(scene.stuff_ids[rows, columns], size, generator, new_style=style)
        shown = (regions[rows] == columns.view(-1, 1, 1)).unsqueeze(1)
        background.index_add_(0, rows, textures * shown)
    return background


def _glyph_layers(scene: SceneBatch, rows, columns, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Alpha (n, H, W) and glyph coordinates (n, H, W, 2) in [-1, 1] inside the glyph, of the things (rows, columns)."""
    atlas, pick = _glyphs(scene, rows, columns)
    half = scene.size[rows, columns] / 2
    cos, sin = scene.rotation[rows, columns].cos() / half, scene.rotation[rows, columns].sin() / half
    flip = scene.flip[rows, columns]
    # affine_grid works in [-1, 1] over the canvas: a canvas offset of 1 is half a side
    x, y = 2 * scene.x[rows, columns] - 1, 2 * scene.y[rows, columns] - 1
    cos, sin = cos / 2, sin / 2
    row_u = torch.stack([flip * cos, flip * sin, -flip * (cos * x + sin * y)], 1)
    row_v = torch.stack([-sin, cos, sin * x - cos * y], 1)
    grid = F.affine_grid(torch.stack([row_u, row_v], 1), [len(rows), 1, size, size], align_corners=False)
    alpha = F.grid_sample(atlas[pick][:, None], grid, align_corners=False)[:, 0]
    return alpha, grid


def _glyphs(scene: SceneBatch, rows, columns) -> tuple[torch.Tensor, torch.Tensor]:
    """Glyphs (G, S, S), and which of them each thing (rows, columns) is drawn with; only fonts that are needed."""
    nouns, drawing, font = scene.noun_ids[rows, columns], scene.drawing[rows, columns], scene.second_font[rows]
    parts = [glyph_atlas("mdi")[0]]
    pick = nouns
    if font.any():
        pick = torch.where(font, len(parts[0]) + nouns, pick)
        parts.append(glyph_atlas("fa")[0])
    if (drawing > 0).any():
        alpha, begin, _ = variant_atlas()
        pick = torch.where((drawing > 0) & ~font, sum(map(len, parts)) + begin[nouns] + drawing - 1, pick)
        parts.append(alpha)
    return parts[0] if len(parts) == 1 else torch.cat(parts), pick


def _thing_colours(scene, rows, columns, grid, generator) -> torch.Tensor:
    """Shaded colour of each thing: pigment with jitter, lit from a random side. (n, 3, H, W)."""
    jitter = (torch.rand(len(rows), 3, generator=generator) - 0.5) * 0.10
    jitter = jitter * (1 + scene.new_style[rows, None].float())
    colour = pigments()[scene.colour_ids[rows, columns]] + jitter
    light = torch.rand(len(rows), 1, 1, 1, generator=generator) * 2 * torch.pi
    slope = grid[..., 0:1] * light.cos() + grid[..., 1:2] * light.sin()
    shade = 1 + 0.20 * slope.clamp(-1, 1).permute(0, 3, 1, 2)
    return (colour[:, :, None, None] * shade).clamp_(0, 1)


def render(scene: SceneBatch, size: int, generator: torch.Generator) -> Rendering:
    """Draw every scene at size x size pixels. Deterministic for a given scene batch and generator state."""
    regions = region_map(scene, size)
    images = _paint_background(scene, regions, generator)
    ids = regions + 1
    batch, things = scene.thing_valid.shape
    shapes = torch.zeros(batch, things, size, size, dtype=torch.bool)
    rows, columns = scene.thing_valid.nonzero(as_tuple=True)
    if len(rows) == 0:
        return Rendering(images, ids, shapes)
    alpha, grid = _glyph_layers(scene, rows, columns, size)
    colours = _thing_colours(scene, rows, columns, grid, generator)
    shapes[rows, columns] = alpha > 0.5
    first_thing_id = scene.stuff_ids.shape[1] + 1
    for thing in range(things):  # later things are smaller and lie on top
        chosen = (columns == thing).nonzero(as_tuple=True)[0]
        on = rows[chosen]
        images[on] = torch.lerp(images[on], colours[chosen], alpha[chosen, None])
        ids[on] = torch.where(alpha[chosen] > 0.5, first_thing_id + thing, ids[on])
    return Rendering(images, ids, shapes)


def visible_areas(scene: SceneBatch, rendering: Rendering) -> torch.Tensor:
    """Pixels of every segment that are not covered: (B, R + T) int64, stuff regions first."""
    batch, number = len(scene), scene.stuff_ids.shape[1] + scene.noun_ids.shape[1]
    flat = rendering.ids.flatten(1) - 1 + torch.arange(batch)[:, None] * number
    return torch.bincount(flat.flatten(), minlength=batch * number).view(batch, number)
