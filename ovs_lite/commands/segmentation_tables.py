"""What `ovs-lite evaluate METHOD` prints and writes: scores by set, background and group of classes, and the card."""

from collections.abc import Mapping
from typing import Any

from ovs_lite.commands.evaluate import ends
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.evaluation.metrics.intervals import Estimate, miou_difference, miou_interval
from ovs_lite.evaluation.protocol_card import ProtocolCard
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.viz.tables import markdown_table, percent

COLUMNS = (
    "set", "images", "mIoU", "95 % interval", "mIoU of classes in the ground truth", "pixel accuracy", "templates",
    "side/window/stride", "background",
)  # fmt: skip
Reports = Mapping[str, SegmentationReport]  # by set


def as_markdown(reports: Reports) -> str:
    """A row per set, scores in %, at the best of its backgrounds; then mIoU by background where there are several."""
    rows = []
    for name, report in reports.items():
        way, scores = report.protocol, report.scores
        background = "-" if report.background is None else f"{report.background:g}"
        sizes = f"{way['short_side']}/{way['side']}/{way['stride']}"
        found = [percent(scores.miou, 2), ends(miou_interval(report)), percent(report.scores_by("target").miou, 2)]
        rows.append(
            [name, str(report.images), *found, percent(scores.pixel_accuracy, 2), way["templates"], sizes, background]
        )
    tables = [markdown_table(COLUMNS, rows)]
    for name, report in reports.items():
        if len(report.by_background) > 1:
            compared = [[f"{number:g}", percent(s.miou, 2)] for number, s in report.by_background.items()]
            tables.append(markdown_table([f"background of {name}", "mIoU"], compared))
    return "\n\n".join(tables)


def groups_table(reports: Reports) -> str:
    """mIoU of the classes that were seen in training, and of the others, of sets that tell them apart; else ""."""
    rows = [
        [name, group, str(len(names)), percent(report.group_miou(names), 2)]
        for name, report in reports.items()
        for group, names in groups(load_vocabulary(name), report.names).items()
    ]
    return markdown_table(("set", "classes", "of them", "mIoU"), rows) if rows else ""


def groups(vocabulary: Vocabulary, counted: tuple[str, ...]) -> dict[str, list[str]]:
    """{"seen", "unseen": the counted classes whose vocabulary says so, without the background}, no empty group."""
    seen = dict(zip(vocabulary.names, vocabulary.seen, strict=True))
    if vocabulary.background is not None:
        seen[vocabulary.names[vocabulary.background]] = None
    found = {word: [n for n in counted if seen[n] is flag] for word, flag in (("seen", True), ("unseen", False))}
    return {word: names for word, names in found.items() if names}


def class_table(name: str, report: SegmentationReport) -> str:
    """IoU of every class of a set, best first; "-" for one that is nowhere."""
    found = sorted(
        zip(report.names, report.scores.iou.tolist(), strict=True), key=lambda pair: (pair[1] != pair[1], -pair[1])
    )
    return markdown_table((f"class of {name}", "IoU"), [[n, "-" if x != x else percent(x, 2)] for n, x in found])


def difference_table(first: Reports, second: Reports, names: tuple[str, str]) -> str:
    """mIoU of one method minus that of another on the same images of every set, with its interval, in points."""
    rows = [
        [name, f"{found.points:+.2f}", ends(found, "+"), str(found.images)]
        for name, found in differences(first, second).items()
    ]
    return markdown_table(("set", f"mIoU of {names[0]} minus {names[1]}", "95 % interval", "images"), rows)


def differences(first: Reports, second: Reports) -> dict[str, Estimate]:
    """Paired differences of mIoU by set."""
    return {name: miou_difference(report, second[name]) for name, report in first.items()}


def card_table(cards: Mapping[str, ProtocolCard]) -> str:
    """The protocol cards of all scores side by side, a row per field, led by their hashes."""
    rows = [dict(card.rows()) for card in cards.values()]
    cells = [[key, *(row[key] for row in rows)] for key in rows[0]]
    return markdown_table(("protocol card", *cards), cells)


def facts(report: SegmentationReport, vocabulary: Vocabulary) -> dict[str, Any]:
    """A report as JSON takes it."""
    scores, found = report.scores, miou_interval(report)
    by_group = groups(vocabulary, report.names)
    return {
        "images": report.images,
        "protocol": report.protocol,
        "card": report.card.facts(),
        "background": report.background,
        **vars(scores),
        "interval": [found.low, found.high],
        "miou_by_absent": {absent: report.scores_by(absent).miou for absent in ("union", "target")},
        "groups": {word: {"classes": len(names), "miou": report.group_miou(names)} for word, names in by_group.items()},
        "iou": dict(zip(report.names, scores.iou.tolist(), strict=True)),
        "by_background": {str(number): s.miou for number, s in report.by_background.items()},
    }
