"""Names: what an index can be called, and paths and keys on which no two names meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._lucene.names import escaped, feature_key, feature_token, index_of, problem_with


@pytest.mark.parametrize("name", ["books", "books-2024", "bücher", "a.b", "a_b+c", "1", "é" * 125])
def test_names_that_an_index_can_have(name):
    """Nothing is wrong with them, and nor is their index's own name over the limit of 255 bytes."""
    assert problem_with(name) is None
    assert len(index_of(name).encode()) <= 255


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("*", r"holds no '\*'"),
        ("books,films", "holds no ','"),
        ("two words", "holds no ' '"),
        ("cluster:books", "holds no ':'"),
        ("books@1", "holds no '@'"),
        ("a/b", "holds no '/'"),
        ("a\\b", "holds no"),
        ("a\nb", "holds no"),
        ("Books", "'books' would do"),
        ("_all", "does not begin with"),
        ("-books", "does not begin with"),
        ("..", "does not begin with"),
        ("é" * 126, "at most 250 bytes"),
    ],
)
def test_names_that_no_index_can_have(name, told):
    """They are told before anything is sent, since some of them mean every index."""
    assert problem_with(name) is not None
    with pytest.raises(ValueError, match=told):
        raise ValueError(problem_with(name))


@pytest.mark.parametrize(
    ("name", "path"), [("year", "year"), ("a.b", "a-2e-b"), ("a-2e-b", "a-2d-2e-2d-b"), ("ü", "-fc-"), (" ", "-20-")]
)
def test_field_names_become_one_step_of_a_path(name, path):
    """Letters, digits and underscores stay; all else is written by its code point."""
    assert escaped(name) == path


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_no_two_field_names_meet(one, other):
    """Different names have different paths, and none has a dot."""
    assert (escaped(one) == escaped(other)) == (one == other)
    assert "." not in escaped(one)


@given(st.text("ab.%2E5", max_size=8))
def test_feature_keys_are_read_back(token):
    """A key has no dot and stands for one token only."""
    assert "." not in feature_key(token)
    assert feature_token(feature_key(token)) == token


def test_indices_are_keys_as_they_are():
    """Digits need no escape."""
    assert feature_key("4294967294") == "4294967294"
