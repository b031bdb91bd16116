"""Searches beyond the declared limits of a store: what is left out, what is said, and what is refused."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._clauses import count_comparisons, count_values
from st_connectors.errors import Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.ingest import IngestOptions, ingest
from st_connectors.layers.fusing import fusing
from st_connectors.layers.guard import guarded
from st_connectors.layers.limits import count_terms, fit, term_room
from st_connectors.layers.passing import Passing
from st_connectors.memory import MemoryStore
from st_connectors.schema import FieldKind, FilterKind, FusionMethod, Rrf, Schema, SparseField, TextField
from st_connectors.search import Mode, SearchOptions, search
from st_connectors.store import Capabilities, Fuse, Match, Near, Parts, Record, SearchRequest
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseMatrix, SparseVector

KINDS = {"n": FilterKind.INT, "tag": FilterKind.KEYWORD}


class Limited(Passing):
    """A store that declares limits, and fails as an engine does when a request exceeds them."""

    def __init__(self, store, **limits):
        super().__init__(store)
        self._capabilities = replace(store.capabilities, **limits)
        self.searched = []

    @property
    def capabilities(self):
        return self._capabilities

    def search(self, requests):
        self.searched += requests
        most = self.capabilities.max_limit
        assert most is None or all(each.offset + each.limit <= most for each in requests)
        room = self.capabilities.max_query_terms
        assert room is None or all(count_terms(each.rank) <= room for each in requests if not is_fuse(each))
        return self.store.search(requests)


def is_fuse(request):
    return isinstance(request.rank, Fuse)


def opened(fields, **limits):
    """A guarded store with limits over an empty collection in memory, and the store under the guard."""
    adapter = MemoryStore(uuid.uuid4().hex, Schema("c", fields, KINDS))
    adapter.create()
    limited = Limited(adapter, **limits)
    return guarded(fusing(limited), name="engine"), limited


class Numbers:
    """Sparse: each text is a list of indices; the weight of an index is the index."""

    name = "numbers"

    def encode_document(self, inputs, /):
        return SparseMatrix.from_rows(
            [SparseVector.from_mapping({int(word): float(word) for word in text.split()}) for text in inputs], 100_000
        )

    encode_query = encode_document


NUMBERS = [FieldEncoder("sparse", FieldKind.SPARSE, Numbers())]


def test_a_sparse_query_over_the_limit_keeps_its_heaviest_terms_and_says_so():
    """By default the search succeeds; ``shorten=False`` refuses it."""
    store, _ = opened({"sparse": SparseField()}, max_query_terms=3)
    ingest(store, [{"id": word, "text": word} for word in ("1", "2", "3", "4", "5")], NUMBERS)

    [result] = search(store, NUMBERS, ["5 1 4 2 3"], SearchOptions())

    assert [(hit.id, hit.score) for hit in result] == [("5", 25), ("4", 16), ("3", 9)]
    assert result.notes == ("field 'sparse': the 3 heaviest of 5 terms were searched, because the store allows 3",)
    assert result.to_json()["notes"] == list(result.notes)
    with pytest.raises(Unsupported, match="engine search: the query has 5 terms, and this store allows 3"):
        search(store, NUMBERS, ["5 1 4 2 3"], SearchOptions(shorten=False))


def test_a_text_query_of_1025_words_keeps_1000_and_says_so():
    """Repetitions are left out first, then the last words."""
    store, limited = opened({"text": TextField()}, max_query_terms=1000)
    store.upsert([Record("first", {}, {"text": "w0"}), Record("last", {}, {"text": "w1019"})])
    words = [f"w{at}" for at in range(1020)] + ["w0"] * 5

    [result] = search(store, [], [" ".join(words)], SearchOptions(mode=Mode.TEXT))

    assert limited.searched[0].rank.text.split() == words[:1000]
    assert [hit.id for hit in result] == ["first"]
    searched = "1,000 of 1,025 words were searched, repetitions and the last words omitted"
    assert result.notes == (f"field 'text': {searched}, because the store allows 1,000",)
    with pytest.raises(Unsupported, match="the query has 1025 words, and this store allows 1000: shorten the text"):
        search(store, [], [" ".join(words)], SearchOptions(mode=Mode.TEXT, shorten=False))


def test_a_query_within_the_limit_is_sent_as_it_is_and_has_no_notes():
    """Also where the store has no limit at all."""
    for limits in ({"max_query_terms": 2}, {}):
        store, limited = opened({"text": TextField()}, **limits)
        [result] = search(store, [], ["Two,  WORDS!"], SearchOptions())
        assert (limited.searched[0].rank.text, result.notes, "notes" in result.to_json()) == ("Two,  WORDS!", (), False)


@pytest.mark.parametrize(
    ("text", "most", "searched"),
    [
        ("the cat and the dog and the end", 5, "the cat and dog end"),
        ("the cat and the dog and the end", 7, "the cat and the dog and end"),
        ("The THE the cat", 2, "The cat"),
        ("can't stop 3.14 now", 3, "can't stop 3.14"),
        ("well-known word other", 3, "well-known word"),
        ("北京的天气", 3, "北 京 的"),
        ("हिन्दी भाषा है", 2, "हिन्दी भाषा"),
        ("— … ! one two", 1, "one"),
    ],
)
def test_a_shortened_text_keeps_first_words_as_they_are_written(text, most, searched):
    """Repeated words come back only after all others; marks, apostrophes and decimals stay in their words."""
    fitted = fit(SearchRequest(Match("text", text)), Capabilities(max_query_terms=most))
    assert fitted.request.rank.text == searched
    assert count_terms(fitted.request.rank) <= most


@given(st.text(max_size=60), st.integers(1, 8))
def test_a_fitted_text_is_never_over_the_limit(text, most):
    """For any characters; and a text within the limit is unchanged."""
    fitted = fit(SearchRequest(Match("text", text)), Capabilities(max_query_terms=most))
    assert count_terms(fitted.request.rank) <= most
    assert (fitted.request.rank.text == text) is (count_terms(Match("text", text)) <= most)


def test_the_legs_of_a_hybrid_query_are_shortened_one_by_one():
    """Only the legs over the limit, with a note for each."""
    legs = (
        Near("dense", np.ones(4, np.float32)),
        Near("sparse", SparseVector.from_mapping({1: 1.0, 2: 2.0})),
        Match("text", "a b"),
    )
    fitted = fit(SearchRequest(Fuse(legs, method=Rrf(7))), Capabilities(max_query_terms=1))

    assert fitted.request.rank.method == Rrf(7)
    assert fitted.request.rank.legs[0] is legs[0]
    assert fitted.request.rank.legs[1].vector.to_mapping() == {2: 2.0}
    assert fitted.request.rank.legs[2].text == "a"
    assert [note.partition(":")[0] for note in fitted.notes] == ["field 'sparse'", "field 'text'"]


def test_a_filter_takes_clauses_from_the_query():
    """Two for each comparison; what a store allows in total is shared."""
    capabilities = Capabilities(max_query_terms=100, max_clauses=120)
    ranges = tuple(Range("n", gte=at) for at in range(30))
    assert [term_room(capabilities, where) for where in (None, Or(ranges[:10]), Or(ranges), Or(ranges * 9))] == [
        *(100, 100, 60, 1)
    ]
    assert term_room(Capabilities(), Or(ranges)) is None


def test_an_or_of_2000_ranges_is_refused_before_it_is_sent():
    """By every operation with a filter, and by a search before its query."""
    store, limited = opened({"text": TextField()}, max_query_terms=1000, max_clauses=1024)
    where = Or(tuple(Range("n", gte=at) for at in range(2000)))
    message = "the filter has 2000 comparisons, and this store allows 512: compare with several values by In"
    for call in (
        lambda: store.count(where),
        lambda: list(store.scan(where=where)),
        lambda: search(store, [], ["word"], SearchOptions(where=where)),
    ):
        with pytest.raises(Unsupported, match=message):
            call()
    assert limited.searched == []
    assert store.count(Or(where.parts[:512])) == 0


def test_an_or_of_2000_equalities_is_one_comparison():
    """As stores send it: one list of values."""
    store, _ = opened({"text": TextField()}, max_clauses=4)
    store.upsert([Record("a", {}, {"text": "x", "n": 1999})])
    where = Or((*(Eq("n", at) for at in range(1999)), In("n", (1999, 5)), Or((Eq("n", 7), Eq("tag", "x")))))
    assert store.count(where) == 1
    assert count_comparisons(where) == 2


def test_more_filter_values_than_the_store_allows_are_refused_at_once():
    """With the numbers; the values of all comparisons count."""
    store, limited = opened({"text": TextField()}, max_filter_values=1000)
    few = And((In("n", tuple(range(999))), Eq("tag", "x")))
    many = And((few, Not(Eq("tag", "y"))))
    assert (count_values(few), count_values(many), count_values(Exists("n"))) == (1000, 1001, 0)
    assert store.count(few) == 0
    with pytest.raises(Unsupported, match="the filter has 1001 values, and this store allows 1000: split them"):
        search(store, [], ["word"], SearchOptions(where=many))
    assert limited.searched == []


def test_deep_filters_are_counted_without_deep_recursion():
    """A filter of 10,000 levels, which the guard refuses by its depth, does not exhaust the stack before."""
    where = Eq("n", 1)
    for at in range(10_000):
        where = Not(where) if at % 2 else Or((where, Eq("n", at)))
    assert count_values(where) == 5001
    store, _ = opened({"text": TextField()}, max_query_terms=5, max_clauses=9)
    with pytest.raises(ValueError, match="nests deeper than 100 levels"):
        search(store, [], ["word"], SearchOptions(where=where))


def test_the_words_and_filters_of_all_legs_count_where_the_store_fuses():
    """A fused search is one query for the engine, in which each leg contains the filter."""
    fields = {"text": TextField(), "other": TextField("text")}
    legs = (Match("text", "a b"), Match("other", "c d"))
    where = Range("n", gte=1)
    for most, filtered, is_native in ((4, None, True), (3, None, False), (8, where, True), (7, where, False)):
        limits = {"max_query_terms": most, "max_clauses": most, "fusion": frozenset({FusionMethod.RRF})}
        store, limited = opened(fields, **limits)
        limited.store.search = lambda requests: [[] for _ in requests]
        store.search([SearchRequest(Fuse(legs), where=filtered, parts=Parts.PAYLOAD)])
        assert is_fuse(limited.searched[0]) is is_native, (most, filtered)


def windows(text):
    """One window per word."""
    ends = [at for at, letter in enumerate(text) if letter == " "] + [len(text)]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def split_corpus(**limits):
    """Two documents, of which the first has 40 windows, all better than the second's."""
    store, limited = opened({"text": TextField()}, **limits)
    texts = {"long": " ".join(["word"] * 40), "short": "word x"}
    ingest(store, [{"id": key, "text": text} for key, text in texts.items()], [], options=IngestOptions(spans=windows))
    return store, limited


