"""Where image-text pairs come from: a prepared split, or webdataset shards."""

from collections.abc import Sequence
from pathlib import Path

from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.record import load_split
from ovs_lite.files import data_path


def load_pairs(sources: Sequence[str]) -> Sequence:
    """Records with captions: of one prepared split (a folder), or of shards (*.tar, or patterns of them).

    Every source is a path, or one below the data folder. Raises ValueError for several splits or a mixture, and
    FileNotFoundError for what is not there.
    """
    shards = [source for source in sources if str(source).endswith(".tar")]
    if shards and len(shards) == len(sources):
        return WebShards([str(data_path(source)) for source in sources])
    if len(sources) != 1:
        given = ", ".join(map(str, sources)) or "nothing"
        raise ValueError(f"got {given} as data, expected one prepared split or webdataset shards (*.tar)")
    return load_split(Path(data_path(sources[0])))
