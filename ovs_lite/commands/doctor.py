"""`ovs-lite doctor`: look for the known traps of an installation and say the cure of each.

A check yields (status, detail, cure); the first that it yields counts. status: "ok", "note" (the kit works without it)
or "FAIL". An exception is a failure too, so that one broken library cannot hide the findings of the others.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ovs_lite.files import cache_root, data_root, runs_root

NEEDED_DISK_GB = 2.0
REINSTALL = "pip install --force-reinstall -r requirements.txt"
Finding = tuple[str, str, str]


def torch_pair() -> Iterator[Finding]:
    """torch and torchvision come from one build: a compiled operator of torchvision can be called."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        yield "FAIL", f"torch and torchvision do not work together: {error}", REINSTALL
    yield "ok", f"torch {torch.__version__}, torchvision {torchvision.__version__}", ""


def open_clip() -> Iterator[Finding]:
    """open_clip imports."""
    try:
        import open_clip as library
    except (ImportError, RuntimeError) as error:
        yield "FAIL", f"open_clip does not import: {error}", REINSTALL
    yield "ok", f"open_clip {library.__version__}", ""


def shipped_sprites() -> Iterator[Finding]:
    """All styles of drawing are there and can be read (a Pillow without WebP cannot)."""
    from PIL import Image

    from ovs_lite.iconworld.atlas import FOLDER, STYLES

    cure = "pip install --force-reinstall pillow ovs-lite"
    for style in STYLES:
        try:
            Image.open(FOLDER / f"{style}.webp").verify()
        except OSError as error:
            yield "FAIL", f"sprites of {style!r}: {error}", cure
    yield "ok", f"{len(STYLES)} styles of drawing", ""


def nltk_data() -> Iterator[Finding]:
    """The tagger for words of free captions; IconWorld's captions need none."""
    import nltk

    name = "averaged_perceptron_tagger_eng"
    try:
        nltk.data.find(f"taggers/{name}")
    except LookupError:
        cure = f"python -m nltk.downloader {name}, or unpack it under {nltk.data.path[0]}/taggers"
        yield "note", "no NLTK tagger data; the built-in word list is used", cure
    yield "ok", name, ""


def disk() -> Iterator[Finding]:
    """Room for the miniature data and a run."""
    folder = _existing(data_root())
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_DISK_GB:
        cure = "free some space, or set OVS_DATA and OVS_RUNS to folders on a larger disk"
        yield "FAIL", f"{free:.1f} GB free in {folder.resolve()}, {NEEDED_DISK_GB:.0f} GB needed", cure
    yield "ok", f"{free:.0f} GB free", ""


def gpu() -> Iterator[Finding]:
    """Which GPU, if any; none is needed for the profiles smoke and lite."""
    import torch

    if not torch.cuda.is_available():
        cure = "nothing for smoke and lite; for paper, install torch for your CUDA driver"
        yield "note", "no CUDA GPU, so everything runs on the CPU", cure
    yield "ok", torch.cuda.get_device_name(0), ""


def writable_folders() -> Iterator[Finding]:
    """Data, runs and cache can be written."""
    roots = {"OVS_DATA": data_root(), "OVS_RUNS": runs_root(), "OVS_CACHE": cache_root()}
    for variable, folder in roots.items():
        try:
            with tempfile.NamedTemporaryFile(dir=_existing(folder)):
                pass
        except OSError as error:
            yield "FAIL", f"cannot write {folder}: {error.strerror}", f"set {variable} to a folder of yours"
    yield "ok", ", ".join(str(folder) for folder in roots.values()), ""


def shipped_weights() -> Iterator[Finding]:
    """The miniature CLIPs load."""
    from safetensors import SafetensorError, safe_open

    from ovs_lite.clip.lite.files import SHIPPED, shipped_path

    for name in SHIPPED:
        try:
            with safe_open(shipped_path(name), framework="pt") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            cure = f"reinstall ovs-lite, or train it: ovs-lite train clip {name}"
            yield "FAIL", f"weights of {name}: {error}", cure
    yield "ok", ", ".join(SHIPPED), ""


def jupyter_kernel() -> Iterator[Finding]:
    """Notebooks run with this Python: there is a kernel python3, and where it says a full path it is ours."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    cure = "python -m ipykernel install --sys-prefix"
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        yield "FAIL", "there is no Jupyter kernel python3", cure
    if os.path.isabs(program) and not os.path.exists(program):
        yield "FAIL", f"the Jupyter kernel python3 starts {program}, which does not exist", cure
    yield "ok", program if os.path.isabs(program) else sys.executable, ""


def threads() -> Iterator[Finding]:
    """How many CPU threads torch uses."""
    import torch

    used, cores = torch.get_num_threads(), os.cpu_count() or 1
    if used > cores:
        yield "note", f"{used} threads on {cores} cores slow each other down", f"set OMP_NUM_THREADS={cores}"
    yield "ok", f"{used} of {cores} cores", ""


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    torch_pair, open_clip, shipped_sprites, shipped_weights, jupyter_kernel, writable_folders, disk, nltk_data, gpu,
    threads,
)  # fmt: skip


def examine(check: Callable[[], Iterator[Finding]]) -> Finding:
    """What a check finds."""
    try:
        return next(check())
    except Exception as error:  # a check must never hide the others
        return "FAIL", f"{type(error).__name__}: {error}", REINSTALL


def main() -> int:
    """Print the findings with their cures. Returns 1 when something that is needed fails, else 0."""
    failed = 0
    for check in CHECKS:
        status, detail, cure = examine(check)
        print(f"{status:4}  {check.__name__.replace('_', ' '):17} {detail}")
        if cure:
            print(f"{'':24}cure: {cure}")
        failed += status == "FAIL"
    print(f"{failed} of {len(CHECKS)} checks failed" if failed else "everything that is needed works")
    return 1 if failed else 0


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
