"""Highlights are the words of the text that matched, at their places, and a passage contains the heaviest of them."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from st_connectors import bm25
from st_connectors.highlight import Highlight, collapse, marked, passage, term_highlights, word_highlights
from st_connectors.ingest import ingest
from st_connectors.search import Mode, SearchOptions, search

FILLER = "nothing of interest here and there "


def places(text: str, results: list[Highlight]) -> list[tuple[str, str]]:
    return [(each.term, text[each.start : each.end]) for each in results]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("The Sea, the sea!", "sea", [("sea", "Sea"), ("sea", "sea")]),
        ("snake_case name", "case", [("case", "case")]),
        ("Straße nach Süden", "strasse süden", [("strasse", "Straße"), ("süden", "Süden")]),
        ("日本語の本", "本語", [("本語", "本語")]),
        ("naïve cafe\u0301", "café naive", [("café", "cafe\u0301")]),
        ("a b", "", []),
        ("", "a", []),
    ],
)
def test_words_are_found_as_the_text_leg_compares_them(text, query, expected):
    """Case, compatibility forms and pairs of ideographs count as for BM25; accents count as different."""
    results = word_highlights("text", text, dict.fromkeys(bm25.words(query), 1.0))

    assert places(text, results) == expected


@given(st.text(max_size=80))
def test_spans_are_words_of_the_text_in_order(text):
    """Each span gives its word when it is normalised alone, and ASCII texts lose no word."""
    results = list(bm25.spans(text))

    assert [start for _, start, _ in results] == sorted(start for _, start, _ in results)
    assert {word for word, _, _ in results} <= set(bm25.words(text)) or not text.isascii()
    if text.isascii():
        assert [word for word, _, _ in results] == bm25.words(text)
    for word, start, end in results:
        assert word in bm25.words(text[start:end])


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Word pieces of three words."""
    vocabulary = {"[UNK]": 0, "fish": 1, "##erman": 2, "##ing": 3, "a": 4, "boat": 5}
    created = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    created.pre_tokenizer = Whitespace()
    return created


def test_terms_are_found_by_their_tokens(tokenizer):
    """A word of which a piece matched is one highlight, under its heaviest piece; an unknown word is none."""
    text = "a  fisherman, fishing a whale"

    results = term_highlights("sparse", text, {"fish": 0.5, "##erman": 1.0, "whale": 1.0}, tokenizer)

    assert places(text, results) == [("##erman", "fisherman"), ("fish", "fishing")]
    assert [each.weight for each in results] == [1.0, 0.5]


def test_the_tokens_of_a_text_are_looked_through_once(tokenizer):
    """However many words match: a book of a megabyte took minutes when each word was looked up among all tokens."""

    class Watched:
        def encode(self, text: str, **options: Any) -> Any:
            encoding = tokenizer.encode(text, **options)
            names = ("tokens", "word_ids", "offsets")
            return types.SimpleNamespace(**{name: getattr(encoding, name) for name in names})

    results = term_highlights("sparse", "a  fisherman ", {"fish": 0.5, "##erman": 1.0}, Watched())

    assert places("a  fisherman ", results) == [("##erman", "fisherman")]


def test_terms_of_a_model_without_tokenizer_are_words():
    """They are compared as words."""
    assert places("Old Boat", term_highlights("sparse", "Old Boat", {"boat": 1.0}, None)) == [("boat", "Boat")]


def test_the_passage_is_where_most_terms_are():
    """Not where the text begins, nor where one term is repeated."""
    text = "sea sea sea " + FILLER * 10 + "a boat on the sea in a storm " + FILLER * 10
    results = word_highlights("text", text, dict.fromkeys(["sea", "boat", "storm"], 1.0))

    start, end = passage(text, results, 60)

    assert "boat on the sea in a storm" in text[start:end]
    assert text[start - 1] == " "
    assert text[end] == " "


def test_a_rare_term_outweighs_a_common_one():
    """The passage of the heavier term is shown if both do not fit."""
    text = "the the " + FILLER * 10 + "marlin " + FILLER * 10
    results = word_highlights("sparse", text, {"the": 0.1, "marlin": 1.0})

    start, end = passage(text, results, 40)

    assert "marlin" in text[start:end]


def test_without_highlights_the_passage_is_the_beginning():
    """A dense leg matches no words."""
    assert passage(FILLER * 10, [], 20) == (0, len("nothing of interest"))
    assert passage("short", [], 20) == (0, 5)


TEXTS = st.lists(st.sampled_from(["sea", "boat", "a", "\n", "  ", "x" * 30, "süß"]), max_size=40).map(" ".join)


@given(TEXTS, st.integers(8, 60))
def test_a_passage_is_no_longer_than_the_width_and_contains_a_match(text, width):
    """Whatever the text: within bounds, and with a highlighted word if one fits."""
    results = word_highlights("text", text, {"sea": 1.0, "boat": 0.5})

    start, end = passage(text, results, width)

    assert 0 <= start <= end <= len(text)
    assert end - start <= width
    assert not results or any(start <= each.start and each.end <= end for each in results)


@given(TEXTS)
def test_collapsing_keeps_each_highlight_on_its_word(text):
    """The line has single spaces, and the same words are highlighted in it."""
    results = word_highlights("text", text, {"sea": 1.0, "boat": 0.5})

    line, moved = collapse(text, results)

    assert line == " ".join(text.split())
    assert [line[each.start : each.end] for each in moved] == [text[each.start : each.end] for each in results]


@given(TEXTS, st.integers(0, 50), st.integers(0, 50))
def test_the_parts_of_a_passage_add_up_to_it(text, start, length):
    """Marked and unmarked parts alternate over the passage without gap or overlap."""
    results = word_highlights("text", text, {"sea": 1.0, "süß": 0.5}) + word_highlights("sparse", text, {"sea": 1.0})
    start = min(start, len(text))
    end = min(start + length, len(text))

    parts = list(marked(text, start, end, results))

    assert "".join(part for part, _ in parts) == text[start:end]
    assert all(part for part, _ in parts)


@pytest.fixture
def story(memory, encoders) -> Any:
    """A long text whose matching passage is in its middle."""
    store = memory()
    text = FILLER * 20 + "an old boat on the blue sea " + FILLER * 20
    ingest(store, [{"id": "long", "text": text}, {"id": "other", "text": "plum pear"}], encoders)
    return store


@pytest.mark.parametrize(
    ("mode", "fields"),
    [(Mode.SPARSE, {"sparse"}), (Mode.TEXT, {"text"}), (Mode.HYBRID, {"sparse", "text"}), (Mode.DENSE, set())],
)
def test_hits_have_the_offsets_of_what_matched(story, encoders, mode, fields):
    """In sparse and text legs; JSON has them in the same order, and a dense leg has none."""
    [result] = search(story, encoders, ["blue boat"], SearchOptions(mode=mode, highlight=True, limit=1))
    [hit] = result
    text = hit.payload["text"]

    assert {each.field for each in hit.highlights} == fields
    assert {text[each.start : each.end] for each in hit.highlights} == ({"blue", "boat"} if fields else set())
    assert hit.to_json().get("highlights", []) == [
        {"field": each.field, "term": each.term, "start": each.start, "end": each.end} for each in hit.highlights
    ]


def test_hits_have_no_highlights_unless_requested(story, encoders):
    """A plain search reads no vectors of its hits."""
    [result] = search(story, encoders, ["blue boat"], SearchOptions(limit=1))

    assert result[0].highlights == ()
    assert "highlights" not in result[0].to_json()
