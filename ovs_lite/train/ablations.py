"""Train the ablations that come with the kit, several at once; what each learned replaces the kit's file.

    python -m ovs_lite.train.ablations openseg --seeds 0 1 2 --out runs/ablations

Asked again it resumes where it stopped. Notebooks read these files, in weights/ablations of a method's folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ovs_lite.files import one_line
from ovs_lite.methods import get_recipe
from ovs_lite.methods.ablations import ablation_config, ablation_path, save_ablation
from ovs_lite.methods.registry import RECIPES
from ovs_lite.train.side_by_side import launch_each


def train_ablations(name: str, titles: Sequence[str], seeds: Sequence[int], out: str | Path) -> list[Path]:
    """Train those rows from those seeds in out/TITLE-SEED, and write what they learned where `load_ablation` looks.

    Returns the files. Raises ValueError for an unknown recipe or title, and what a training raises.
    """
    wanted = {f"{title}-{seed}": (title, seed) for title in titles for seed in seeds}
    configs = {key: ablation_config(name, *row) for key, row in wanted.items()}
    with tqdm(total=len(configs), unit="training", desc=name) as bar:
        trained = launch_each(name, configs, out, done=lambda key: bar.update())
    for key, row in wanted.items():
        save_ablation(trained[key], ablation_path(name, *row), name, *row)
    return [ablation_path(name, *row) for row in wanted.values()]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `python -m ovs_lite.train.ablations`."""
    parser = argparse.ArgumentParser(
        "python -m ovs_lite.train.ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=[name for name in RECIPES if get_recipe(name).ablations])
    parser.add_argument("--rows", nargs="+", metavar="TITLE", help="which rows (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="of each row (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="checkpoints (default: %(default)s)")
    args = parser.parse_args(argv)
    for path in train_ablations(
        args.recipe, args.rows or list(get_recipe(args.recipe).ablations), args.seeds, args.out
    ):
        print(path)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"ovs-lite ablations: {one_line(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError | FileNotFoundError) else 1)
