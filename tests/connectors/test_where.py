"""The text form of filters: its meaning, its errors, and round trips."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.memory import matches
from st_connectors.schema import FilterKind
from st_connectors.where import parse_where, to_text

NAMES = st.one_of(
    st.sampled_from(["year", "a.b-c", "ünï", "not", "in", "with space", "tick`tick"]), st.text(min_size=1, max_size=5)
)
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
BOUNDS = st.one_of(st.integers(-9, 9), st.floats(-9, 9), st.sampled_from(["2020-01-01", "2021-06-01T12:00:00Z"]))
RANGES = st.builds(
    lambda name, low, high, sides: Range(
        name, **({sides[0]: low} if low is not None else {}), **({sides[1]: high} if high is not None else {})
    ),
    NAMES,
    BOUNDS,
    st.none() | BOUNDS,
    st.sampled_from([("gt", "lt"), ("gte", "lt"), ("gt", "lte"), ("gte", "lte")]),
)
LEAVES = st.one_of(
    st.builds(Eq, NAMES, VALUES),
    st.builds(In, NAMES, st.lists(VALUES, max_size=3).map(tuple)),
    RANGES,
    st.builds(Exists, NAMES),
)
# A join of one part is written as the part itself.
JOINED = lambda inner: st.lists(inner, max_size=3).filter(lambda parts: len(parts) != 1).map(tuple)  # noqa: E731
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.builds(And, JOINED(inner)), st.builds(Or, JOINED(inner)), st.builds(Not, inner)),
    max_leaves=8,
)


@given(FILTERS)
def test_what_is_written_is_read_back(where):
    """parse_where(to_text(f)) is f, for names and values of any characters."""
    assert parse_where(to_text(where)) == where


def in_double_quotes(name: str, quote: str) -> str:
    """A name as SQL writes it, with ``quote`` for a quote inside it."""
    return '"' + name.replace("\\", "\\\\").replace('"', quote) + '"'


@given(st.one_of(NAMES, st.text(alphabet='"\\` x', min_size=1, max_size=4)), st.sampled_from(['""', '\\"']))
def test_any_field_name_in_double_quotes_is_read_back(name, quote):
    """At every place of a name: before a comparison, ``in`` and ``exists``, after a bound, and between bounds."""
    quoted = in_double_quotes(name, quote)
    expected = {
        f"{quoted} = 'x'": Eq(name, "x"),
        f'{quoted}!="x"': Not(Eq(name, "x")),
        f"{quoted} in [1]": In(name, (1,)),
        f"{quoted} not in ['a']": Not(In(name, ("a",))),
        f"{quoted} exists": Exists(name),
        f"{quoted} not exists": Not(Exists(name)),
        f'{quoted} < "2020-01-01"': Range(name, lt="2020-01-01"),
        f"{quoted} >= 2": Range(name, gte=2),
        f"2 < {quoted}": Range(name, gt=2),
        f"'2020-01-01' < {quoted}": Range(name, gt="2020-01-01"),
        f'"2020-01-01" <= {quoted} < "2021-01-01"': Range(name, gte="2020-01-01", lt="2021-01-01"),
        f"1 < {quoted} <= 2": Range(name, gt=1, lte=2),
    }
    assert {text: parse_where(text) for text in expected} == expected


@given(st.tuples(*[st.none() | st.integers(-3, 3)] * 4).filter(any), st.integers(-4, 4))
def test_two_bounds_on_a_side_are_written_as_the_stricter(bounds, value):
    """The text has one bound per side and the same meaning."""
    where = Range("x", *bounds)
    kinds = {"x": FilterKind.INT}
    assert matches(parse_where(to_text(where)), {"x": value}, kinds) is matches(where, {"x": value}, kinds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 2020", Range("year", gte=2020)),
        ("year<2020.5", Range("year", lt=2020.5)),
        ("5 > x", Range("x", lt=5)),
        ("2020 <= year < 2023", Range("year", gte=2020, lt=2023)),
        ("9 > x >= -1e1", Range("x", lt=9, gte=-10.0)),
        ("d > '2020-01-01'", Range("d", gt="2020-01-01")),
        ("x = 1", Eq("x", 1)),
        ("x == 1.0", Eq("x", 1.0)),
        ("x = true or x = FALSE", Or((Eq("x", True), Eq("x", False)))),
        ("x = null", Not(Exists("x"))),
        ("x != null", Exists("x")),
        ("x != 'a'", Not(Eq("x", "a"))),
        ("x in [1, 'b', true]", In("x", (1, "b", True))),
        ("x in (1,)", In("x", (1,))),
        ("x not in []", Not(In("x", ()))),
        ("x exists and y NOT EXISTS", And((Exists("x"), Not(Exists("y"))))),
        ("a=1 or b=2 and not c=3", Or((Eq("a", 1), And((Eq("b", 2), Not(Eq("c", 3))))))),
        ("(a=1 or b=2) and c=3", And((Or((Eq("a", 1), Eq("b", 2))), Eq("c", 3)))),
        ("not (a=1 and b=2)", Not(And((Eq("a", 1), Eq("b", 2))))),
        ("android = 1 or order = 2", Or((Eq("android", 1), Eq("order", 2)))),
        ("in.x = 1", Eq("in.x", 1)),
        ("`in` = 1 and `a``b` = 2", And((Eq("in", 1), Eq("a`b", 2)))),
        ("Größe = 1", Eq("Größe", 1)),
        ('"my field" = "x"', Eq("my field", "x")),
        ('"my field" = "x" and "in" exists', And((Eq("my field", "x"), Exists("in")))),
        ('"2020-01-01" <= d', Range("d", gte="2020-01-01")),
        ('"2020-01-01" <= `my date`', Range("my date", gte="2020-01-01")),
        ('"a\\tb" = 1', Eq("a\tb", 1)),
        ('x = "" or x = ""', Or((Eq("x", ""), Eq("x", "")))),
        ("x = '\"\"'", Eq("x", '""')),
        (r'''x = "a\"b\\\n\u00e9"''', Eq("x", 'a"b\\\né')),
        (r"""x = 'it\'s "so"'""", Eq("x", 'it\'s "so"')),
        ("true", And(())),
        ("not false", Not(Or(()))),
        ('year >= 2020 and tag in ["a","b"]', And((Range("year", gte=2020), In("tag", ("a", "b"))))),
        ("x <> 1", Not(Eq("x", 1))),
        ('"a"<>"b"', Not(Eq("a", "b"))),
    ],
)
def test_what_a_text_means(text, expected):
    """The language, case by case."""
    assert parse_where(text) == expected
    assert type(getattr(parse_where(text), "value", None)) is type(getattr(expected, "value", None))


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "a field name, but the filter ends"),
        ("tag = python", 7, "got 'python' (strings are quoted: \"python\")"),
        ("year >", 7, "expected a number, or a date in quotes, but the filter ends"),
        ("year 2020", 6, "expected a comparison: =, !=, <, <=, >, >=, in, not in, exists, got '2020'"),
        ("year = 1 and", 13, "expected a field name, but the filter ends"),
        ("(year = 1", 10, "a closing parenthesis, but the filter ends"),
        ("x = 1)", 6, "got ')'"),
        ('x = "abc', 5, 'the quote " is not closed'),
        ("x = 2020-01-01", 5, "'2020-01-01' is not a number; dates and other strings are quoted"),
        ("x = 1 y = 2", 7, "expected and, or, or the end, got 'y'"),
        ("in = 1", 1, "expected a field name, got 'in'"),
        ("x in 3", 6, "expected a list"),
        ("x in [1 2]", 9, "expected a comma or the end of the list, got '2'"),
        ("x not 3", 7, "expected in or exists"),
        ("x ? 1", 3, "unexpected '?'"),
        ("x = 1 && y = 2", 7, "unexpected '&'; write and"),
        ("x = 1 || y = 2", 7, "unexpected '|'; write or"),
        ("!(x = 1)", 1, "unexpected '!'; write not"),
        ("x IS null", 3, "got 'IS' (x exists, or x = null)"),
        ("x between 3 and 4", 3, "got 'between' (bounds are written 3 <= x <= 4)"),
        ("x > true", 5, "expected a number, or a date in quotes, got 'true'"),
        ("5 = x", 3, "expected <, <=, > or >=, got '='"),
        ("1 < x > 3", 7, "expected two signs of the same direction"),
        ('"" = 1', 1, "expected a field name, got an empty one"),
        ('"a" 5', 5, "expected a comparison: =, !=, <"),
        (
            '"a" = b',
            7,
            "expected a value: a number, true, false, null, or a string in quotes, got 'b' (strings are quoted",
        ),
        ("'a' = 1", 5, "expected <, <=, > or >=, got '=' (the field comes first: year = 5, or \"my field\" = 5)"),
        ('x in ["a""b"]', 9, 'expected an operator or a comma after a string; a quote inside it is written \\"'),
        ('"a" < "b" > 3', 11, "expected two signs of the same direction"),
        ("x = 1e999", 5, "1e999 is beyond 64 bits"),
        (r'x = "a\q"', 7, r"unknown escape \q"),
        (r'x = "\ud800"', 6, r"unknown escape \ud800"),
        ("__import__('os').system('true')", 11, "expected a comparison"),
    ],
)
def test_what_does_not_parse_is_told_by_column(text, column, message):
    """One line with the column, counted from 1, and what was expected there and found."""
    with pytest.raises(ValueError) as caught:
        parse_where(text)

    assert str(caught.value).startswith(f"filter, column {column}: ")
    assert message in str(caught.value)


@given(st.text(alphabet="xy=<>!()[],'\"`\\ 1.-anotri\n", max_size=30))
def test_any_text_gives_a_filter_or_one_kind_of_error(text):
    """Every text is parsed or raises ValueError."""
    try:
        where = parse_where(text)
    except ValueError as error:
        well = re.match("filter, column [0-9]+: ", str(error)) is not None
    else:
        well = parse_where(to_text(where)) == where
    assert well


def test_long_and_deep_texts_are_read():
    """Parsing a thousand alternatives or parentheses needs no deep stack."""
    assert parse_where(" or ".join(f"x = {at}" for at in range(1000))) == Or(tuple(Eq("x", at) for at in range(1000)))
    assert parse_where("(" * 1000 + "x = 1" + ")" * 1000) == Eq("x", 1)


def test_what_cannot_be_written_is_refused():
    """Numbers that are not finite and ranges without bounds have no text."""
    with pytest.raises(ValueError, match="finite"):
        to_text(Eq("x", float("nan")))
    with pytest.raises(ValueError, match="no bound"):
        to_text(Range("x"))
