"""The stages of the papers' pipeline: a command each, what lies on the disk in its middle, and what it leaves.

Everything is the `paper` presets' but for sizes and steps: the pictures are few, and so are the cores.
"""

from dataclasses import dataclass

PROPOSALS, CLIP_WEIGHTS = "runs/maskformer/proposals.safetensors", "clip.safetensors"
TINY = "--steps 4 --batch 8 --warmup 1 --checkpoint-every 1 --log-every 1 --threads 1"
NETWORK = (
    "--backbone mobilenetv3_small_050 --no-backbone-pretrained --image-size 64 --channels 16 --queries 4 --layers 2"
)
BLOCKS = "runs/evaluate/**/images-*.safetensors"


@dataclass(frozen=True)
class Stage:
    """A command. words: its arguments; PICTURES and CLIP stand for the copy of COCO and for the CLIP's two flags.

    middle: a pattern of what lies in the run's folder in the middle of it. made: what it leaves, to compare.
    kept: a pattern of what a killed run had finished, and the same command again takes over; none: it begins again.
    """

    words: str
    middle: str
    made: str
    kept: str = ""


def training(recipe: str, options: str, weights: str) -> Stage:
    """Four steps of a recipe with the paper's settings; its middle is after the second."""
    steps, words = f"runs/{recipe}/checkpoints", f"train {recipe} --profile paper {options} CLIP"
    return Stage(
        f"{words} {TINY}", f"{steps}/step-00000002/manifest.json", f"runs/{recipe}/{weights}",
        f"{steps}/step-*/manifest.json",
    )  # fmt: skip


def evaluation(recipe: str) -> Stage:
    """The weights of a recipe on all pictures by its paper's protocol; its middle is after a block of 64 pictures."""
    words = f"evaluate {recipe} --profile paper --checkpoint runs/{recipe}/{recipe}.safetensors"
    data = f"--set coco --data data/coco/train --protocol {recipe} CLIP --out {recipe}.json"
    return Stage(f"{words} {data}", BLOCKS, f"{recipe}.json", BLOCKS)


STAGES = {
    "prepare": Stage(
        "data prepare coco --from PICTURES --splits train --subset", "data/coco/.train.new/cache/**/*.arrow",
        "data/coco/train/manifest.json",
    ),
    "proposals": training("maskformer", f"--data coco/train --vocabulary coco {NETWORK}", "proposals.safetensors"),
    "grounding": training("openseg", f"--data coco/train {NETWORK}", "openseg.safetensors"),
    "mining": Stage(
        f"mine coco/train --masks {PROPOSALS} --out coco/pairs/train CLIP --budget 2 --compounds coco --tagger shipped",
        "data/coco/pairs/.train.parts/*/manifest.json", "data/coco/pairs/train/manifest.json",
        "data/coco/pairs/.train.parts/*/manifest.json",
    ),
    "prompts": training("ovseg", f"--segmenter {PROPOSALS}", "ovseg.safetensors"),
    "evaluation": evaluation("ovseg"),
    "evaluation of grounding": evaluation("openseg"),
}  # fmt: skip
ON_WEIGHTS = ("mining", "evaluation", "evaluation of grounding")  # equal on any number of processes, given the weights
