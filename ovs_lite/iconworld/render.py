"""Draw scenes: stuff textures, then things composited on top, for a whole batch in tensor code, on a CPU or a GPU.

B scenes, R stuff regions, T things, H = W = size pixels; n things of a group, W pixels of their windows' sides.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ovs_lite.iconworld.atlas import LEVELS, load_drawings, sprites
from ovs_lite.iconworld.palette import hue_turns, pigments
from ovs_lite.iconworld.placement import region_at
from ovs_lite.iconworld.scene import SceneBatch
from ovs_lite.iconworld.textures import paint_stuff

WINDOW = 1.4  # side of the window a thing is drawn in, of its own side: room for its rotation and its shadow
WINDOW_STEP = 0.2  # windows come in steps of this share of the image, so that things can be drawn many at a time
SHADE = 0.22  # how much brighter a thing is towards the light
SHADOW = 0.5


@dataclass
class Rendering:
    """A drawn batch and who owns its pixels.

    images: (B, 3, H, W) RGB in [0, 1].
    ids: (B, H, W) int64, 1..R a stuff region, R + 1 + t thing t (no void).
    own: (B, T) int64, pixels that each thing would cover if nothing lay on it. All on the generator's device.
    """

    images: torch.Tensor
    ids: torch.Tensor
    own: torch.Tensor


def region_map(scene: SceneBatch, size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which stuff region covers each pixel: (B, size, size) int64 in 0..R-1."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    parts = (part.to(device) for part in (scene.layout, scene.borders, scene.stuff_valid))
    return region_at(*parts, x.reshape(1, -1), y.reshape(1, -1)).view(-1, size, size)


def _paint_background(scene: SceneBatch, regions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, H, W, 3) RGB: every region in its texture."""
    size, device = regions.shape[-1], regions.device
    background = torch.zeros(*regions.shape, 3, device=device)
    for style in (False, True):
        rows, columns = (scene.stuff_valid & (scene.new_style == style)[:, None]).nonzero(as_tuple=True)
        if len(rows) == 0:
            continue
        textures = paint_stuff(scene.stuff_ids[rows, columns], size, generator, new_style=style)
        for region in columns.unique().tolist():  # at most one texture of a region per scene
            chosen = (columns == region).nonzero()[:, 0]
            on, some = rows[chosen].to(device), textures[chosen.to(device)].permute(0, 2, 3, 1)
            background[on] = torch.where((regions[on] == region)[..., None], some, background[on])
    return background


@dataclass
class _Group:
    """n things of one slot whose windows have W pixels: everything needed to draw them, on the drawing device."""

    rows: torch.Tensor  # (n,) scenes
    pictures: torch.Tensor  # (n, 4, S, S) premultiplied, in [0, 1]
    matrices: torch.Tensor  # (n, 3, 3) hue turn or pigment, times brightness
    centre: torch.Tensor  # (n, 2) pixels, x and y
    side: torch.Tensor  # (n,) pixels
    pose: torch.Tensor  # (n, 3) cos and sin of the rotation, flip
    cover: torch.Tensor  # (n, 2)
    light: torch.Tensor  # (n,)
    shadow: torch.Tensor  # (n,)


def _groups(scene: SceneBatch, size: int, generator: torch.Generator) -> list[tuple[int, int, _Group]]:
    """(slot, window in pixels, things) in drawing order: later slots are smaller and lie on top."""
    device = generator.device
    rows, slots = scene.thing_valid.T.nonzero(as_tuple=True)[::-1]
    fields = {
        "matrices": _colour_matrices(scene, rows, slots, generator),
        "centre": size * torch.stack([scene.x[rows, slots], scene.y[rows, slots]], 1),
        "side": size * scene.size[rows, slots],
        "pose": torch.stack([*_turn(scene.rotation[rows, slots]), scene.flip[rows, slots]], 1),
        "cover": scene.cover[rows, slots],
        "light": scene.light[rows],
    }
    steps = (scene.size[rows, slots] * WINDOW / WINDOW_STEP).ceil().long()
    fields = {name: value.to(device) for name, value in fields.items()}
    fields["shadow"] = SHADOW * torch.rand(len(rows), generator=generator, device=device)
    found = []
    for slot, step in torch.stack([slots, steps], 1).unique(dim=0).tolist():
        chosen = ((slots == slot) & (steps == step)).nonzero()[:, 0]
        window = round(step * WINDOW_STEP * size) // 2 * 2
        level = sum(window / WINDOW < side for side in (30, 60))  # the smallest sprite that is not enlarged
        pictures = sprites(str(device))[min(level, LEVELS - 1)][
            scene.drawing_ids[rows[chosen], slots[chosen]].to(device)
        ]
        chosen = chosen.to(device)
        some = {name: value[chosen] for name, value in fields.items()}
        found.append((slot, window, _Group(rows.to(device)[chosen], pictures.float() / 255, **some)))
    return found


