"""What a reader of a real data set took, what it skipped and why, and how much of that is too much."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from ovs_lite.files import printable

LISTED, MAX_LETTERS = 20, 500


@dataclass
class ReaderReport:
    """Filled by a reader while its records are consumed.

    listed: names of the images that there are to read, of which a call may take a part; known with its first record.
    read, skipped: images that became records, and (name, reason) of those that did not.
    annotations_read, annotations_skipped: the same for annotations (masks and captions) of images that were kept.
    segments, crowds: segments written, and how many of them are crowds.
    covered: masks left out because others hide them entirely; they do not count as skipped.
    parts: (name, reason) of parts of annotations that were left out while the rest was used.
    absent: images (or files without a partner) that a reader of a subset passes over.
    unused: kind of file -> how many of a kind that is not read, such as json in shards.
    """

    listed: list[str] = field(default_factory=list)
    read: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    annotations_read: int = 0
    annotations_skipped: list[tuple[str, str]] = field(default_factory=list)
    segments: int = 0
    crowds: int = 0
    covered: int = 0
    parts: list[tuple[str, str]] = field(default_factory=list)
    absent: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    @classmethod
    def joined(cls, reports: Iterable["ReaderReport"]) -> "ReaderReport":
        """One report of several parts."""
        found = cls()
        for report in reports:
            for one in fields(cls):
                setattr(found, one.name, getattr(found, one.name) + getattr(report, one.name))
        return found

    def skip(self, name: object, reason: object) -> None:
        """List an image that cannot be used."""
        self.skipped.append((_line(name), _line(reason)))

    def skip_annotation(self, name: object, reason: object) -> None:
        """List an annotation that cannot be used."""
        self.annotations_skipped.append((_line(name), _line(reason)))

    def skip_part(self, name: object, reason: object) -> None:
        """List a part of an annotation whose rest is used."""
        self.parts.append((_line(name), _line(reason)))

    def count_segments(self, segments_info: list[dict]) -> None:
        """Add the segments of one record."""
        self.segments += len(segments_info)
        self.crowds += sum(info["is_crowd"] for info in segments_info)

    def summary(self) -> str:
        """One line of counts, then one line per skipped item (the first of each kind; the lists hold all)."""
        lines = [
            f"{self.read} images read, {len(self.skipped)} skipped; {self.annotations_read} annotations read, "
            f"{len(self.annotations_skipped)} skipped; {self.segments} segments, {self.crowds} of them crowds; "
            f"{self.covered} masks hidden by others"
        ]
        if self.absent:
            lines.append(f"  passed over, as in any subset: {self.absent} whose file or partner is not there")
        if self.unused:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.unused.most_common(LISTED))
            lines.append(f"  members of kinds that are not read: {kinds}")
        listed = (("image", self.skipped), ("annotation", self.annotations_skipped), ("part of", self.parts))
        for kind, items in listed:
            lines += [f"  skipped {kind} {name}: {reason}" for name, reason in items[:LISTED]]
            lines += [f"  ... and {len(items) - LISTED} more"] * (len(items) > LISTED)
        return "\n".join(lines)

    def check(self, max_fraction: float = 0.01) -> None:
        """Raise ValueError, with the list, where more than `max_fraction` of images or annotations were skipped.

        Also where nothing was read at all. With 80 images one bad one is 1.25 %: pass a larger fraction knowingly.
        """
        if self.read == 0:
            raise ValueError(f"no image could be read\n{self.summary()}")
        annotations = ("annotations", len(self.annotations_skipped), self.annotations_read)
        for kind, skipped, read in (("images", len(self.skipped), self.read), annotations):
            fraction = skipped / max(1, skipped + read)
            if fraction > max_fraction:
                given = f"{skipped} of {skipped + read} {kind} are unusable ({fraction:.1%})"
                advice = f"expected at most {max_fraction:.1%}; repair the data, or allow more with --max-skipped"
                raise ValueError(f"{given}, {advice}\n{self.summary()}")


def _line(text: object) -> str:
    """One short line of printable letters: names and reasons quote other people's files."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= MAX_LETTERS else f"{line[:MAX_LETTERS]}..."


def plain_file_name(name: object) -> str:
    """A file name that stays inside its folder. Raises ValueError for anything else a JSON file may claim."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"got file name {name!r}, expected text")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"got file name {name!r}, expected a relative path without '..'")
    return name