def test_folding_stops_at_the_reach_of_the_store_and_says_so():
    """A page of two documents would need 41 windows; the store returns 10."""
    store, limited = split_corpus(max_limit=10)
    [result] = search(store, [], ["word"], SearchOptions(limit=2, fold=True))

    assert [hit.id for hit in result] == ["long"]
    assert result.notes == (
        "the page is not full, although there may be more hits: this store returns at most 10 records of a search",
    )
    assert [request.limit for request in limited.searched] == [2, 8, 10]


def test_folding_within_the_reach_is_complete_and_says_nothing():
    """The last, deepest search may go just to the reach."""
    store, limited = split_corpus(max_limit=100)
    [result] = search(store, [], ["word"], SearchOptions(limit=2, fold=True))

    assert ([hit.id for hit in result], result.notes) == (["long", "short"], ())
    assert [request.limit for request in limited.searched] == [2, 8, 32, 100]


@pytest.mark.parametrize(
    ("options", "count", "has_note"),
    [
        ({"limit": 10}, 10, False),
        ({"limit": 11}, 10, True),
        ({"limit": 5, "offset": 8}, 2, True),
        ({"limit": 1, "offset": 9}, 1, False),
        ({"limit": 50, "where": Eq("n", 1)}, 0, False),
    ],
)
def test_a_page_over_the_reach_ends_there(options, count, has_note):
    """The result has the hits so far, and a note only if there may be more."""
    store, _ = split_corpus(max_limit=10)
    [result] = search(store, [], ["word"], SearchOptions(**options))
    assert (len(result), bool(result.notes)) == (count, has_note)