def _turn(angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return angle.cos(), angle.sin()


def _colour_matrices(scene, rows, slots, generator) -> torch.Tensor:
    """(n, 3, 3): what turns a sprite's RGB into the thing's."""
    drawing = scene.drawing_ids[rows, slots]
    colour = pigments()[scene.colour_ids[rows, slots].clamp(min=0)]
    glyph = load_drawings().glyph[drawing][:, None, None]
    matrices = torch.where(glyph, torch.diag_embed(colour), hue_turns()[scene.turn_ids[rows, slots]]).to(
        generator.device
    )
    jitter = (torch.rand(len(rows), 3, generator=generator, device=generator.device) - 0.5) * 0.12
    spread = 1 + scene.new_style[rows, None].to(generator.device).float()
    return matrices * (1 + jitter * spread)[..., None]


def _draw(group: _Group, window: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Premultiplied RGB (n, W, W, 3), alpha and shadow (n, W, W), and the window's top left corner (n, 2) in pixels."""
    corner = (group.centre - window / 2).round()
    axis = torch.arange(window, device=corner.device) + 0.5
    offset = (corner - group.centre)[:, :, None] + axis  # (n, 2, W) pixels from the centre
    across, down = (value / (group.side[:, None] / 2) for value in offset.unbind(1))
    across, down = across[:, None, :], down[:, :, None]
    cos, sin, flip = (value.view(-1, 1, 1) for value in group.pose.unbind(1))
    u, v = flip * (cos * across + sin * down), cos * down - sin * across
    layer = F.grid_sample(group.pictures, torch.stack([u, v], -1), align_corners=False)
    direction, begin = (value.view(-1, 1, 1) for value in group.cover.unbind(1))
    bare = ((begin - u * direction.cos() - v * direction.sin()) * 12).clamp(0, 1)  # nothing where something hides it
    alpha = layer[:, 3] * bare
    light = group.light.view(-1, 1, 1)
    shade = 1 + SHADE * (across * light.cos() + down * light.sin()).clamp(-1, 1)
    rgb = torch.einsum("nij,njhw->nhwi", group.matrices, layer[:, :3]) * (shade * bare)[..., None]
    rgb = rgb.clamp(min=0).minimum(alpha[..., None])
    away = u + 0.35 * light.cos() * flip  # the shadow falls away from the light
    shadow = group.shadow.view(-1, 1, 1) * bare * torch.exp(-2 * away**2 - 30 * (v - 0.9) ** 2)
    return rgb, alpha, shadow, corner.long()


def render(scene: SceneBatch, size: int, generator: torch.Generator) -> Rendering:
    """Draw every scene at size x size pixels, on the generator's device.

    Deterministic for a given scene batch, device and generator state.
    """
    regions = region_map(scene, size, generator.device)
    background = _paint_background(scene, regions, generator)
    pad = int(size * (WINDOW_STEP + WINDOW * float(scene.size.max())) / 2) + 2
    canvas = F.pad(background, (0, 0, pad, pad, pad, pad))
    ids = F.pad(regions + 1, (pad, pad, pad, pad))
    own = torch.zeros(scene.thing_valid.shape, dtype=torch.int64, device=generator.device)
    for slot, window, group in _groups(scene, size, generator):
        rgb, alpha, shadow, corner = _draw(group, window)
        place = corner[:, :, None] + torch.arange(window, device=corner.device)  # (n, 2, W)
        inside = ((place >= 0) & (place < size)).unsqueeze(-1)
        at = group.rows.view(-1, 1, 1), place[:, 1, :, None] + pad, place[:, 0, None, :] + pad
        canvas[at] = canvas[at] * ((1 - alpha) * (1 - shadow))[..., None] + rgb
        shown = alpha > 0.5
        ids[at] = torch.where(shown, scene.stuff_ids.shape[1] + 1 + slot, ids[at])
        own[group.rows, slot] = (shown & inside[:, 1] & inside[:, 0].transpose(1, 2)).sum((1, 2))
    middle = slice(pad, pad + size)
    images = _photographed(canvas[:, middle, middle].permute(0, 3, 1, 2), scene, generator)
    return Rendering(images, ids[:, middle, middle].contiguous(), own)


def _photographed(images: torch.Tensor, scene: SceneBatch, generator: torch.Generator) -> torch.Tensor:
    """Blur and grain of each scene's own amount."""
    images, device = images.contiguous(), generator.device
    blurred = (scene.blur > 0).nonzero()[:, 0]
    if len(blurred):
        width = 2 * max(1, round(images.shape[-1] / 64)) + 1
        amount, blurred = scene.blur[blurred].view(-1, 1, 1, 1).to(device), blurred.to(device)
        soft = images[blurred]
        for _ in range(2):
            soft = F.avg_pool2d(soft, width, 1, width // 2, count_include_pad=False)
        images[blurred] = torch.lerp(images[blurred], soft, amount)
    grain = torch.randn(len(images), 1, *images.shape[-2:], generator=generator, device=device)
    return (images + grain * scene.grain.view(-1, 1, 1, 1).to(device)).clamp_(0, 1)


def visible_areas(scene: SceneBatch, rendering: Rendering) -> torch.Tensor:
    """Pixels of every segment that are not covered: (B, R + T) int64, stuff regions first."""
    batch, number = len(scene), scene.stuff_ids.shape[1] + scene.noun_ids.shape[1]
    flat = rendering.ids.flatten(1) - 1 + torch.arange(batch, device=rendering.ids.device)[:, None] * number
    return torch.bincount(flat.flatten(), minlength=batch * number).view(batch, number)
