"""The printer of markdown tables."""

from ovs_lite.viz.tables import markdown_table, percent


def test_a_table_has_a_row_per_row_and_numbers_at_the_right():
    table = markdown_table(["set", "mIoU"], [["a", "1.0"], ["b", "2.0"]])
    assert table.splitlines() == ["| set | mIoU |", "| --- | ---: |", "| a | 1.0 |", "| b | 2.0 |"]
    assert markdown_table(["empty"], []).splitlines() == ["| empty |", "| --- |"]


def test_percent_has_its_digits_and_nan_is_said():
    assert (percent(0.4567), percent(0.4567, 2), percent(float("nan"))) == ("45.7", "45.67", "nan")
