"""Text legs: which records match, how scores compare, and a minimum quality.

Analysers and statistics differ between stores, so scores are not compared with an oracle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from st_connectors.errors import Unsupported
from st_connectors.filters import Eq
from st_connectors.schema import DenseField, FilterKind, TextField
from st_connectors.store import Hit, Match, Parts, Record, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Pair

__all__ = ["Text"]

_GRADES: Mapping[str, Mapping[str, int]] = {
    "kettle lantern": {"t02": 2, "t03": 2, "t01": 1, "t04": 1},
    "marble quartz": {"t08": 2, "t09": 1, "t05": 1, "t06": 1, "t07": 1, "t04": 1},
    "saddle timber": {"t10": 2, "t11": 1, "t12": 1},
    "zephyr": {"t09": 1},
}
"""Relevance grades by query: 2 for texts with both words, 1 for texts with one."""

_WITHOUT_WORDS: Mapping[str, str] = {
    "empty": "",
    "blank": "   ",
    "newline": "\n",
    "punctuation": "!?",
    "emoji": "👩‍🚀",
    "unknown-word": "absent",
}
_SYNTAX: Mapping[str, str] = {
    "backslash": "kettle\\",
    "quote": '"kettle',
    "operators": "kettle AND (",
    "field": "kettle:",
    "signs": "+kettle -",
    "fuzzy": "kettle~1 /",
    "star": "kettle*",
    "braces": "{kettle}",
}


class Text(Group):
    """BM25, the store's own or client-side."""

    def _texts(self, lab: Lab) -> Pair:
        lab.need(lab.capabilities.text, "text")
        vectors = corpus.dense_vectors(len(corpus.SENTENCES) + 2, seed=41)
        payloads: list[dict[str, Any]] = [
            {"text": text, "even": row % 2 == 0} for row, text in enumerate(corpus.SENTENCES.values())
        ]
        payloads += [{"title": "kettle"}, {"text": ""}]
        names = [*corpus.SENTENCES, "without", "empty"]
        records = [
            Record(name, {"dense": vector}, payload)
            for name, vector, payload in zip(names, vectors, payloads, strict=True)
        ]
        schema = lab.schema(
            {"dense": DenseField(corpus.DIMENSION), "text": TextField()}, filterable={"even": FilterKind.BOOL}
        )
        return lab.keep("texts", lambda: lab.pair(schema, records))

    def _search(self, pair: Pair, text: str, **options: object) -> list[Hit]:
        return pair.store.search([pair.near(Match("text", text), **options)])[0]

    @pytest.mark.parametrize("query", sorted({*" ".join(corpus.SENTENCES.values()).split(), *_GRADES, "absent"}))
    def test_matching_texts_are_those_with_a_word_of_the_query(self, lab: Lab, query: str) -> None:
        """Exactly the records whose text contains a word of the query match; similar and longer words do not."""
        hits = self._search(self._texts(lab), query, limit=100)
        wanted = {name for name, text in corpus.SENTENCES.items() if set(query.split()) & set(text.split())}
        assert {hit.id for hit in hits} == wanted
        assert len(hits) == len(wanted)
        assert all(hit.score > 0 for hit in hits)
        assert [(-hit.score, hit.id) for hit in hits] == sorted((-hit.score, hit.id) for hit in hits)

    def test_more_frequent_words_count_more(self, lab: Lab) -> None:
        """Of two texts of equal length, the one that contains the word more often ranks first."""
        hits = {hit.id: hit.score for hit in self._search(self._texts(lab), "kettle")}
        assert hits["t02"] > hits["t03"]

    def test_rarer_words_count_more(self, lab: Lab) -> None:
        """Of two texts with one word of the query each, the one with the rarer word ranks first."""
        hits = {hit.id: hit.score for hit in self._search(self._texts(lab), "marble zephyr")}
        assert hits["t09"] > max(hits[name] for name in ("t04", "t05", "t06", "t07", "t08"))

    def test_shorter_texts_count_more(self, lab: Lab) -> None:
        """Of two texts that contain the word once, the shorter does not rank below the longer."""
        hits = {hit.id: hit.score for hit in self._search(self._texts(lab), "saddle")}
        assert hits["t12"] >= hits["t10"] >= hits["t11"]

    def test_more_words_of_the_query_count_more(self, lab: Lab) -> None:
        """A text with both words ranks above texts of the same length with one."""
        assert self._search(self._texts(lab), "quartz zephyr")[0].id == "t09"
        assert self._search(self._texts(lab), "marble pepper")[0].id == "t07"

    def test_rankings_are_good(self, lab: Lab) -> None:
        """nDCG@10 over the graded queries is at least 0.9."""
        pair = self._texts(lab)
        values = [
            _ndcg([hit.id for hit in self._search(pair, query, limit=10)], grades) for query, grades in _GRADES.items()
        ]
        assert sum(values) / len(values) >= 0.9

    @pytest.mark.parametrize("query", list(_WITHOUT_WORDS))
    def test_queries_without_a_known_word_find_nothing(self, lab: Lab, query: str) -> None:
        """Blank queries, punctuation and unknown words have no hits and are not an error."""
        assert self._search(self._texts(lab), _WITHOUT_WORDS[query], limit=100) == []

    @pytest.mark.parametrize("syntax", list(_SYNTAX))
    def test_query_syntax_is_plain_text(self, lab: Lab, syntax: str) -> None:
        """Operators of query languages are searched as plain text."""
        ids = {hit.id for hit in self._search(self._texts(lab), _SYNTAX[syntax], limit=100)}
        assert ids == {"t01", "t02", "t03"}

    def test_text_filters_come_before_the_cut(self, lab: Lab) -> None:
        """A filtered text search returns full pages of records that match both the text and the filter."""
        pair = self._texts(lab)
        wanted = {
            name for row, (name, text) in enumerate(corpus.SENTENCES.items()) if "marble" in text and row % 2 == 0
        }
        for limit in range(1, 5):
            ids = [hit.id for hit in self._search(pair, "marble", where=Eq("even", True), limit=limit)]
            assert len(set(ids)) == len(ids) == min(limit, len(wanted))
            assert set(ids) <= wanted

    def test_text_of_another_key_is_searched(self, lab: Lab) -> None:
        """A text field searches only the payload key that it names."""
        lab.need(lab.capabilities.text, "text")
        store = lab.new(lab.schema({"dense": DenseField(2), "title": TextField("heading"), "body": TextField("text")}))
        vector = corpus.dense_vectors(1)[0, :2]
        store.upsert(
            [
                Record("a", {"dense": vector}, {"heading": "kettle", "text": "marble"}),
                Record("b", {"dense": vector}, {"text": "kettle"}),
            ]
        )
        store.refresh()

        requests = [
            SearchRequest(Match(field, word), parts=Parts.NONE)
            for field in ("title", "body")
            for word in ("kettle", "marble")
        ]
        assert [[hit.id for hit in hits] for hits in store.search(requests)] == [["a"], [], ["b"], ["a"]]

    def test_as_many_words_as_declared(self, lab: Lab) -> None:
        """A text query may have as many words as the store declares; one with more is refused, not cut silently."""
        most = lab.capabilities.max_query_terms
        if not lab.capabilities.text or most is None:
            pytest.skip("the store declares no limit")
        pair = self._texts(lab)
        words = ["kettle", *(f"absent{at}" for at in range(most))]
        hits = self._search(pair, " ".join(words[:most]), limit=100)
        assert {hit.id for hit in hits} == {hit.id for hit in self._search(pair, "kettle", limit=100)}
        with pytest.raises(Unsupported):
            self._search(pair, " ".join(words))

    def test_undeclared_text_fields_are_refused(self, lab: Lab) -> None:
        """A store without text search refuses a schema with a text field."""
        lab.need(not lab.capabilities.text, "that it lacks text")
        with pytest.raises(Unsupported):
            lab.open(lab.schema({"dense": DenseField(corpus.DIMENSION), "text": TextField()})).create()


def _ndcg(ranked: list[str], grades: Mapping[str, int]) -> float:
    """Return nDCG at ten with gains 2**grade - 1 (Burges et al., ICML 2005)."""
    gain = sum((2 ** grades.get(name, 0) - 1) / math.log2(rank + 2) for rank, name in enumerate(ranked[:10]))
    best = sorted(grades.values(), reverse=True)[:10]
    return float(gain / sum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(best)))
