"""What a reader of a real data set took, what it skipped and why, and how much of that is too much."""

from dataclasses import dataclass, field
from pathlib import Path

LISTED = 20


@dataclass
class ReaderReport:
    """Filled by a reader while its records are consumed.

    read, skipped: images that became records, and (name, reason) of those that did not.
    annotations_read, annotations_skipped: the same for annotations (masks and captions) of images that were kept.
    segments, crowds: segments written, and how many of them are crowds. covered: masks left out because others hide
    them entirely; no fault of the data, so they do not count as skipped.
    """

    read: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    annotations_read: int = 0
    annotations_skipped: list[tuple[str, str]] = field(default_factory=list)
    segments: int = 0
    crowds: int = 0
    covered: int = 0

    def skip(self, name: object, reason: object) -> None:
        """Count and list an image that cannot be used."""
        self.skipped.append((str(name), _plain(reason)))

    def skip_annotation(self, name: object, reason: object) -> None:
        """Count and list an annotation that cannot be used."""
        self.annotations_skipped.append((str(name), _plain(reason)))

    def count_segments(self, segments_info: list[dict]) -> None:
        """Add the segments of one record."""
        self.segments += len(segments_info)
        self.crowds += sum(info["is_crowd"] for info in segments_info)

    def summary(self) -> str:
        """One line of counts, then one line per skipped item (the first of each kind; the lists hold all)."""
        head = (
            f"{self.read} images read, {len(self.skipped)} skipped; {self.annotations_read} annotations read, "
            f"{len(self.annotations_skipped)} skipped; {self.segments} segments, {self.crowds} of them crowds; "
            f"{self.covered} masks hidden by others"
        )
        lines = [head]
        for kind, items in (("image", self.skipped), ("annotation", self.annotations_skipped)):
            lines += [f"  skipped {kind} {name}: {reason}" for name, reason in items[:LISTED]]
            lines += [f"  ... and {len(items) - LISTED} more"] * (len(items) > LISTED)
        return "\n".join(lines)

    def check(self, max_fraction: float = 0.01) -> None:
        """Raise ValueError, with the list, where more than `max_fraction` of images or annotations were skipped.

        Also where nothing was read at all. With 80 images one bad one is 1.25 %: pass a larger fraction knowingly.
        """
        if self.read == 0:
            raise ValueError(f"no image could be read\n{self.summary()}")
        for kind, skipped, read in (
            ("images", self.skipped, self.read),
            ("annotations", self.annotations_skipped, self.annotations_read),
        ):
            fraction = len(skipped) / max(1, len(skipped) + read)
            if fraction > max_fraction:
                raise ValueError(
                    f"{len(skipped)} of {len(skipped) + read} {kind} are unusable ({fraction:.1%}), expected at most "
                    f"{max_fraction:.1%}; repair the data or raise max_fraction\n{self.summary()}"
                )


def plain_file_name(name: object) -> str:
    """A file name that stays inside its folder. Raises ValueError for anything else a JSON file may claim."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"got file name {name!r}, expected text")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"got file name {name!r}, expected one inside the image folder")
    return name


def _plain(reason: object) -> str:
    return " ".join(str(reason).split())