def test_a_page_that_begins_beyond_the_reach_is_refused():
    """An empty page would look like the end of the results."""
    store, _ = split_corpus(max_limit=10)
    with pytest.raises(Unsupported, match="offset \\+ limit is 11, and this store returns at most 10"):
        search(store, [], ["word"], SearchOptions(limit=1, offset=10))


def test_candidates_beyond_the_reach_are_not_asked_for():
    """The depth of fusion and of reranking ends at the reach, which is said."""

    class Constant:
        def predict(self, pairs):
            return np.zeros(len(pairs))

    store, limited = opened({"text": TextField(), "other": TextField("text")}, max_limit=10)
    store.upsert([Record(str(at), {}, {"text": "word"}) for at in range(20)])
    told = ("depth is 30, and this store returns at most 10 records of a search",)

    [fused] = search(store, [], ["word"], SearchOptions(depth=30, limit=3))
    assert (len(fused), fused.notes, {request.limit for request in limited.searched}) == (3, told, {10})
    [reranked] = search(store, [], ["word"], SearchOptions(depth=30, limit=3, fields=("text",)), Constant())
    assert (len(reranked), reranked.notes) == (3, told)
    [single] = search(store, [], ["word"], SearchOptions(depth=30, limit=3, fields=("text",)))
    assert (len(single), single.notes) == (3, ())
