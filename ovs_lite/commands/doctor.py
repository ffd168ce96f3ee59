"""`ovs-lite doctor`: look for the known traps of an installation and say the cure of each.

A check returns what it found. It raises `Nuisance` for what the kit works without, anything else for a failure, so that
one broken library cannot hide the findings of the others.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from ovs_lite.files import cache_root, data_root, existing_folder, runs_root, usable_home

NEEDED_DISK_GB = 2.0
REINSTALL = "pip install --force-reinstall -r requirements.txt"


class Nuisance(Exception):
    """Something is missing that the kit works without."""


def torch_pair() -> str:
    """torch and torchvision come from one build: a compiled operator of torchvision can be called."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def open_clip() -> str:
    """open_clip imports."""
    import open_clip as library

    return f"open_clip {library.__version__}"


def shipped_sprites() -> str:
    """All styles of drawing are there and can be read (a Pillow without WebP cannot)."""
    from PIL import Image

    from ovs_lite.iconworld.atlas import FOLDER, STYLES

    for style in STYLES:
        Image.open(FOLDER / f"{style}.webp").verify()
    return f"{len(STYLES)} styles of drawing"


def nltk_data() -> str:
    """NLTK's own tagger for words of free captions; the kit ships one that agrees with it on 97 % of the tags."""
    with usable_home():
        from ovs_lite.data.tagging import load_tagger

        try:
            return load_tagger("nltk").name
        except FileNotFoundError:
            raise Nuisance("no NLTK tagger data; the shipped tagger is used") from None


def disk() -> str:
    """Room for the miniature data and a run."""
    folder = existing_folder(data_root())
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_DISK_GB:
        raise OSError(f"{free:.1f} GB free in {folder}, {NEEDED_DISK_GB:.0f} GB needed")
    return f"{free:.0f} GB free"


def gpu() -> str:
    """Which GPU, if any; none is needed for the profiles smoke and lite."""
    import torch

    if not torch.cuda.is_available():
        raise Nuisance("no CUDA GPU, so everything runs on the CPU")
    return torch.cuda.get_device_name(0)


def home() -> str:
    """The user has a home folder that can be written."""
    try:
        folder = Path.home()
    except RuntimeError:
        raise Nuisance(f"none: HOME is not set, and the system knows no user {os.getuid()}") from None
    if not os.access(folder, os.W_OK):
        raise Nuisance(f"{folder} cannot be written")
    return str(folder)


def writable_folders() -> str:
    """Data, runs and cache can be written; without a home folder and without OVS_CACHE there is no cache."""
    folders = [data_root(), runs_root(), cache_root()]
    folders = [folder for folder in folders if Path(os.devnull) not in folder.parents]
    for folder in folders:
        with tempfile.NamedTemporaryFile(dir=existing_folder(folder)):
            pass
    return ", ".join(map(str, folders))


def shipped_weights() -> str:
    """The miniature CLIPs and the methods' weights that are there are whole and have the right digests."""
    from ovs_lite.clip.lite.files import LITE_MODELS, shipped_path
    from ovs_lite.methods import METHODS, method_class
    from ovs_lite.methods.trained import shipped_weights as of_method
    from ovs_lite.tensors import DIGEST, read_metadata

    kinds = [kind for kind in map(method_class, METHODS) if kind.trains and of_method(kind).exists()]
    found = dict.fromkeys(LITE_MODELS) | {kind.name: of_method(kind) for kind in kinds}
    digests = {name: DIGEST in read_metadata(path or shipped_path(name)) for name, path in found.items()}
    if missing := [name for name, has_one in digests.items() if not has_one]:
        raise Nuisance(f"no digest in {', '.join(missing)}, so damage would not be seen")
    return ", ".join(found)


def jupyter_kernel() -> str:
    """Notebooks run with this Python: there is a kernel python3, and where it says a full path it is ours."""
    from jupyter_client.kernelspec import KernelSpecManager

    with usable_home():
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if not os.path.isabs(program):
        return sys.executable
    if not os.path.exists(program):
        raise FileNotFoundError(f"the Jupyter kernel python3 starts {program}, which does not exist")
    return program


def threads() -> str:
    """How many CPU threads torch uses."""
    import torch

    from ovs_lite.reproduce.provenance import cores

    used, there = torch.get_num_threads(), cores()
    if used > there:
        raise Nuisance(f"{used} threads on {there} cores slow each other down")
    return f"{used} of {there} cores"


CHECKS = {
    torch_pair: REINSTALL,
    open_clip: REINSTALL,
    shipped_sprites: "pip install --force-reinstall pillow, and reinstall ovs-lite",
    shipped_weights: "reinstall ovs-lite, or train them: ovs-lite train clip NAME, ovs-lite train METHOD",
    jupyter_kernel: "python -m ipykernel install --sys-prefix",
    home: "set HOME to a folder of yours; without one texts are not cached (see OVS_CACHE), all else works",
    writable_folders: "set OVS_DATA, OVS_RUNS and OVS_CACHE to folders of yours",
    disk: "free some space, or set OVS_DATA and OVS_RUNS to folders on a larger disk",
    nltk_data: "python -m nltk.downloader averaged_perceptron_tagger_eng, or unpack it under taggers/ in NLTK's data",
    gpu: "nothing for smoke and lite; for paper, install torch for your CUDA driver",
    threads: "set OMP_NUM_THREADS to the number of cores",
}  # check: cure


def main() -> int:
    """Print the findings with their cures. Returns 1 when something that is needed fails, else 0."""
    failed = 0
    for check, cure in CHECKS.items():
        try:
            status, detail, cure = "ok", check(), ""
        except Nuisance as nuisance:
            status, detail = "note", nuisance
        except Exception as error:  # a check must never hide the others
            status, detail, failed = "FAIL", f"{type(error).__name__}: {error}", failed + 1
        print(f"{status:4}  {check.__name__.replace('_', ' '):17} {detail}")
        if cure:
            print(f"{'':24}cure: {cure}")
    print(f"{failed} of {len(CHECKS)} checks failed" if failed else "everything that is needed works")
    return 1 if failed else 0
