"""Small fixed corpora of values that stores often handle incorrectly, from constants and seeded generators only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from st_connectors.schema import FilterKind
from st_connectors.store import Record
from st_core.vectors import MAX_INDEX, SparseVector

__all__ = [
    "DIMENSION",
    "FILTERABLE",
    "IDS",
    "LONG_ID",
    "PAYLOADS",
    "QUERIES",
    "SENTENCES",
    "SPARSE_QUERIES",
    "dense_vectors",
    "library",
    "probes",
    "sparse_vectors",
]

DIMENSION = 8
SIZE = 64

FILTERABLE: Mapping[str, FilterKind] = {
    "word": FilterKind.KEYWORD,
    "tags": FilterKind.KEYWORD,
    "whole": FilterKind.INT,
    "real": FilterKind.FLOAT,
    "flag": FilterKind.BOOL,
    "day": FilterKind.DATE,
}
"""The payload fields that the corpora declare as filterable."""

LONG_ID = "é" * 255 + "ab"
"""Exactly 512 bytes of UTF-8."""

IDS: Mapping[str, str] = {
    "plain": "a",
    "space-inside": "two words",
    "space-after": "a ",
    "space-before": " a",
    "upper": "A",
    "slashes": "path/to/../file",
    "url": "https://example.org/?q=1&r=%20#top",
    "composed": "\u00fcn\u00ef",
    "decomposed": "u\u0308ni\u0308",
    "emoji": "👩‍🚀🇧🇷",
    "512-bytes": LONG_ID,
    "digits": "42",
    "digits-zero": "0042",
    "negative": "-1",
    "over-64-bits": "18446744073709551616",
    "uuid": "12345678-1234-5678-1234-567812345678",
    "uuid-upper": "ABCDEF00-1234-5678-1234-567812345678",
    "uuid-lower": "abcdef00-1234-5678-1234-567812345678",
    "uuid-bare": "12345678123456781234567812345678",
    "null-word": "null",
    "quotes": 'it\'s "so" \\ `here`',
    "newline": "a\nb",
    "dots": "..",
    "underscore": "_id",
    "percent": "%41",
    "star": "a*",
    "zero-width": "a\u200b",
    "nul": "a\u0000b",
}
"""Distinct ids that a store may trim, normalise, parse or confuse with its own."""

PAYLOADS: Mapping[str, Mapping[str, Any]] = {
    "empty": {},
    "nested": {"a": {"b": {"c": [1, {"d": None}]}}, "e": [[1, 2], [], [[3]]]},
    "null": {"nothing": None, "list": [None, 1, None]},
    "empties": {"list": [], "object": {}, "text": ""},
    "booleans": {"yes": True, "no": False, "one": 1, "zero": 0},
    "one-as-float": {"whole": 1, "float": 1.0, "list": [1, 1.0, 2, 2.0], "minus": -0.0},
    "big-integers": {"most": 2**63 - 1, "least": -(2**63), "odd": 2**53 + 1},
    "floats": {"tiny": 5e-324, "huge": 1.7976931348623157e308, "tenth": 0.1, "third": 1 / 3, "million": 1e6},
    "mixed-list": {"list": [1, "1", 1.5, True, None, {"k": []}]},
    "order-of-keys": {"z": 1, "a": 2, "m": {"y": 1, "b": 2}},
    "unicode": {"ünï": "ünï", "emoji 👩‍🚀": "\u0000\u0001 \u2028 \ud7ff", "right-to-left": "שלום", "nfd": "u\u0308"},
    "keys-like-ours": {"id": "x", "_id": "y", "_st_id": "z", "st_id": 1, "_meta": {}, "vectors": [1.0], "payload": 1},
    "keys-like-theirs": {"$schema": 1, "_source": 2, "_score": 3, "version": 4, "#": 5, "__id": 6, "pk": 7, "score": 8},
    "dotted-keys": {"a.b": 1, "a": {"b": 2}, ".": 3, "a..b": 4, "[0]": 5, "": 6, " ": 7},
    "looks-like-something": {"date": "2024-02-30", "time": "12:00", "number": "1e5", "word": "NaN"},
    "long-text": {"body": "wörd " * 10_000},
    "filterable-null": {"word": None, "whole": None, "tags": []},
    "filterable-list": {"word": ["b", "a", "b"], "whole": [3, 1, 2], "flag": [True, False], "day": ["2020-01-01"]},
    "day-as-written": {"day": "2020-01-01T00:00:00.120+02:00"},
}
"""Payloads that must come back exactly as stored, including the order of keys and 1 distinct from 1.0."""

SENTENCES: Mapping[str, str] = {
    "t01": "kettle",
    "t02": "kettle kettle kettle lantern",
    "t03": "kettle lantern lantern lantern",
    "t04": "lantern marble",
    "t05": "marble nickel",
    "t06": "marble orchard",
    "t07": "marble pepper",
    "t08": "marble quartz",
    "t09": "quartz zephyr",
    "t10": "saddle timber",
    "t11": "saddle timber timber umbrella velvet walnut yonder orchard pepper kettledrum",
    "t12": "saddle",
}
"""Texts of plain words that every analyser splits alike: no stop words, no shared stems, lower case."""

_WORDS = ("amber", "birch", "cobalt", "dahlia", "ember", "fjord", "garnet", "hazel", "indigo", "jasmine")


def dense_vectors(count: int, seed: int = 7) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return float32 vectors [count, DIMENSION] of many lengths, with negative components and distinct directions."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.2, 30.0, size=(count, 1))
    return (rng.standard_normal((count, DIMENSION)) * lengths).astype(np.float32)


def sparse_vectors(count: int, seed: int = 11) -> list[SparseVector]:
    """Return vectors of 1 to 12 terms out of 60, spread up to ``MAX_INDEX``; every tenth vector has 1,000 terms."""
    rng = np.random.default_rng(seed)
    vocabulary = np.unique(np.concatenate([np.arange(20), rng.integers(100, MAX_INDEX, 38), [2**31, MAX_INDEX]]))
    vectors = []
    for row in range(count):
        choice, size = (40_000, 1_000) if row % 10 == 9 else (vocabulary, 1 + row % 12)
        indices = rng.choice(choice, size=size, replace=False)
        vectors.append(SparseVector.from_arrays(indices.astype(np.int64), rng.uniform(0.01, 4.0, indices.size)))
    return vectors


QUERIES = dense_vectors(6, seed=101)
"""Dense queries float32 [6, DIMENSION], not normalised."""

SPARSE_QUERIES: Mapping[str, SparseVector] = {
    "few-terms": SparseVector.from_mapping({0: 1.0, 3: 0.5, 7: 2.0, 11: 0.25}),
    "one-term": SparseVector.from_mapping({5: 1.5}),
    "top-of-vocabulary": SparseVector.from_mapping({MAX_INDEX: 1.0, 2**31: 0.5}),
    "thousand-terms": SparseVector.from_arrays(np.arange(0, 40_000, 40), np.linspace(0.1, 3.0, 1_000)),
    "heavy": SparseVector.from_mapping({0: 900.0, 1: 0.001, 2: 70.0}),
    "nothing-shared": SparseVector.from_mapping({41_000: 1.0, 41_001: 1.0}),
}
"""Sparse queries; the last one shares no term with any record."""


def library(*, lacking: bool) -> list[Record]:
    """Return the main corpus: SIZE records with a dense vector, a sparse vector, a text and filterable payload.

    With ``lacking``, every seventh record has no sparse vector and every eleventh no dense vector.
    """
    dense, sparse = dense_vectors(SIZE), sparse_vectors(SIZE)
    records = []
    for row in range(SIZE):
        vectors = {"dense": dense[row], "sparse": sparse[row]}
        if lacking and row % 7 == 6:
            del vectors["sparse"]
        if lacking and row % 11 == 10:
            del vectors["dense"]
        records.append(Record(f"book-{row:03d}", vectors, _library_payload(row)))
    return records


def _library_payload(row: int) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "text": " ".join(_WORDS[(row * step) % 10] for step in range(1, 2 + row % 4)),
        "word": _WORDS[row % 10],
        "tags": [_WORDS[row % 3], _WORDS[3 + row % 5]],
        "whole": row % 8,
        "real": row / 8,
        "flag": row % 2 == 0,
        "day": f"20{row % 30:02d}-0{1 + row % 9}-15T12:00:00Z",
    }
    if row % 5 == 4:
        del payload["word"], payload["whole"]
    if row % 6 == 5:
        payload["real"] = None
    return payload


def probes() -> list[Record]:
    """Return the corpus of the truth table: one hard case per record, all with a dense vector."""
    dense = dense_vectors(len(_PROBES), seed=23)
    return [Record(name, {"dense": dense[row]}, payload) for row, (name, payload) in enumerate(_PROBES.items())]


_PROBES: Mapping[str, Mapping[str, Any]] = {
    "foo": {"word": "foo"},
    "foobar": {"word": "foobar"},
    "foo bar": {"word": "foo bar"},
    "FOO": {"word": "FOO"},
    "padded": {"word": " foo "},
    "umlaut": {"word": "\u00fcn\u00ef"},
    "plain-umlaut": {"word": "uni"},
    "split-umlaut": {"word": "u\u0308ni\u0308"},
    "quotes": {"word": 'it\'s "so" \\ % _ * ? $'},
    "long": {"word": "x" * 9_000},
    "no-text": {"word": ""},
    "word-null": {"word": None},
    "word-missing": {"other": "foo"},
    "list": {"word": ["foo", "qux"], "whole": [1, 9], "real": [0.5, 9.5], "flag": [True, False]},
    "empty-list": {"word": [], "whole": [], "flag": [], "day": [], "real": []},
    "zero": {"whole": 0, "real": 0.0, "flag": False},
    "one": {"whole": 1, "real": 1.0, "flag": True},
    "minus": {"whole": -1, "real": -1.5},
    "two": {"whole": 2, "real": 2.5},
    "big": {"whole": 2**53},
    "big-odd": {"whole": 2**53 + 1},
    "most": {"whole": 2**63 - 1},
    "least": {"whole": -(2**63)},
    "whole-real": {"real": 3},
    "tenth": {"real": 0.1},
    "numbers-null": {"whole": None, "real": None, "flag": None, "day": None},
    "noon-utc": {"day": "2020-06-01T12:00:00Z"},
    "noon-naive": {"day": "2020-06-01T12:00:00"},
    "noon-berlin": {"day": "2020-06-01T14:00:00+02:00"},
    "before-noon": {"day": "2020-06-01T11:59:59.999Z"},
    "day-only": {"day": "2020-06-01"},
    "old": {"day": "1969-12-31T23:59:59Z"},
    "days": {"day": ["2019-01-01", "2021-01-01"]},
}
