"""`ovs-lite doctor`: look for the known traps of an installation and say the cure of each.

A check returns what it found and raises Problem with a cure; anything else it raises becomes a failure too, so that
one broken library cannot hide the findings of the others.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ovs_lite.files import cache_root, data_root, runs_root

NEEDED_DISK_GB = 2.0
REINSTALL = "pip install --force-reinstall -r requirements.txt"


class Problem(Exception):
    """Something is wrong. cure: what to do. optional: the kit works without it."""

    def __init__(self, message: str, cure: str, optional: bool = False):
        super().__init__(message)
        self.cure, self.optional = cure, optional


@dataclass(frozen=True)
class Finding:
    """Outcome of one check. status: "ok", "note" (works without it) or "FAIL"; cure: empty when ok."""

    name: str
    status: str
    detail: str
    cure: str = ""


def torch_pair() -> str:
    """torch and torchvision come from one build: a compiled operator of torchvision can be called."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise Problem(f"torch and torchvision do not work together: {error}", REINSTALL) from error
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def open_clip() -> str:
    """open_clip imports."""
    try:
        import open_clip as library
    except (ImportError, RuntimeError) as error:
        raise Problem(f"open_clip does not import: {error}", REINSTALL) from error
    return f"open_clip {library.__version__}"


def shipped_sprites() -> str:
    """All styles of drawing are there and can be read (a Pillow without WebP cannot)."""
    from PIL import Image

    from ovs_lite.iconworld.atlas import FOLDER, STYLES

    for style in STYLES:
        try:
            Image.open(FOLDER / f"{style}.webp").verify()
        except OSError as error:
            raise Problem(f"sprites of {style!r}: {error}", "pip install --force-reinstall pillow ovs-lite") from error
    return f"{len(STYLES)} styles of drawing"


def nltk_data() -> str:
    """The tagger for words of free captions; IconWorld's captions need none."""
    import nltk

    try:
        nltk.data.find("taggers/averaged_perceptron_tagger_eng")
    except LookupError as error:
        name, folder = "averaged_perceptron_tagger_eng", nltk.data.path[0]
        cure = f"python -m nltk.downloader {name}, or unpack it under {folder}/taggers"
        raise Problem("no NLTK tagger data; the built-in word list is used", cure, optional=True) from error
    return "averaged_perceptron_tagger_eng"


def disk() -> str:
    """Room for the miniature data and a run."""
    folder = _existing(data_root())
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_DISK_GB:
        cure = "free some space, or set OVS_DATA and OVS_RUNS to folders on a larger disk"
        raise Problem(f"{free:.1f} GB free in {folder.resolve()}, {NEEDED_DISK_GB:.0f} GB needed", cure)
    return f"{free:.0f} GB free"


def gpu() -> str:
    """Which GPU, if any; none is needed for the profiles smoke and lite."""
    import torch

    if not torch.cuda.is_available():
        cure = "nothing for smoke and lite; for paper, install torch for your CUDA driver"
        raise Problem("no CUDA GPU, so everything runs on the CPU", cure, optional=True)
    return torch.cuda.get_device_name(0)


def writable_folders() -> str:
    """Data, runs and cache can be written."""
    roots = {"OVS_DATA": data_root(), "OVS_RUNS": runs_root(), "OVS_CACHE": cache_root()}
    for variable, folder in roots.items():
        try:
            with tempfile.NamedTemporaryFile(dir=_existing(folder)):
                pass
        except OSError as error:
            raise Problem(f"cannot write {folder}: {error.strerror}", f"set {variable} to a folder of yours") from error
    return ", ".join(str(folder) for folder in roots.values())


def shipped_weights() -> str:
    """The miniature CLIPs load."""
    from safetensors import SafetensorError, safe_open

    from ovs_lite.clip.lite.files import SHIPPED, shipped_path

    for name in SHIPPED:
        try:
            with safe_open(shipped_path(name), framework="pt") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            cure = f"reinstall ovs-lite, or train it: ovs-lite train clip {name}"
            raise Problem(f"weights of {name}: {error}", cure) from error
    return ", ".join(SHIPPED)


def jupyter_kernel() -> str:
    """Notebooks run with this Python: there is a kernel python3, and where it says a full path it is ours."""
    import sys

    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    cure = "python -m ipykernel install --sys-prefix"
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel as error:
        raise Problem("there is no Jupyter kernel python3", cure) from error
    if os.path.isabs(program) and not os.path.exists(program):
        raise Problem(f"the Jupyter kernel python3 starts {program}, which does not exist", cure)
    return program if os.path.isabs(program) else sys.executable


def threads() -> str:
    """How many CPU threads torch uses."""
    import torch

    used, cores = torch.get_num_threads(), os.cpu_count() or 1
    if used > cores:
        raise Problem(f"{used} threads on {cores} cores slow each other down", f"set OMP_NUM_THREADS={cores}", True)
    return f"{used} of {cores} cores"


CHECKS: tuple[Callable[[], str], ...] = (
    torch_pair, open_clip, shipped_sprites, shipped_weights, jupyter_kernel, writable_folders, disk, nltk_data, gpu, threads,
)  # fmt: skip


def examine() -> list[Finding]:
    """Run every check; none stops another."""
    return [_examine(check) for check in CHECKS]


def main() -> int:
    """Print the findings with their cures. Returns 1 when something that is needed fails, else 0."""
    findings = examine()
    for finding in findings:
        print(f"{finding.status:4}  {finding.name:17} {finding.detail}")
        if finding.cure:
            print(f"{'':24}cure: {finding.cure}")
    failed = sum(finding.status == "FAIL" for finding in findings)
    print(f"{failed} of {len(findings)} checks failed" if failed else "everything that is needed works")
    return 1 if failed else 0


def _examine(check: Callable[[], str]) -> Finding:
    name = check.__name__.replace("_", " ")
    try:
        return Finding(name, "ok", check())
    except Problem as problem:
        return Finding(name, "note" if problem.optional else "FAIL", str(problem), problem.cure)
    except Exception as error:  # a check must never hide the others
        return Finding(name, "FAIL", f"{type(error).__name__}: {error}", REINSTALL)


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
