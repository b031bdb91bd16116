"""Keys of sparse fields: a vector reads back unchanged whatever the tokens are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.keys import DIGITS, Keys, digit_keys
from st_connectors._lucene.layout import AdoptedLayout, OwnLayout
from st_connectors._lucene.vocabulary import build_vocabulary
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Parts, Record
from st_core.vectors import MAX_INDEX, SparseVector

TOKENS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(".%2E5 \x00")), min_size=1, max_size=6)
VOCABULARIES = st.dictionaries(TOKENS, st.integers(0, MAX_INDEX), min_size=1, max_size=12).map(
    lambda pairs: build_vocabulary((token, index) for index, token in {i: t for t, i in pairs.items()}.items())
)
ODD = build_vocabulary([("10.5", 1), ("%2E", 2), (".", 3), ("7", 8), ("8", 7)])


@given(st.data(), st.booleans())
def test_vectors_read_back_whatever_the_tokens_are(data, features):
    """Through a document and its JSON, in fields of either type and documents of either layout."""
    vocabulary = data.draw(VOCABULARIES)
    chosen = data.draw(st.sets(st.sampled_from(sorted(vocabulary.tokens)), min_size=1))
    vector = SparseVector.from_mapping({index: 0.5 + place for place, index in enumerate(sorted(chosen))})
    keys = Keys(vocabulary, frozenset({"s"} if features else ()))
    schema = Schema("books", {"s": SparseField()})

    for layout in (OwnLayout(schema, keys), AdoptedLayout(schema, keys)):
        source = decode_json(encode_json(layout.to_source(Record("a", {"s": vector}))))
        assert layout.from_source("a", source, Parts.ALL).vectors["s"] == vector
    by_key = keys.weights("s", vector)
    assert len(by_key) == len(vector)
    assert not features or not any("." in key for key in by_key)


def test_tokens_are_escaped_where_dots_are_refused():
    """A vocabulary may contain digits, which are then tokens and not indices."""
    vector = SparseVector.from_mapping({1: 0.5, 2: 1.0, 3: 2.0, 8: 4.0})
    plain, features = Keys(ODD), Keys(ODD, frozenset({"s"}))
    assert plain.weights("s", vector) == {"10.5": 0.5, "%2E": 1.0, ".": 2.0, "7": 4.0}
    assert features.weights("s", vector) == {"10%2E5": 0.5, "%252E": 1.0, "%2E": 2.0, "7": 4.0}
    assert features.weights("other", vector) == plain.weights("other", vector)


def test_a_key_without_an_index_gives_no_vector():
    """It was written by another client."""
    assert Keys(ODD).vector("s", {"7": 1.0, "tea": 1.0}) is None
    assert Keys(ODD).vector("s", {"10%2E5": 1.0}) is None
    assert DIGITS.vector("s", {"7": 1.0, "tea": 1.0}) is None
    assert DIGITS.vector("s", {"7": 1.0}) == SparseVector.from_mapping({7: 1.0})


def test_an_index_without_a_token_is_reported():
    """With its field; where keys are indices there is none."""
    vector = SparseVector.from_mapping({8: 1.0, 9: 1.0, 10: 1.0})
    message = "field 's' has index 9, which the vocabulary in the address, of 5 tokens, lacks"
    assert str(Keys(ODD).unknown_index("s", vector)).startswith(message)
    assert Keys(ODD).unknown_index("s", SparseVector.from_mapping({8: 1.0})) is None
    assert DIGITS.unknown_index("s", vector) is None
    assert str(Keys(ODD).unknown_index_of(Record("a", {"d": np.ones(2, np.float32), "s": vector}))).startswith(message)
    with pytest.raises(KeyError):
        Keys(ODD).weights("s", vector)


def test_without_a_vocabulary_keys_are_digits():
    """Indices become decimal digits."""
    vector = SparseVector.from_mapping({0: 1.0, MAX_INDEX: 2.0})
    assert DIGITS.weights("s", vector) == digit_keys(vector) == {"0": 1.0, str(MAX_INDEX): 2.0}
