"""CLIP: one wrapper over open_clip for the shipped miniature models and for any open_clip name or checkpoint."""

from ovs_lite.clip.load import load_clip, wrap_clip
from ovs_lite.clip.model import Clip

__all__ = ["Clip", "load_clip", "wrap_clip"]
