"""Stage two of OVSeg, all proposals of an image at once, against one crop at a time, in the same run.

python tests/benchmarks/bench_stage_two.py [MODEL] [SIDE OF THE IMAGE] [PROPOSALS]

A third of the proposals are empty, tiny or duplicates, as of a MaskFormer that was trained for a short while; those
that are not encoded twice are counted, and a second table leaves them out. MODEL may be an open_clip name, then with
random weights: python tests/benchmarks/bench_stage_two.py ViT-B-16 640
"""

import sys

import open_clip
import torch
import torch.nn.functional as F
from timing import best_of

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.crops import cropped_masks, mask_boxes, masked_crops
from ovs_lite.clip.load import wrap_clip
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.methods.ovseg.stage_two import encode_proposals

ROUNDS = 3


def blobs(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Ellipses of all sizes: (count, side, side) bool."""
    draw = torch.Generator().manual_seed(seed)
    y, x, ry, rx = torch.rand(4, count, 1, 1, generator=draw)
    rows, columns = torch.linspace(0, 1, side)[:, None], torch.linspace(0, 1, side)
    return ((rows - y) / (0.03 + 0.4 * ry)) ** 2 + ((columns - x) / (0.03 + 0.4 * rx)) ** 2 < 1


def one_by_one(clip: Clip, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The pipeline of a first attempt: blank, crop, resize and encode each proposal by itself."""
    found, size = image.new_zeros(len(masks), clip.embed_dim), (clip.image_size,) * 2
    for number, mask in enumerate(masks):
        if not mask.any():
            continue
        left, top, right, bottom = mask_boxes(mask[None])[0].tolist()
        box, shape = ((image * mask)[None], mask[None, None].float())
        warped = F.interpolate(box[..., top:bottom, left:right], size, mode="bicubic")
        inside = F.interpolate(shape[..., top:bottom, left:right], size, mode="nearest")[0]
        found[number] = clip.encode_masked(warped, inside)[0]
    return found


def around(clip: Clip, image: torch.Tensor, masks: torch.Tensor) -> None:
    """All but the encoder."""
    masked_crops(image, masks, clip.image_size)
    cropped_masks(masks, clip.image_size)


def main(name: str = "ViT-Lite-8", side: str = "128", proposals: str = "100") -> None:
    """Print the ratios."""
    shipped = name.endswith("-8")
    base = load_clip(name) if shipped else wrap_clip(open_clip.create_model(name, force_quick_gelu=True), name)
    clip, count = MaskPromptedClip(base, 3).eval(), int(proposals)
    image = torch.randn(3, int(side), int(side), generator=torch.Generator().manual_seed(1))
    masks = blobs(count, int(side))
    wasteful = masks.clone()
    wasteful[: count // 9] = False
    wasteful[count // 9 : count // 3] = masks[-1]
    print(f"{name}, image of {side}, threads: {torch.get_num_threads()}")
    with torch.inference_mode():
        for what, some in (("all different", masks), ("a third empty or duplicates", wasteful)):
            regions, _, encoded = encode_proposals(clip, image[None], some[None])
            gap = (regions[0] - one_by_one(clip, image, some)).abs().max()
            slow = best_of(lambda some=some: one_by_one(clip, image, some), ROUNDS)
            fast = best_of(lambda some=some: encode_proposals(clip, image[None], some[None]), ROUNDS)
            rest = best_of(lambda some=some: around(clip, image, some), ROUNDS) / fast
            print(f"{count} proposals, {what}: {slow / fast:.1f} x as fast as one by one, {encoded} encoded")
            print(f"  around the encoder {100 * rest:.1f} % of the time; largest difference of embeddings {gap:.1e}")
        for batch in (16, 32, 64, 128, 256):
            taken = best_of(lambda batch=batch: encode_proposals(clip, image[None], masks[None], batch=batch), ROUNDS)
            print(f"batches of {batch:3d}: {count / taken:6.0f} proposals/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
