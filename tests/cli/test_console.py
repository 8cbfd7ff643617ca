"""What a terminal of any width shows."""

import io
import re

import pytest
from rich.console import Console as RichConsole

from fishfeat_cli.console import Console, split_columns

COLUMNS = ("classifier", "grouped accuracy", "95 %", "random accuracy", "gap", "balanced", "s")
ROWS = [
    ("logreg", "0.955", "0.935–0.973", "0.983", "+0.028", "0.944", "12.1"),
    ("centroid-search", "0.844", "0.785–0.903", "0.899", "+0.055", "0.823", "0.9"),
]


def printed(width, columns=COLUMNS, rows=ROWS, terminal=True):
    """What a terminal of that width shows, or a file contains."""
    console = Console()
    file = io.StringIO()
    console.out = RichConsole(
        file=file, width=width, force_terminal=terminal, soft_wrap=True, color_system=None
    )
    console.table("fish", columns, rows)
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_number_is_cut_at_any_width(width):
    text = printed(width)
    assert "…" not in text
    for cell in {cell for row in ROWS for cell in row}:
        assert re.search(rf"(?<![\w.]){re.escape(cell)}(?![\w.])", text), cell
    if width > 40:
        assert max(map(len, text.splitlines())) <= width


def test_one_table_where_it_fits_and_the_first_column_in_each_where_not():
    cells = [list(row) for row in ROWS]
    assert split_columns(COLUMNS, cells, width=120) == [[0, 1, 2, 3, 4, 5, 6]]
    assert split_columns(COLUMNS, cells, width=80) == [[0, 1, 2, 3, 4, 5], [0, 6]]
    assert split_columns(COLUMNS, cells, width=70) == [[0, 1, 2, 3, 4], [0, 5, 6]]
    for width in range(1, 120):
        parts = split_columns(COLUMNS, cells, width=width)
        assert {part[0] for part in parts} == {0}
        assert sorted(i for part in parts for i in part[1:]) == [1, 2, 3, 4, 5, 6]
    assert printed(80).count("centroid-search") == 2


def test_what_fits_nowhere_is_told_line_by_line():
    text = printed(20)
    assert "centroid-search\n  grouped accuracy: 0.844\n" in text
    # One block for each row, with all of its columns.
    assert [text.count(row[0]) for row in ROWS] == [1, 1]
    assert text.index("12.1") < text.index("centroid-search")


def test_a_file_gets_one_wide_table_whatever_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = printed(60, terminal=False)
    assert text == printed(160).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert text.count("centroid-search") == 1


def test_brackets_in_names_are_no_markup():
    assert "[red]cod[/red]" in printed(80, ("class", "[b]"), [("[red]cod[/red]", "1")])


def test_without_rows_there_is_a_heading():
    assert "grouped" in printed(120, rows=[])
