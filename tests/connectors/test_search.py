"""Search: the legs, fusion, filter, reranker and explanation agree with what brute force gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from st_connectors.errors import ModelWarning
from st_connectors.filters import Range
from st_connectors.ingest import IngestOptions, ingest
from st_connectors.schema import FilterKind, Rrf, Weighted
from st_connectors.search import Mode, SearchOptions, SearchResult, search
from st_connectors.store import Store

TEXTS = {
    "a": "red apple",
    "b": "green apple pear",
    "c": "old boat",
    "d": "sea boat ship",
    "e": "blue sea blue sea",
    "f": "plum pear plum",
    "g": "old old ship",
}


@pytest.fixture
def fruit(memory, encoders) -> Store:
    """Seven documents with dense, sparse and text fields, numbered by year."""
    store = memory(filterable={"year": FilterKind.INT})
    ingest(store, [{"id": key, "text": text, "year": n} for n, (key, text) in enumerate(TEXTS.items())], encoders)
    return store


def dense_scores(letters, query: str) -> dict[str, float]:
    rows = letters.encode_document(list(TEXTS.values())).astype(float)
    vector = letters.encode_query([query])[0].astype(float)
    cosines = rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)
    return dict(zip(TEXTS, cosines, strict=True))


def sparse_scores(words, query: str) -> dict[str, float]:
    rows = words.encode_document(list(TEXTS.values())).to_dense().astype(float)
    scores = rows @ words.encode_query([query]).to_dense()[0].astype(float)
    return {key: float(score) for key, score in zip(TEXTS, scores, strict=True) if score > 0}


def ordered(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda key: (-scores[key], key))


def scores_of(result: SearchResult) -> dict[str, float]:
    return {hit.id: hit.score for hit in result}


def one(store, encoders, query: str, reranker: Any = None, **options: Any) -> SearchResult:
    [result] = search(store, encoders, [query], SearchOptions(**options), reranker)
    return result


@pytest.mark.parametrize("query", ["apple pear", "old ship", "blue"])
def test_dense_mode_is_the_cosine(fruit, encoders, letters, query):
    """Dense mode ranks every document by the cosine of the encoder's vectors."""
    result = one(fruit, encoders, query, mode=Mode.DENSE)

    expected = dense_scores(letters, query)
    assert scores_of(result) == pytest.approx(expected, abs=1e-6)
    assert [hit.id for hit in result] == ordered(expected)


@pytest.mark.parametrize("query", ["apple pear", "old ship", "blue"])
def test_sparse_mode_is_the_inner_product(fruit, encoders, words, query):
    """Sparse mode gives the documents that share a word, by the inner product, queries encoded as queries."""
    result = one(fruit, encoders, query, mode=Mode.SPARSE)

    expected = sparse_scores(words, query)
    assert scores_of(result) == pytest.approx(expected)
    assert [hit.id for hit in result] == ordered(expected)


def test_text_mode_needs_no_encoder(fruit):
    """Text mode finds the documents with the words, with no encoder at hand."""
    assert {hit.id for hit in one(fruit, [], "boat", mode=Mode.TEXT)} == {"c", "d"}


def rrf(*rankings: list[str], k: int = 60) -> dict[str, float]:
    totals: dict[str, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, 1):
            totals[key] = totals.get(key, 0) + 1 / (k + rank)
    return totals


def test_hybrid_is_the_default_and_fuses_all_legs(fruit, encoders, letters, words):
    """Without a mode all legs are fused by reciprocal ranks, and each hit says where each leg had it."""
    query = "old apple"
    result = one(fruit, encoders, query)

    text = [hit.id for hit in one(fruit, encoders, query, mode=Mode.TEXT)]
    dense, sparse = ordered(dense_scores(letters, query)), ordered(sparse_scores(words, query))
    expected = rrf(dense, sparse, text)
    assert [hit.id for hit in result] == ordered(expected)
    assert scores_of(result) == pytest.approx(expected)
    best = result[0]
    assert {leg.field: leg.rank for leg in best.legs} == {
        "dense": dense.index(best.id) + 1,
        "sparse": sparse.index(best.id) + 1,
        "text": text.index(best.id) + 1,
    }
    assert {leg.field: leg.score for leg in best.legs}["sparse"] == pytest.approx(sparse_scores(words, query)[best.id])


def min_max(scores: dict[str, float]) -> dict[str, float]:
    low, high = min(scores.values()), max(scores.values())
    return {key: (score - low) / (high - low) for key, score in scores.items()}


