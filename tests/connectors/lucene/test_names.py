"""Names of indices, and paths and keys that stay different for different names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._lucene.names import check_collection, escape_field, feature_key, feature_token, index_of, index_path


@pytest.mark.parametrize("name", ["books", "books-2024", "bücher", "a.b", "a_b+c", "1", "é" * 125])
def test_names_that_an_index_can_have(name):
    """They are accepted, and the name of their index is within the limit of 255 bytes."""
    check_collection(name)
    assert len(index_of(name).encode()) <= 255


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("*", r"contains no '\*'"),
        ("books,films", "contains no ','"),
        ("two words", "contains no ' '"),
        ("cluster:books", "contains no ':'"),
        ("books@1", "contains no '@'"),
        ("a/b", "contains no '/'"),
        ("a\\b", "contains no"),
        ("a\nb", "contains no"),
        ("Books", "for example 'books'"),
        ("_all", "does not begin with"),
        ("-books", "does not begin with"),
        ("..", "does not begin with"),
        ("é" * 126, "at most 250 bytes"),
    ],
)
def test_names_that_no_index_can_have(name, message):
    """They are refused before anything is sent, because some of them address every index."""
    with pytest.raises(ValueError, match=message):
        check_collection(name)


def test_the_path_of_indices_is_quoted():
    """Several names are joined by commas."""
    assert index_path("bücher@1", "a+b") == "/b%C3%BCcher%401,a%2Bb"


@pytest.mark.parametrize(
    ("name", "path"), [("year", "year"), ("a.b", "a-2e-b"), ("a-2e-b", "a-2d-2e-2d-b"), ("ü", "-fc-"), (" ", "-20-")]
)
def test_field_names_become_one_step_of_a_path(name, path):
    """Letters, digits and underscores stay; other characters become their code point."""
    assert escape_field(name) == path


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_different_field_names_have_different_paths(one, other):
    """No path has a dot."""
    assert (escape_field(one) == escape_field(other)) == (one == other)
    assert "." not in escape_field(one)


@given(st.text("ab.%2E5", max_size=8))
def test_feature_keys_are_read_back(token):
    """A key has no dot and belongs to one token only."""
    assert "." not in feature_key(token)
    assert feature_token(feature_key(token)) == token


def test_indices_are_not_escaped():
    """Digits need no escape."""
    assert feature_key("4294967294") == "4294967294"
