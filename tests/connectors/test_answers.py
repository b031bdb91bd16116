"""Answers that were cut off on their way, and answers of other servers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._answers import is_cut_off

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)


@given(OBJECTS, st.booleans(), st.data())
def test_every_beginning_of_a_json_object_is_cut_off(value, is_ascii, data):
    """Also one that ends inside a string, or inside a character."""
    body = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert not is_cut_off(body)
    assert is_cut_off(body[: data.draw(st.integers(1, len(body) - 1))])


@pytest.mark.parametrize("body", ["", b"", "<html>{</html>", "It works {", "[1, 2", '"{"', "{}", '{"a": "{["}', " {} "])
def test_other_bodies_are_complete_or_of_another_server(body):
    """Brackets inside strings do not count."""
    assert not is_cut_off(body)


@pytest.mark.parametrize("body", [' {"a": 1', '{"a": "}', '{"a": "\\', '{"a": "\\"}', '{"items":[{"status":201}}'])
def test_escaped_quotes_do_not_end_a_string(body):
    """Nor does a backslash at the end."""
    assert is_cut_off(body)