@pytest.mark.parametrize("own", [True, False])
def test_the_fusion_is_the_collections_or_the_searchs(memory, encoders, letters, words, own):
    """A collection's fusion is used where the search names none, and the search's own wins."""
    weights = Weighted((0.25, 0.75))
    store = memory("dense", "sparse", fusion=weights if own else Rrf())
    ingest(store, [{"id": key, "text": text} for key, text in TEXTS.items()], encoders)

    result = one(store, encoders, "old sea apple", fusion=None if own else weights)

    dense, sparse = min_max(dense_scores(letters, "old sea apple")), min_max(sparse_scores(words, "old sea apple"))
    expected = {key: 0.25 * dense[key] + 0.75 * sparse.get(key, 0.0) for key in TEXTS}
    assert scores_of(result) == pytest.approx(expected, abs=1e-6)


def test_a_leg_without_direction_is_left_out_with_its_weight(memory, encoders, words):
    """A query without a dense vector is searched by the sparse leg, with that leg's own weight."""
    store = memory("dense", "sparse", fusion=Weighted((0.25, 0.75)))
    ingest(store, [{"id": key, "text": text} for key, text in TEXTS.items()], encoders)
    blind = [encoders[0], encoders[1]]
    blind[0] = type(blind[0])("dense", blind[0].kind, _Zeros())

    result = one(store, blind, "old sea apple")

    sparse = min_max(sparse_scores(words, "old sea apple"))
    assert scores_of(result) == pytest.approx({key: 0.75 * score for key, score in sparse.items()}, abs=1e-6)


class _Zeros:
    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        return np.zeros((len(inputs), 16))

    encode_query = encode_document


def test_a_query_that_says_nothing_finds_nothing(memory, encoders):
    """A query without any leg gives no hits, and no error."""
    store = memory("dense", "sparse")
    ingest(store, [{"id": "a", "text": "red"}], encoders)

    assert one(store, encoders, "zzz").hits == ()


def test_several_queries_are_answered_in_order(fruit, encoders):
    """Each query of a batch gets the answer it gets alone, also next to one that says nothing."""
    queries = ["apple", "", "old ship", "sea"]

    results = search(fruit, encoders, queries, SearchOptions(limit=3))

    assert [result.query for result in results] == queries
    for query, result in zip(queries, results, strict=True):
        assert result.to_json() == one(fruit, encoders, query, limit=3).to_json()
    assert search(fruit, encoders, [], SearchOptions()) == []


def test_pages_are_slices_of_the_whole(fruit, encoders):
    """Offset and limit cut pages out of one order."""
    whole = [hit.id for hit in one(fruit, encoders, "old apple", limit=7)]

    assert [[hit.id for hit in one(fruit, encoders, "old apple", limit=2, offset=n)] for n in (0, 2, 4, 6)] == [
        whole[0:2],
        whole[2:4],
        whole[4:6],
        whole[6:8],
    ]


def test_a_page_deeper_than_depth_is_still_found(fruit, encoders):
    """Depth is raised to what the page needs."""
    deep = one(fruit, encoders, "old apple", limit=7, depth=1)

    assert scores_of(deep) == pytest.approx(scores_of(one(fruit, encoders, "old apple", limit=7, depth=100)))


@pytest.mark.parametrize("mode", list(Mode))
def test_a_filter_holds_in_every_mode(fruit, encoders, mode):
    """Only records that the filter lets through come back, in the order they have without it."""
    everything = [hit.id for hit in one(fruit, encoders, "old sea apple", mode=mode)]

    result = one(fruit, encoders, "old sea apple", mode=mode, where=Range("year", gte=3))

    kept = {hit.id for hit in result}
    assert kept == {key for n, key in enumerate(TEXTS) if n >= 3 and key in everything}
    assert all(hit.payload["year"] >= 3 for hit in result)


class Longest:
    """A reranker that prefers long texts and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []

    def predict(self, inputs: list[tuple[str, str]], /) -> np.ndarray:
        self.asked.append(inputs)
        return np.array([float(len(text)) for _, text in inputs])


def test_a_reranker_has_the_last_word_over_depth_candidates(fruit, encoders):
    """The best by the retriever are put in the reranker's order, keep the score they had before, and ties go by id."""
    before = one(fruit, encoders, "old apple", limit=4)
    reranker = Longest()

    result = one(fruit, encoders, "old apple", reranker, limit=3, depth=4)

    assert reranker.asked == [[("old apple", TEXTS[hit.id]) for hit in before]]
    expected = sorted(before, key=lambda hit: (-len(TEXTS[hit.id]), hit.id))[:3]
    assert [(hit.id, hit.score) for hit in result] == [(hit.id, float(len(TEXTS[hit.id]))) for hit in expected]
    assert [hit.retrieved for hit in result] == pytest.approx([hit.score for hit in expected])


