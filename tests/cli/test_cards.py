"""Text tables stay within their width, and no label is too long for them."""

from __future__ import annotations

from st_connectors.cli.cards import aligned, wrapped


def test_long_values_continue_in_their_column():
    """Words are not broken, and labels stand alone on their lines."""
    rows = [("a", "one two three four five six"), ("label", "x" * 30), ("b", "")]

    assert wrapped(rows, width=28, indent=" ") == [
        " a      one two three four",
        "        five six",
        " label  " + "x" * 30,
        " b",
    ]


def test_a_label_wider_than_the_table_leaves_room_for_values():
    """The value has twenty columns beside it."""
    assert wrapped([("n" * 90, "a value of several words")], width=80) == [
        "n" * 90 + "  a value of several",
        " " * 92 + "words",
    ]


def test_columns_are_aligned_without_trailing_space():
    """Each column is as wide as its widest cell."""
    assert aligned([("a", "bbb"), ("ccc", "")]) == ["a    bbb", "ccc"]
