"""The papers' pipeline on a small copy of COCO, as a user types it: every stage a command, in processes to be killed.

    python tests/kit/paper_pipeline.py path/to/coco-mini --out FOLDER [--clip ViT-B-16]

It prints the log of four runs: whole and killed once in every stage, on one process and on two. Everything is the
`paper` presets' but for sizes and steps. A stage's processes are forked from a server that has imported the package;
two of them meet as torch's launcher lets them, by RANK, WORLD_SIZE and an address. `launcher`: by torchrun itself.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file

from ovs_lite.cli import main as command
from ovs_lite.clip.lite.files import SHIPPED
from ovs_lite.files import file_digest

TESTS = Path(__file__).resolve().parents[1]
PROPOSALS, CLIP_WEIGHTS = "runs/maskformer/proposals.safetensors", "clip.safetensors"
PATIENCE = 600  # seconds that a stage may take to get to its middle
TINY = "--steps 4 --batch 8 --warmup 1 --checkpoint-every 1 --log-every 1 --threads 1"
NETWORK = (
    "--backbone mobilenetv3_small_050 --no-backbone-pretrained --image-size 64 --channels 16 --queries 4 --layers 2"
)


@dataclass(frozen=True)
class Stage:
    """A command. words: its arguments; PICTURES and CLIP stand for the copy of COCO and for the CLIP's two flags.

    middle: a pattern of what lies in the run's folder in the middle of it. made: what it leaves, to compare.
    """

    words: str
    middle: str
    made: str


STAGES = {
    "prepare": Stage(
        "data prepare coco --from PICTURES --splits train --subset", "data/coco/.train.new/cache/**/*.arrow",
        "data/coco/train/manifest.json",
    ),
    "proposals": Stage(
        f"train maskformer --profile paper --data coco/train --vocabulary coco CLIP {NETWORK} {TINY}",
        "runs/maskformer/checkpoints/step-00000002/manifest.json", PROPOSALS,
    ),
    "grounding": Stage(
        f"train openseg --profile paper --data coco/train CLIP {NETWORK} {TINY}",
        "runs/openseg/checkpoints/step-00000002/manifest.json", "runs/openseg/openseg.safetensors",
    ),
    "mining": Stage(
        f"mine coco/train --masks {PROPOSALS} --out coco/pairs/train CLIP --budget 2 --compounds coco --tagger shipped",
        "data/coco/pairs/.train.parts/*/manifest.json", "data/coco/pairs/train/manifest.json",
    ),
    "prompts": Stage(
        f"train ovseg --profile paper --segmenter {PROPOSALS} CLIP {TINY}",
        "runs/ovseg/checkpoints/step-00000002/manifest.json", "runs/ovseg/ovseg.safetensors",
    ),
    "evaluation": Stage(
        "evaluate ovseg --profile paper --checkpoint runs/ovseg/ovseg.safetensors --set coco --data data/coco/train "
        "--protocol ovseg CLIP --out ovseg.json", "runs/evaluate/**/images-*.safetensors", "ovseg.json",
    ),
    "evaluation of grounding": Stage(
        "evaluate openseg --profile paper --checkpoint runs/openseg/openseg.safetensors --set coco "
        "--data data/coco/train --protocol openseg CLIP --out openseg.json", "runs/evaluate/**/images-*.safetensors",
        "openseg.json",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pipeline:
    """One run. home: its folder. pictures: the copy of COCO. clip: a shipped CLIP, or one of open_clip with random
    weights. processes: of every stage but the first. launcher: start several by torchrun. say: where the log goes."""

    home: Path
    pictures: Path
    clip: str = "ViT-Lite-8"
    processes: int = 1
    launcher: bool = False
    say: Callable[[str], None] = print

    def run(self, name: str, kill: bool = False) -> None:
        """A stage to its end; kill: first by SIGKILL in its middle, then by the same command again."""
        begun = time.monotonic()
        if kill:
            self._kill(name)
        self.finish(name)
        how = f"{self.count(name)} process{'es' * (self.count(name) > 1)}{', killed once' * kill}"
        self.say(f"{name}: {how}, {time.monotonic() - begun:.0f} s, {self.result(name)}")

    def count(self, name: str) -> int:
        """Processes of a stage."""
        return 1 if name == "prepare" else self.processes

    def finish(self, name: str) -> None:
        """Run a stage to its end. Raises RuntimeError with its output where it fails."""
        if self.launcher and self.count(name) > 1:
            launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}", "-m", "ovs_lite"]
            with self._output(name).open("ab") as output:
                words = [sys.executable, "-m", *launcher, *self.words(name)]
                there = {"cwd": self.home, "env": os.environ | self._environment()}
                codes = [subprocess.run(words, **there, stdout=output, stderr=output).returncode]
        else:
            processes = self._start(name)
            for process in processes:
                process.join()
            codes = [process.exitcode for process in processes]
        if any(codes):
            raise RuntimeError(f"{name} ended with {codes}:\n{self._output(name).read_text()[-3000:]}")

    def _kill(self, name: str) -> None:
        """Start a stage, and kill its processes when its middle is there and its end is not."""
        processes, until = self._start(name), time.monotonic() + PATIENCE
        while not any(self.home.glob(STAGES[name].middle)):
            if time.monotonic() > until or not any(process.is_alive() for process in processes):
                raise RuntimeError(f"{name} never came to its middle:\n{self._output(name).read_text()[-3000:]}")
            time.sleep(0.005)
        for process in processes:
            process.kill()
            process.join()
        done = (self.home / STAGES[name].made).exists()
        codes = [process.exitcode for process in processes]
        if done or -9 not in codes:
            raise RuntimeError(f"{name} was not killed in its middle: it ended with {codes}, finished: {done}")

    def words(self, name: str) -> list[str]:
        """The arguments of a stage's command."""
        weights = "lite" if self.clip in SHIPPED else CLIP_WEIGHTS
        stand = {"PICTURES": [str(self.pictures)], "CLIP": ["--clip", self.clip, "--pretrained", weights]}
        return [part for word in STAGES[name].words.split() for part in stand.get(word, [word])]

    def result(self, name: str) -> str:
        """What a stage left, in a few characters: the digest of the file, or the numbers of an evaluation."""
        path = self.home / STAGES[name].made
        if path.suffix == ".json" and name.startswith("evaluation"):
            found = json.loads(path.read_text())["sets"]["coco"]
            whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
            return f"mIoU {found['miou']:.4f}, all numbers and the card {whole[:12]}"
        return file_digest(path)[:12]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors that a stage of training left."""
        return load_file(self.home / STAGES[name].made)

    def _start(self, name: str) -> list:
        """The processes of a stage, forked from the server."""
        context, count = multiprocessing.get_context("forkserver"), self.count(name)
        context.set_forkserver_preload(["kit.paper_pipeline"])
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(one.getsockname()[1]), "WORLD_SIZE": str(count)}
        found = []
        for rank in range(count):
            ours = address | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            arguments = (str(self.home), self._environment() | ours, str(self._output(name)), self.words(name))
            found.append(context.Process(target=_in_a_process, args=arguments))
            found[-1].start()
        return found

    def _environment(self) -> dict[str, str]:
        home = {"OVS_DATA": "data", "OVS_RUNS": "runs", "OVS_CACHE": "cache"}
        paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        return {key: str(self.home / value) for key, value in home.items()} | {
            "PYTHONPATH": paths, "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def _output(self, name: str) -> Path:
        self.home.mkdir(parents=True, exist_ok=True)
        return self.home / f"{name}.txt"


def _in_a_process(home: str, environment: dict[str, str], output: str, words: list[str]) -> None:
    """The body of a stage's process: its output goes to a file, and it exits as the command does."""
    os.chdir(home)
    os.environ.update(environment)
    torch.set_num_threads(1)
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.exit(command(words))


def random_weights(clip: str, path: Path) -> None:
    """Weights as a CLIP of open_clip starts with, in a file, always the same."""
    if clip not in SHIPPED:
        torch.manual_seed(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in open_clip.create_model(clip).state_dict().items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clip", default="ViT-Lite-8")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    for processes in args.processes:
        for kill in (False, True):
            home = args.out.absolute() / f"{processes}-{'killed' if kill else 'whole'}"
            random_weights(args.clip, home / CLIP_WEIGHTS)
            pipeline = Pipeline(home, args.pictures.absolute(), args.clip, processes, launcher=not kill)
            for name in STAGES:
                pipeline.run(name, kill)


if __name__ == "__main__":
    main()