def test_a_reranker_is_not_called_for_nothing(memory, encoders):
    """No candidates, no call."""
    reranker = Longest()

    assert one(memory("dense", "sparse"), encoders, "apple", reranker).hits == ()
    assert reranker.asked == []


def test_a_reranker_that_gives_too_few_scores_is_an_error(fruit, encoders):
    """One score per pair, or the order would be nonsense."""

    class Short:
        def predict(self, inputs: list[tuple[str, str]], /) -> list[float]:
            return [1.0]

    with pytest.raises(ValueError, match=r"one score per pair from the reranker, \[7\], not \[1\]"):
        one(fruit, encoders, "old apple", Short())


class WithoutScores(Longest):
    """A reranker that gives NaN for texts that contain one of some words."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def predict(self, inputs: list[tuple[str, str]], /) -> np.ndarray:
        lengths = super().predict(inputs)
        return np.array(
            [np.nan if set(self.words) & set(text.split()) else n for (_, text), n in zip(inputs, lengths, strict=True)]
        )


def test_hits_for_which_a_reranker_gives_nan_are_last_and_reported(fruit, encoders):
    """In the order in which they were retrieved, after all that have a score, on whatever page they are."""
    before = [hit.id for hit in one(fruit, encoders, "old sea apple")]
    unknown = [key for key in before if "sea" in TEXTS[key].split()]
    expected = sorted(set(before) - set(unknown), key=lambda key: (-len(TEXTS[key]), key)) + unknown
    assert len(unknown) >= 2

    with pytest.warns(ModelWarning, match=f"the reranker gave NaN for {len(unknown)} of 7 candidates, .* ranked last"):
        result = one(fruit, encoders, "old sea apple", WithoutScores("sea"))
    with pytest.warns(ModelWarning):
        page = one(fruit, encoders, "old sea apple", WithoutScores("sea"), offset=3, limit=4)

    assert [hit.id for hit in result] == expected
    assert [hit.id for hit in page] == expected[3:]
    assert [hit.id for hit in result if np.isnan(hit.score)] == unknown
    assert [hit["score"] for hit in result.to_json()["hits"]][-len(unknown) :] == [None] * len(unknown)


@pytest.mark.parametrize("payload", [{"text": None, "year": 1}, {"year": 1}])
def test_a_hit_without_a_text_is_not_shown_to_the_reranker(fruit, encoders, payload):
    """It would be ranked as the word None; it comes last and keeps the score with which it was retrieved."""
    [record] = fruit.get(["d"])
    fruit.upsert([replace(record, payload=payload)])
    retrieved = {hit.id: hit.score for hit in one(fruit, encoders, "sea boat ship", mode=Mode.DENSE)}
    reranker = Longest()

    result = one(fruit, encoders, "sea boat ship", reranker, mode=Mode.DENSE)

    assert {text for _, text in reranker.asked[0]} == {text for key, text in TEXTS.items() if key != "d"}
    assert (result.hits[-1].id, result.hits[-1].retrieved) == ("d", retrieved["d"])
    assert np.isnan(result.hits[-1].score)


def test_explain_names_the_words_that_matched(fruit, encoders, words):
    """The terms are the words that query and document share, heaviest first, and add up to the sparse leg's score."""
    result = one(fruit, encoders, "blue sea ship", explain=True)

    by_id = {hit.id: hit for hit in result}
    assert [(term.field, term.term, term.weight) for term in by_id["e"].terms] == [
        ("sparse", "sea", 4.0),
        ("sparse", "blue", 4.0),
    ]
    assert [(term.term, term.weight) for term in by_id["d"].terms] == [("ship", 2.0), ("sea", 2.0)]
    assert by_id["a"].terms == ()
    for hit in result:
        assert sum(term.weight for term in hit.terms) == pytest.approx(
            sparse_scores(words, "blue sea ship").get(hit.id, 0)
        )


