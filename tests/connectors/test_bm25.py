"""Client-side BM25 weights compared with the formula, and the definition of a word."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors import bm25

TEXTS = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from(["red", "Fish", "ünï", "42", "foo_bar", "東京都"])).map(" ".join)
)


@given(TEXTS)
def test_document_weights_are_the_term_frequency_half_of_bm25(text):
    """Tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average)), each word at its index."""
    found = bm25.words(text)
    counts = Counter(map(bm25.word_index, found))
    norm = 1.2 * (0.25 + 0.75 * len(found) / bm25.AVERAGE_LENGTH)

    assert bm25.document_vector(text).to_mapping() == pytest.approx(
        {index: tf * 2.2 / (tf + norm) for index, tf in counts.items()}, rel=1e-6
    )
    assert bm25.query_vector(text).to_mapping() == {index: float(tf) for index, tf in counts.items()}


@given(TEXTS, TEXTS)
def test_words_are_the_same_alone_and_among_others(left, right):
    """A line break separates two words; counts do not depend on neighbours."""
    assert bm25.words(f"{left}\n{right}") == bm25.words(left) + bm25.words(right)


@given(TEXTS)
def test_words_do_not_depend_on_case_or_composition(text):
    """Case folding and NFKC: decomposed, composed and upper-case spellings are one word."""
    folded = bm25.words(text)
    assert bm25.words(unicodedata.normalize("NFD", text)) == folded
    assert [again for word in folded for again in bm25.words(word)] == folded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, WORLD!", ["hello", "world"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("shutil.copy_tree(src)", ["shutil", "copy", "tree", "src"]),
        ("ﬁne Ⅻ ①", ["fine", "xii", "1"]),
        ("don't", ["don", "t"]),
        ("東京都 に", ["東京", "京都", "に"]),
        ("iPhone用", ["iphone", "用"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("שָׁלוֹם", [unicodedata.normalize("NFKC", "שָׁלוֹם")]),
        ("e\u0301tude étude", ["étude", "étude"]),
        ("3.14 x2", ["3", "14", "x2"]),
        (" \t\n", []),
        ("🎉 ...", []),
    ],
)
def test_what_is_a_word(text, expected):
    """Letters, digits and marks; ideographs in pairs."""
    assert bm25.words(text) == expected


def test_indices_are_stable():
    """Indices are stored in collections, so that they must never change; every store accepts them below 2**31."""
    assert {word: bm25.word_index(word) for word in ("fish", "東京", "")} == {
        "fish": 1112054752,
        "東京": 1146328294,
        "": 46947589,
    }
    assert bm25.word_index("\ud800") < 2**31


def test_rarity_follows_the_number_of_records():
    """ln((n - df + 0.5) / (df + 0.5) + 1): positive even for a word in all records, and falling with df."""
    values = [bm25.idf(10, matching) for matching in range(11)]
    assert values == sorted(values, reverse=True)
    assert values[10] == pytest.approx(math.log(0.5 / 10.5 + 1))
    assert values[3] == pytest.approx(math.log(7.5 / 3.5 + 1))


def test_texts_without_words_have_empty_vectors():
    """An empty text has no vector, and such a query no hits."""
    assert len(bm25.document_vector("")) == len(bm25.query_vector("...")) == 0


def test_longer_texts_and_repetitions_weigh_less():
    """A word counts less in a longer text, and its second mention less than its first."""
    index = bm25.word_index("fish")
    once, twice = (bm25.document_vector(text).to_mapping()[index] for text in ("fish one", "fish fish"))
    longer = bm25.document_vector("fish " + "word " * 300).to_mapping()[index]
    assert longer < once < twice < 2 * once
