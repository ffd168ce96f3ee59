"""The papers' pipeline on a small copy of COCO, as a user types it: every stage a command, in processes to be killed.

    python tests/kit/paper_pipeline.py path/to/coco-mini --out FOLDER [--clip ViT-B-16]

It prints the log of four runs: whole and killed once in every stage (`kit.paper_stages`), on one process and on two. A
stage's processes are forked from a server that has imported the package; two of them meet as torch's launcher lets
them, by RANK, WORLD_SIZE and an address. `launcher`: by torchrun itself.
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

from kit.kept_files import GLANCE, KeptFiles
from kit.paper_stages import CLIP_WEIGHTS, ON_WEIGHTS, STAGES
from ovs_lite.cli import main as command
from ovs_lite.clip.lite.files import LITE_MODELS
from ovs_lite.files import file_digest

TESTS = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds that a stage may take to get to its middle


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

    def run(self, name: str, kill: bool = False) -> KeptFiles:
        """A stage to its end; kill: first by SIGKILL in its middle, then by the same command again. -> what the killed
        run had finished, and what of that was made again."""
        begun, killed, pattern = time.monotonic(), "", STAGES[name].kept
        if kill:
            killed = f", SIGKILL when {self._kill(name)} was there"
        kept = KeptFiles(tuple(sorted(self.home.glob(pattern))) if kill and pattern else ())
        with kept:
            self.finish(name)
        how = f"{self.count(name)} process{'es' * (self.count(name) > 1)}{killed}{kill * f', then {kept}'}"
        self.say(f"{name}: {how}; {time.monotonic() - begun:.0f} s, {self.result(name)}")
        return kept

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

    def on_weights_of(self, other: "Pipeline", name: str) -> str:
        """A stage of `ON_WEIGHTS` on what another run trained and prepared; its result."""
        for part in ("data/coco/train", "runs", CLIP_WEIGHTS):
            if (other.home / part).exists() and not (self.home / part).exists():
                (self.home / part).parent.mkdir(parents=True, exist_ok=True)
                (self.home / part).symlink_to(other.home / part)
        self.run(name)
        return self.result(name)

    def _kill(self, name: str) -> Path:
        """Start a stage, and kill its processes when its middle is there and its end is not. -> what was there."""
        processes, until = self._start(name), time.monotonic() + PATIENCE
        while not (found := next(self.home.glob(STAGES[name].middle), None)):
            if time.monotonic() > until or not any(process.is_alive() for process in processes):
                raise RuntimeError(f"{name} never came to its middle:\n{self._output(name).read_text()[-3000:]}")
            time.sleep(GLANCE)
        for process in processes:
            process.kill()
            process.join()
        done = (self.home / STAGES[name].made).exists()
        codes = [process.exitcode for process in processes]
        if done or -9 not in codes:
            raise RuntimeError(f"{name} was not killed in its middle: it ended with {codes}, finished: {done}")
        return found.relative_to(self.home)

    def words(self, name: str) -> list[str]:
        """The arguments of a stage's command."""
        weights = "lite" if self.clip in LITE_MODELS else CLIP_WEIGHTS
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
    if clip not in LITE_MODELS:
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
    runs = {}
    for processes in args.processes:
        for kill in (False, True):
            home = args.out.absolute() / f"{processes}-{'killed' if kill else 'whole'}"
            random_weights(args.clip, home / CLIP_WEIGHTS)
            run = Pipeline(home, args.pictures.absolute(), args.clip, processes, launcher=not kill)
            runs[processes, kill] = run
            for name in STAGES:
                run.run(name, kill)
        for name in STAGES:
            same = run.result(name) == runs[processes, False].result(name)
            print(f"{name}, {processes} at once: killed and whole {'are equal' if same else 'DIFFER'}")
    compare_counts(args.out.absolute() / "again", *(runs[processes, False] for processes in args.processes))


def compare_counts(home: Path, one: Pipeline, *others: Pipeline) -> None:
    """Print whether other numbers of processes mine and measure the same on the weights of the first run."""
    for other in others:
        again = Pipeline(home / str(other.processes), one.pictures, one.clip, other.processes)
        for name in ON_WEIGHTS:
            same = again.on_weights_of(one, name) == one.result(name)
            print(f"{name}, {one.processes} and {other.processes} on the same weights: {'equal' if same else 'DIFFER'}")


if __name__ == "__main__":
    main()