def windows(text: str) -> list[tuple[int, int]]:
    """One window per word."""
    ends = [n for n, letter in enumerate(text) if letter == " "] + [len(text)]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def test_folding_gives_each_document_once_by_its_best_window(memory, encoders):
    """Hits of windows become hits of their documents, asked for deeply enough that the page is full."""
    store = memory("sparse")
    texts = {"long": "apple " * 60 + "apple apple", "short": "apple", "other": "pear apple", "none": "sea"}
    ingest(store, [{"id": k, "text": t} for k, t in texts.items()], encoders[1:], options=IngestOptions(spans=windows))

    plain = one(store, encoders[1:], "apple", limit=3)
    folded = one(store, encoders[1:], "apple", limit=3, fold=True, explain=True)

    assert len({hit.id for hit in plain}) == 3
    assert [hit.id for hit in folded] == ["long", "other", "short"]
    assert folded[1].payload["_chunk"] == {"parent": "other", "number": 1, "of": 2, "start": 5, "end": 10}
    assert [term.term for term in folded[1].terms] == ["apple"]


def test_results_are_sequences_and_json(fruit, encoders):
    """A result counts, slices and iterates its hits; its JSON has query and hits with id, score, payload and legs."""
    result = one(fruit, encoders, "boat", mode=Mode.SPARSE, limit=2)

    assert (len(result), result[0].id, [hit.id for hit in result[:1]]) == (2, "c", ["c"])
    assert result.to_json() == {
        "query": "boat",
        "hits": [
            {
                "id": "c",
                "score": 2.0,
                "payload": {"text": "old boat", "year": 2},
                "legs": {"sparse": {"rank": 1, "score": 2.0}},
            },
            {
                "id": "d",
                "score": 2.0,
                "payload": {"text": "sea boat ship", "year": 3},
                "legs": {"sparse": {"rank": 2, "score": 2.0}},
            },
        ],
    }


def test_a_mode_the_collection_lacks_names_its_fields(memory, encoders):
    """Asking for a leg that is not there says what there is."""
    with pytest.raises(ValueError, match="has no text field; its fields are 'dense', 'sparse'"):
        one(memory("dense", "sparse"), encoders, "apple", mode=Mode.TEXT)


def test_a_field_without_encoder_is_an_error(fruit, encoders):
    """A leg cannot be left out in silence."""
    with pytest.raises(ValueError, match="no encoder for field 'sparse'"):
        one(fruit, encoders[:1], "apple")


def test_a_fusion_for_other_legs_is_an_error(fruit, encoders):
    """Two weights do not fit three legs."""
    with pytest.raises(ValueError, match="2 weights for 3 legs: dense, sparse, text"):
        one(fruit, encoders, "apple", fusion=Weighted((1.0, 2.0)))


@pytest.mark.parametrize(("option", "value"), [("limit", 0), ("offset", -1), ("depth", 0)])
def test_numbers_out_of_range_are_refused(option, value):
    """No page of nothing, none before the first."""
    with pytest.raises(ValueError, match=f"{option} must be at least {value + 1}, not {value}"):
        SearchOptions(**{option: value})


@pytest.mark.parametrize("option", ["limit", "offset", "depth"])
@pytest.mark.parametrize("value", ["5", 5.0, None, True])
def test_numbers_that_are_none_are_refused(option, value):
    """Text as it comes from a web form, say, is a TypeError that says what came."""
    with pytest.raises(TypeError, match=f"{option} must be an integer, not {value!r}"):
        SearchOptions(**{option: value})


def test_a_query_is_a_string(fruit, encoders):
    """Anything else is a TypeError that says what came."""
    with pytest.raises(TypeError, match="a query must be a string, not int"):
        search(fruit, encoders, [3], SearchOptions())  # type: ignore[list-item]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("offset", [0, 1])
def test_min_score_cuts_the_ranking(fruit, encoders, mode, offset):
    """Hits below it are omitted before the page is cut, in every mode; a hit of exactly this score stays."""
    whole = one(fruit, encoders, "old sea", mode=mode)
    least = whole[1].score
    expected = [hit.id for hit in whole if hit.score >= least]

    cut = one(fruit, encoders, "old sea", mode=mode, min_score=least, offset=offset)

    assert [hit.id for hit in cut] == expected[offset:]
    assert len(expected) < len(whole)


def test_min_score_is_compared_with_the_score_of_the_reranker(fruit, encoders):
    """Not with that of the fusion."""

    class Lengths:
        def predict(self, pairs):
            return np.array([float(len(text)) for _, text in pairs])

    result = one(fruit, encoders, "old apple", Lengths(), min_score=16.0)

    assert [hit.id for hit in result] == ["e", "b"]


@pytest.mark.parametrize(("value", "error"), [("1", TypeError), (True, TypeError), (float("nan"), ValueError)])
def test_a_min_score_is_a_number(value, error):
    """Nothing is compared with a text or with NaN."""
    with pytest.raises(error, match="min_score"):
        SearchOptions(min_score=value)
