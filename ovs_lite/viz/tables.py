"""Markdown tables, as the commands print them."""

from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns and rows of text as a markdown table, the first column left-aligned and the others right-aligned."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def percent(value: float, digits: int = 1) -> str:
    """0.4567 -> "45.7"; NaN -> "nan"."""
    return f"{100 * value:.{digits}f}"
