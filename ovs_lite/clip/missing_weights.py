"""What to do where weights are neither on this machine nor to be had: which file goes where."""

import open_clip
import timm
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from open_clip.pretrained import HF_SAFE_WEIGHTS_NAME

TIMM_FILE = "model.safetensors"  # what timm asks for first


def missing_weights(name: str, tag: str) -> str:
    """The message for a CLIP of open_clip whose download failed.

    It names the file that open_clip asks the Hugging Face hub for, the folder in which that is looked up, and the
    arguments that take the file from anywhere. Of weights that are not on the hub it gives the address alone.
    """
    known = open_clip.get_pretrained_cfg(name, tag) or {}
    repository, _, file = (known.get("hf_hub") or "").rpartition("/")
    file = file or HF_SAFE_WEIGHTS_NAME
    takes = f"--clip {file_name_of(name, tag)} --pretrained path/to/{file}"
    start = f"{name}, {tag}: its weights are not on this machine and could not be downloaded."
    if not repository:
        address = known.get("url") or "a place that open_clip does not name"
        return f"{start} They lie at {address}; fetch them elsewhere, and give the file: {takes}"
    return f"{start} {_to_the_cache(repository, file)}, or put the file anywhere and give it: {takes}"


def missing_backbone(name: str) -> str:
    """The message for a network of timm whose download failed: as `missing_weights`, without a file from anywhere."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    start = f"{name}: its weights are not on this machine and could not be downloaded."
    return f"{start} {_to_the_cache(repository, TIMM_FILE)}" if repository else start


def file_name_of(name: str, tag: str) -> str:
    """The model's name under which a file with a tag's weights is loaded: no file says that it needs QuickGELU."""
    quick = (open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu")
    better = f"{name}-quickgelu"
    return better if quick and better in open_clip.list_models() else name


def _to_the_cache(repository: str, file: str) -> str:
    folder = f"{constants.HF_HUB_CACHE}/{repo_folder_name(repo_id=repository, repo_type='model')}"
    return (
        f"With a network run `hf download {repository} {file}` (or fetch "
        f"https://huggingface.co/{repository}/resolve/main/{file}). Then copy the folder that it made to {folder} "
        "and set HF_HUB_OFFLINE=1"
    )
