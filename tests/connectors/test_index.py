"""Index: a collection opened again answers as before, and never with another model than its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from st_connectors import Index
from st_connectors.errors import NotFound, SchemaMismatch, StoreError
from st_connectors.filters import Eq
from st_connectors.index import Split
from st_connectors.ingest import Document
from st_connectors.registry import collections, open_store
from st_connectors.schema import DenseField, FilterKind, Metric, Rrf, SparseField, TextField, Weighted
from st_connectors.store import Parts
from st_core import SentenceTransformer, SparseEncoder
from st_core.builtin import HYBRID_WEIGHTS
from st_core.errors import ModelNotFound

BOOKS = [
    {"id": "sea", "text": "an ageing fisherman struggles with a giant marlin", "year": 1952},
    {"id": "submarine", "text": "a voyage in a submarine under the ocean", "year": 1870},
    {"id": "time", "text": "a traveller visits the far future", "year": 1895},
]
NAMES = {"dense": "builtin:dense", "sparse": "builtin:sparse"}
BUILTIN: dict[str, Any] = {"dense": SentenceTransformer("builtin:dense"), "sparse": SparseEncoder("builtin:sparse")}
"""Loaded once; a collection remembers them by their names all the same."""


@pytest.fixture(params=["memory:{node}", "qdrant+edge:{folder}/store"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address of this test alone, in memory and embedded."""
    return request.param.format(node=request.node.nodeid, folder=tmp_path)


@pytest.fixture
def here(request: pytest.FixtureRequest) -> str:
    """An address in memory, of this test alone."""
    return f"memory:{request.node.nodeid}"


def books(url: str, **options: Any) -> Index:
    index = Index.create(url, collection="books", filterable={"year": "int"}, **(BUILTIN | options))
    assert index.ingest(BOOKS).confirmed == 3
    return index


def test_an_index_opened_again_answers_as_before(url):
    """Opening needs no model names: the same hits with the same scores and legs."""
    with books(url) as index:
        before = index.search("fishing on the ocean").to_json()

    with Index.open(url, collection="books") as again:
        assert again.search("fishing on the ocean").to_json() == before
        assert before["hits"][0]["id"] in {"sea", "submarine"}
        assert {name: ref.name for name, ref in again.schema.models.items()} == NAMES


def test_creating_again_keeps_what_is_there(url):
    """Create is idempotent where the schema is the same."""
    with books(url):
        pass

    with Index.create(url, collection="books", filterable={"year": "int"}, **NAMES) as again:
        assert again.count() == 3


def test_creating_something_else_under_the_same_name_is_a_mismatch(url):
    """Another filterable field is another schema, and the records stay."""
    with books(url):
        pass

    with pytest.raises(SchemaMismatch, match="year"):
        Index.create(url, collection="books", filterable={"year": "keyword"}, **BUILTIN)
    with Index.open(url, collection="books") as index:
        assert index.count() == 3


def test_a_misspelt_name_is_not_found_and_makes_nothing(url):
    """Open never creates."""
    with books(url):
        pass

    with pytest.raises(NotFound, match="boks"):
        Index.open(url, collection="boks")
    assert collections(url) == ["books"]


def test_the_built_in_pair_is_fused_by_its_measured_weights(here):
    """The default fusion of the two built-in models is the one measured for them.

    Any other pair, or a text leg, has none.
    """
    assert books(here).schema.fusion == Weighted(HYBRID_WEIGHTS)
    assert Index.create(here, collection="own", **BUILTIN, fusion=Rrf(10)).schema.fusion == Rrf(10)
    assert Index.create(here, collection="text", **BUILTIN, text=True).schema.fusion is None
    assert Index.create(here, collection="one", dense="builtin:dense").schema.fusion is None


def test_the_schema_follows_the_models(here, words):
    """Fields, dimension, metric and filterable kinds come from what was asked for."""
    index = Index.create(
        here,
        collection="c",
        dense="builtin:dense",
        sparse=words,
        text=True,
        filterable={"a": "int", "b": FilterKind.DATE},
    )

    assert dict(index.schema.fields) == {
        "dense": DenseField(256, Metric.COSINE),
        "sparse": SparseField(),
        "text": TextField(),
    }
    assert dict(index.schema.filterable) == {"a": FilterKind.INT, "b": FilterKind.DATE}


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_the_metric_is_the_models_own(here, letters, metric):
    """A model that is compared by another similarity is searched by it."""
    letters.similarity_fn_name = metric

    index = Index.create(here, collection="c", dense=letters)

    assert index.schema.fields["dense"] == DenseField(16, Metric(metric))


def test_a_similarity_no_store_has_is_an_error(here, letters):
    """Manhattan distance cannot be searched by; the error says what can."""
    letters.similarity_fn_name = "manhattan"

    with pytest.raises(ValueError, match="'manhattan'; stores compare by cosine, dot, euclidean"):
        Index.create(here, collection="c", dense=letters)


def test_an_index_needs_a_leg(here):
    """Nothing to search by is an error, not an empty collection."""
    with pytest.raises(ValueError, match="pass dense=, sparse= or text=True"):
        Index.create(here, collection="c")
    assert collections(here) == []


def test_a_text_index_needs_no_model(here):
    """A collection with only a text leg is filled and searched without any encoder."""
    with Index.create(here, collection="c", text=True) as index:
        index.ingest(BOOKS)
        assert [hit.id for hit in index.search("submarine")] == ["submarine"]


def test_another_dimension_is_a_mismatch_whatever_is_trusted(url, letters):
    """The error names both models and both dimensions."""
    with books(url):
        pass

    for trust in (False, True):
        with pytest.raises(
            SchemaMismatch, match=r"'builtin:dense', dense of dimension 256; 'letters' is dense of dimension 16"
        ):
            Index.open(url, collection="books", dense=letters, trust_model=trust)


def test_another_fingerprint_is_a_mismatch_that_says_which_part(url):
    """The same weights with other prompts give other vectors; trust_model overrides."""
    other = SentenceTransformer("builtin:dense", prompts={"document": "passage: "})
    with books(url):
        pass

    with pytest.raises(SchemaMismatch, match=r"'builtin:dense', .* differs in prompts"):
        Index.open(url, collection="books", dense=other)
    with Index.open(url, collection="books", dense=other, trust_model=True) as index:
        assert index.search("ocean").hits


def test_the_same_model_is_accepted_under_any_path(url, tmp_path):
    """What counts is the model, not where it lies."""
    from st_core import builtin

    (tmp_path / "copy").symlink_to(builtin.path("dense"))
    with books(url) as index:
        before = index.search("ocean").to_json()

    with (
        warnings.catch_warnings(action="error"),
        Index.open(url, collection="books", dense=str(tmp_path / "copy")) as again,
    ):
        assert again.search("ocean").to_json() == before


def test_a_model_is_found_again_from_another_folder(url, tmp_path, monkeypatch):
    """A relative path is remembered whole."""
    from st_core import builtin

    (tmp_path / "model").symlink_to(builtin.path("dense"))
    monkeypatch.chdir(tmp_path)
    with books(url, dense="./model", sparse=None) as index:
        before = index.search("ocean").to_json()
    monkeypatch.chdir("/")

    with Index.open(url, collection="books") as again:
        assert again.schema.models["dense"].name == str(tmp_path / "model")
        assert again.search("ocean").to_json() == before


def test_a_model_that_changed_since_is_a_mismatch_when_it_is_used(here):
    """A remembered name whose weights are others now is not searched with; what needs no model still works."""
    with books(here) as index:
        schema, records = index.schema, list(index.store.scan())
    stale = replace(
        schema.models["dense"], fingerprint=dict(schema.models["dense"].fingerprint) | {"weights": "0" * 32}
    )
    store = open_store(here, "old", replace(schema, collection="old", models={**schema.models, "dense": stale}))
    store.create()
    assert store.upsert(records) == []

    with Index.open(here, collection="old") as index:
        assert index.count("year > 1880") == 2
        assert index.search("ocean", mode="sparse").hits
        with pytest.raises(SchemaMismatch, match="which has changed since: it differs in weights"):
            index.search("ocean")
    with Index.open(here, collection="old", trust_model=True) as index:
        assert index.search("ocean").hits


def test_the_number_of_active_dimensions_is_remembered(url):
    """The stored model keeps as many weights as the model that filled the collection, in queries and documents."""
    model = SparseEncoder("builtin:sparse", max_active_dims=3)
    with books(url, dense=None, sparse=model) as index:
        before = index.search("fishing on the wide ocean in a small boat").to_json()

    with Index.open(url, collection="books") as again:
        assert again.schema.models["sparse"].max_active_dims == 3
        assert again.search("fishing on the wide ocean in a small boat").to_json() == before
        again.ingest([{"id": "more", "text": "an ageing fisherman struggles with a giant marlin"}])
        assert {len(record.vectors["sparse"]) for record in again.get(["sea", "more"], parts=Parts.ALL)} == {3}


@pytest.mark.parametrize(("then", "now"), [(3, None), (None, 3), (3, 4)])
def test_another_number_of_active_dimensions_is_a_mismatch(here, then, now):
    """It is compared, and the message has both numbers; an object with the same number is accepted."""
    made, other = (SparseEncoder("builtin:sparse", max_active_dims=number) for number in (then, now))
    with books(here, dense=None, sparse=made):
        pass

    says = rf"differs in max_active_dims \({then} then, {now} now\)"
    with pytest.raises(SchemaMismatch, match=says):
        Index.open(here, collection="books", sparse=other)
    Index.open(here, collection="books", sparse=other, trust_model=True).close()
    Index.open(here, collection="books", sparse=made).close()
    with pytest.raises(SchemaMismatch, match="differs from builtin:sparse in its max_active_dims"):
        books(here, dense=None, sparse=other)


def test_a_truncated_model_is_opened_by_its_name(url):
    """The width is part of the reference, so that the name alone suffices."""
    with books(url, dense=SentenceTransformer("builtin:dense", truncate_dim=64), sparse=None) as index:
        before = index.search("ocean").to_json()

    with Index.open(url, collection="books") as again:
        assert again.schema.fields["dense"] == DenseField(64)
        assert again.search("ocean").to_json() == before


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the dense built-in model, which the test moves, and the place to which it moves."""
    from st_core import builtin

    shutil.copytree(builtin.path("dense"), tmp_path / "old")
    return tmp_path / "old", tmp_path / "new"


def test_a_model_that_has_moved_is_passed_or_recorded_anew(url, moved):
    """The error says both ways; after the second one the name alone suffices."""
    old, new = moved
    with books(url, dense=str(old), sparse=None) as index:
        before = index.search("ocean").to_json()
    old.rename(new)

    with (
        Index.open(url, collection="books") as index,
        pytest.raises(
            ModelNotFound, match=r"'books' records this name .* dense= \(--dense\), .* st-connectors relocate"
        ),
    ):
        index.search("ocean")
    with Index.open(url, collection="books", dense=str(new)) as index:
        assert index.search("ocean").to_json() == before
    with Index.open(url, collection="books") as index:
        index.relocate(dense=str(new))
        assert index.search("ocean").to_json() == before
    with Index.open(url, collection="books") as index:
        assert index.schema.models["dense"].name == str(new)
        assert index.search("ocean").to_json() == before


def test_another_model_is_not_recorded_as_the_one_that_moved(url, moved):
    """The fingerprint is compared, and the collection stays as it was."""
    old, _ = moved
    with books(url, dense="builtin:dense", sparse=None) as index:
        stored = index.schema
    settings = old / "config_sentence_transformers.json"
    settings.write_text(
        json.dumps(json.loads(settings.read_text("utf-8")) | {"prompts": {"document": "other: "}}), "utf-8"
    )

    with Index.open(url, collection="books") as index:
        with pytest.raises(SchemaMismatch, match=r"and '.*old' differs in prompts"):
            index.relocate(dense=str(old))
        with pytest.raises(ValueError, match="'books' records no reranker model; it records dense"):
            index.relocate(reranker=str(old))
        assert index.schema == stored


def test_an_object_must_be_handed_in_again(url, letters, words):
    """A collection filled by a model object cannot load it by name; following the error's advice works."""
    with Index.create(url, collection="c", dense=letters, sparse=words) as index:
        index.ingest([{"id": "a", "text": "red apple"}, {"id": "b", "text": "old boat"}])
        before = index.search("apple").to_json()

    with pytest.raises(ModelNotFound, match=r"made by an object \(letters\).*Index\.open\(…, dense=encoder\)"):
        Index.open(url, collection="c")
    with pytest.warns(UserWarning, match="whether 'letters' is"), pytest.warns(UserWarning, match="whether 'words' is"):
        again = Index.open(url, collection="c", dense=letters, sparse=words)
    assert again.search("apple").to_json() == before
    again.close()


def test_a_model_for_a_field_that_is_not_there_is_an_error(here):
    """The collection's fields are named."""
    Index.create(here, collection="c", dense="builtin:dense")

    with pytest.raises(ValueError, match=r"unknown field sparse; collection .* has dense"):
        Index.open(here, collection="c", sparse="builtin:sparse")


def test_an_unknown_model_makes_no_collection(url):
    """The models are looked for first."""
    with pytest.raises(ModelNotFound, match="builtin:nope"):
        Index.create(url, collection="c", dense="builtin:nope")
    assert collections(url) == []


@pytest.mark.parametrize("where", ["year >= 1890", Eq("year", 1895), None])
def test_where_is_text_or_a_filter(here, where):
    """Both mean the same in search and count."""
    index = books(here)

    expected = {"year >= 1890": {"sea", "time"}, Eq("year", 1895): {"time"}, None: {"sea", "submarine", "time"}}[where]
    assert {hit.id for hit in index.search("a voyage", where=where)} == expected
    assert index.count(where) == len(expected)


NESTED = [{**book, "meta": {"year": book["year"], "tags": [book["id"], "book"]}} for book in BOOKS]


def test_fields_inside_objects_are_filterable(url):
    """By their path, with the kinds and operators of other fields; a value of another kind is refused."""
    with Index.create(url, collection="c", filterable={"meta.year": "int", "meta.tags": "keyword"}, **BUILTIN) as index:
        report = index.ingest([*NESTED, {"id": "odd", "text": "a book", "meta": {"year": "long ago"}}])

        assert (report.confirmed, report.refused_total) == (3, 1)
        assert "payload['meta.year'] is filterable as int" in report.refused[0].reason
        assert [hit.id for hit in index.search("a voyage", where="meta.year < 1880")] == ["submarine"]
        assert index.count('meta.tags = "book" and meta.year >= 1890') == 2
        assert index.count("not meta.year exists") == 0


def test_alter_adds_fields_a_reranker_and_a_fusion(url):
    """For the open index and for one opened later, and for records that were stored before."""
    with books(url) as index:
        index.ingest(NESTED)
        before = index.search("ocean").to_json()
        with pytest.raises(ValueError, match=r"'meta\.year' is not filterable"):
            index.count("meta.year > 1880")

        index.alter(filterable={"meta.year": "int"}, fusion=Rrf(10, (1.0, 3.0)), reranker=Backwards())

        assert index.count("meta.year > 1880") == 2
        assert index.search("ocean", rerank=True).hits[0].retrieved is not None
        changed = index.search("ocean", where="meta.year > 1880").to_json()
    with Index.open(url, collection="books") as again:
        assert again.schema.fusion == Rrf(10, (1.0, 3.0))
        assert again.schema.models["reranker"].name == "backwards"
        assert again.search("ocean", where="meta.year > 1880").to_json() == changed
        again.alter(fusion=Weighted(HYBRID_WEIGHTS))
        assert again.search("ocean").to_json() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"filterable": {"year": "keyword"}}, "has the filterable field 'year' of kind int"),
        ({"filterable": {"id": "keyword"}}, "'id' cannot be filterable: the id of a document is not in its payload"),
        ({"filterable": {"_chunk": "keyword"}}, r"Its keys can, such as '_chunk\.parent'"),
        ({"filterable": {"text": "bool"}}, "'text' cannot be filterable as bool: it is the text of a document"),
        ({"fusion": Rrf(60, (1.0,))}, "the fusion has 1 weight for 2 legs"),
        ({"quantization": "int4"}, "unknown quantization 'int4'; expected one of none, int8, binary"),
    ],
)
def test_what_alter_refuses(url, change, says):
    """A change that no store can make is a ValueError, and nothing has changed."""
    with books(url) as index:
        before = index.schema
        with pytest.raises(ValueError, match=says):
            index.alter(**change)
        assert index.schema == before


@pytest.mark.parametrize("documents", ["books.jsonl", b"x", BOOKS[0], Document("a", "red"), None, 5])
def test_what_is_no_list_of_documents_is_not_taken_apart(here, documents):
    """A path or one document would be read letter by letter, each letter refused."""
    with books(here) as index:
        with pytest.raises(TypeError, match=f"documents must be an iterable of .*, not {type(documents).__name__}"):
            index.ingest(documents)
        assert index.count() == 3


@pytest.mark.parametrize("field", ["id", "_chunk"])
def test_a_field_that_no_document_can_have_is_refused_at_create(url, field):
    """A filter on it would match nothing, whatever is ingested; keys inside the windows' object can be had."""
    with pytest.raises(ValueError, match=f"'{field}' cannot be filterable"):
        Index.create(url, collection="books", filterable={field: "keyword"}, **BUILTIN)
    with pytest.raises(NotFound):
        Index.open(url, collection="books")

    with Index.create(
        url, collection="c", filterable={"_chunk.parent": "keyword", "text": "keyword"}, **BUILTIN
    ) as index:
        report = index.ingest(
            [{"id": "long", "text": LONG}, {"id": "short", "text": "an eruption"}], split=Split(tokens=40)
        )
        assert index.count('_chunk.parent = "long"') == report.records - 1 > 1
        assert [hit.id for hit in index.search("sea", where='text = "an eruption"')] == ["short"]


def test_filterable_is_a_mapping(here):
    """Names alone say nothing of their kinds."""
    with pytest.raises(TypeError, match=r"filterable must be a mapping such as .*, not list"):
        Index.create(here, collection="x", filterable=["year"], **BUILTIN)


def test_a_fusion_is_no_name(here):
    """What the command line writes as text is a value here, in a schema and in a search."""
    says = "expected a fusion, Rrf or Weighted of st_connectors.store, not 'rrf'"
    with pytest.raises(TypeError, match=says):
        Index.create(here, collection="x", fusion="rrf", **BUILTIN)
    with books(here) as index, pytest.raises(TypeError, match=says):
        index.search("sea", fusion="rrf")


@pytest.mark.parametrize("weights", [(1.0,), (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("method", [Weighted, lambda weights: Rrf(60, weights)])
def test_a_fusion_has_a_weight_for_each_leg(here, method, weights):
    """Seen before anything is made, not at the first search."""
    count = len(weights)
    with pytest.raises(ValueError, match=f"the fusion has {count} weights? for 2 legs: dense, sparse"):
        Index.create(here, collection="x", fusion=method(weights), **BUILTIN)
    with pytest.raises(NotFound):
        Index.open(here, collection="x")


def test_a_reranker_is_no_name(here):
    """A name is given when the index is opened."""
    with books(here) as index, pytest.raises(TypeError, match="True, False or a model with predict, not 'org/model'"):
        index.search("sea", rerank="org/model")


@pytest.mark.parametrize("value", [True, 128])
def test_split_is_a_split(here, value):
    """A number or a yes does not say how."""
    with books(here) as index, pytest.raises(TypeError, match=rf"split must be a Split .*, not {value}"):
        index.ingest(BOOKS, split=value)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tokens": 0}, ValueError, "tokens must be at least 1, not 0"),
        ({"overlap": -1}, ValueError, "overlap must be at least 0, not -1"),
        ({"tokens": "64"}, TypeError, "tokens must be an integer, not '64'"),
        ({"overlap": None}, TypeError, "overlap must be an integer, not None"),
    ],
)
def test_windows_that_cannot_be(options, error, says):
    """They are refused where they are written, not at the first long text."""
    with pytest.raises(error, match=says):
        Split(**options)


@pytest.mark.parametrize("batch", ["5", None, 2.0])
def test_a_batch_is_a_number(here, batch):
    """Anything else is a TypeError that says what came."""
    with books(here) as index, pytest.raises(TypeError, match=f"batch must be an integer, not {batch!r}"):
        index.ingest(BOOKS, batch=batch)


def test_many_questions_may_be_any_iterable(here):
    """A generator is read once, for all fields."""
    questions = ["fishing", "travel in time"]
    with books(here) as index:
        listed = [result.to_json() for result in index.search_many(questions)]
        assert [result.to_json() for result in index.search_many(question for question in questions)] == listed


def test_an_address_is_a_string(tmp_path):
    """A path has no scheme."""
    with pytest.raises(TypeError, match="an address must be a string such as qdrant"):
        Index.open(tmp_path, collection="x")


def test_a_place_in_memory_is_no_server():
    """``memory://a`` and ``memory://b`` would be one place, since neither has a name."""
    with pytest.raises(ValueError, match="write memory:NAME, without //, not memory://a"):
        Index.create("memory://a", collection="x", text=True)


def test_many_questions_are_one_by_one(here):
    """search_many gives what search gives."""
    index = books(here)

    many = index.search_many(["ocean", "future"], limit=2)

    assert [result.to_json() for result in many] == [index.search(q, limit=2).to_json() for q in ("ocean", "future")]
    with pytest.raises(TypeError, match="a list of queries"):
        index.search_many("ocean")


def test_an_unknown_mode_names_the_modes(here):
    """As ValueError, before anything is loaded."""
    with pytest.raises(ValueError, match="unknown mode 'fuzzy'; expected one of dense, sparse, text, hybrid"):
        books(here).search("ocean", mode="fuzzy")


class Backwards:
    """Prefers what comes late in the alphabet."""

    name = "backwards"

    def predict(self, inputs: list[tuple[str, str]], /) -> np.ndarray:
        return np.array([float(ord(text[-1])) for _, text in inputs])


def test_a_reranker_is_the_indexs_or_any_object(here):
    """True is the index's own; an object serves as it is; one that cannot be loaded by name must be given again."""
    expected = sorted((-float(ord(book["text"][-1])), book["id"]) for book in BOOKS)
    index = books(here, reranker=Backwards())

    assert [(-hit.score, hit.id) for hit in index.search("a voyage", rerank=True)] == expected
    assert [(-hit.score, hit.id) for hit in index.search("a voyage", rerank=Backwards())] == expected
    with pytest.raises(ValueError, match="this index has no reranker"):
        Index.open(here, collection="books").search("a voyage", rerank=True)
    again = Index.open(here, collection="books", reranker=Backwards())
    assert [(-hit.score, hit.id) for hit in again.search("a voyage", rerank=True)] == expected


def test_get_and_delete_by_id(url):
    """Get keeps the order asked; delete takes whole documents and is silent about absent ones."""
    with books(url) as index:
        assert [(record.id, record.payload["year"]) for record in index.get(["time", "nope", "sea"])] == [
            ("time", 1895),
            ("sea", 1952),
        ]
        assert index.get(["sea"], parts=Parts.ALL)[0].vectors.keys() == {"dense", "sparse"}
        index.delete(["sea", "nope"])
        assert index.count() == 2
        for call in (index.get, index.delete):
            with pytest.raises(TypeError, match=r"ids must be a list of ids; for one, \['sea'\]"):
                call("sea")


def test_drop_removes_the_collection(url):
    """Afterwards it cannot be opened."""
    with books(url) as index:
        index.drop()

    with pytest.raises(NotFound):
        Index.open(url, collection="books")


LONG = (
    " ".join(f"Sentence number {n} is about the sea." for n in range(60)) + " The very last words speak of volcanoes."
)


def test_long_texts_are_split_by_the_models_tokens(url):
    """Windows overlap, cover the text, hold at most the tokens asked for, and fold back to their document.

    Delete takes them all.
    """
    tokenizer = SentenceTransformer("builtin:dense").tokenizer
    with Index.create(url, collection="c", **BUILTIN) as index:
        report = index.ingest(
            [{"id": "long", "text": LONG}, {"id": "short", "text": "an eruption"}], split=Split(tokens=40, overlap=8)
        )

        records = {record.id: record for record in index.store.scan()}
        windows = sorted(
            (r.payload["_chunk"]["start"], r.payload["_chunk"]["end"])
            for r in records.values()
            if "_chunk" in r.payload
        )
        assert (report.confirmed, report.split, report.records, report.cut) == (2, 1, len(records), 0)
        assert windows[0][0] == 0
        assert windows[-1][1] == len(LONG)
        assert all(later[0] <= earlier[1] for earlier, later in pairwise(windows))
        assert (
            max(len(tokenizer.encode(r.payload["text"], add_special_tokens=False).ids) for r in records.values()) <= 40
        )

        best = index.search("volcanoes", mode="sparse", fold=True)[0]
        assert best.id == "long"
        assert "volcanoes" in best.payload["text"]
        assert len(index.search("sea", mode="sparse", fold=True)) == 1

        index.delete(["long"])
        assert [record.id for record in index.store.scan()] == ["short"]


def two_special_tokens() -> Tokenizer:
    """A tokenizer of words that puts one token in front of a text and one behind it."""
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "sea": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


class Limited:
    """Takes eight tokens, special ones included, and shows its tokenizer."""

    name = "limited"
    max_seq_length = 8
    tokenizer = two_special_tokens()

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        return np.array([[1.0, text.count("sea")] for text in inputs])

    encode_query = encode_document


def test_cut_texts_are_counted_by_tokens(here):
    """Six words and two special tokens fit a limit of eight; seven do not."""
    index = Index.create(here, collection="c", dense=Limited())

    report = index.ingest({"id": str(n), "text": "sea " * n} for n in range(1, 10))

    assert report.cut == 3


def test_windows_the_model_would_cut_are_refused(here):
    """Asking for windows longer than the model takes is an error that says how long they may be."""
    index = Index.create(here, collection="c", dense=Limited())

    with pytest.raises(ValueError, match="windows of 7 tokens would be cut: the model reads 6"):
        index.ingest([], split=Split(tokens=7))


def test_splitting_needs_a_tokenizer(here, letters):
    """An encoder that shows none cannot split."""
    index = Index.create(here, collection="c", dense=letters)

    with pytest.raises(ValueError, match="no model has a tokenizer"):
        index.ingest([], split=Split())


def test_async_methods_do_the_same(here):
    """The asynchronous methods give the synchronous ones' answers."""

    async def use() -> tuple[Any, ...]:
        index = Index.create(here, collection="c", **BUILTIN)
        report = await index.aingest(BOOKS)
        results = await asyncio.gather(*(index.asearch(query, limit=1) for query in ("ocean", "future")))
        many = await index.asearch_many(["ocean"], limit=1)
        records = await index.aget(["sea"])
        await index.adelete(["sea"])
        return report, results, many, records, await index.acount()

    report, results, many, records, left = asyncio.run(use())

    index = books(f"{here}2")
    assert report.confirmed == 3
    assert [result.to_json() for result in results] == [index.search(q, limit=1).to_json() for q in ("ocean", "future")]
    assert many[0].to_json() == results[0].to_json()
    assert [record.id for record in records] == ["sea"]
    assert left == 2


@pytest.mark.parametrize("place", ["memory:{node}", "qdrant+edge:{folder}/store"])
def test_a_cancelled_ingest_stores_what_it_has_read(place, request, tmp_path):
    """The await ends when nothing is written any more, so that the collection is complete up to a document."""
    url = place.format(node=request.node.nodeid, folder=tmp_path)
    read = []

    async def use() -> None:
        async with Index.create(url, collection="c", sparse="builtin:sparse") as index:
            started = asyncio.Event()
            loop = asyncio.get_running_loop()

            def endless():
                number = 0
                while True:
                    read.append(f"d{number}")
                    yield {"id": read[-1], "text": f"document {number} of the sea"}
                    number += 1

            def progress(_report):
                loop.call_soon_threadsafe(started.set)

            task = asyncio.create_task(index.aingest(endless(), batch=8, progress=progress))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stored = {record.id for record in index.store.scan()}
            assert stored == set(read)
            assert len(stored) >= 8

    asyncio.run(use())


def test_a_cancelled_delete_ends_after_the_delete(here):
    """The documents are gone when the await ends."""

    async def use() -> int:
        with books(here) as index:
            task = asyncio.create_task(index.adelete(where="true"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return index.count()

    assert asyncio.run(use()) == 0


def test_a_cancelled_search_ends_at_once_and_the_index_stays_usable(here, letters):
    """A timeout takes effect although the thread is still searching."""
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        dimension, name = letters.dimension, letters.name
        encode_document = letters.encode_document

        def encode_query(self, texts):
            entered.set()
            assert leave.wait(30)
            return letters.encode_query(texts)

    async def use() -> tuple[int, int]:
        async with Index.create(here, collection="c", dense=Slow()) as index:
            await index.aingest([{"id": "a", "text": "abc"}])
            task = asyncio.create_task(index.asearch("abc"))
            await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not leave.is_set()
            leave.set()
            return await index.acount(), len(await index.asearch("abc"))

    assert asyncio.run(use()) == (1, 1)


def test_an_async_block_closes_the_index(tmp_path):
    """Afterwards the collection can be opened by another process, here dropped and created anew."""

    async def use() -> Index:
        async with Index.create(f"qdrant+edge:{tmp_path}", collection="c", sparse="builtin:sparse") as index:
            await index.aingest(BOOKS)
        return index

    index = asyncio.run(use())
    with pytest.raises(StoreError, match="closed"):
        index.count()


def test_documents_of_aingest_are_checked_before_they_are_read(here):
    """As by ingest, a text or one document is no list."""

    async def use() -> None:
        with books(here) as index:
            await index.aingest(BOOKS[0])

    with pytest.raises(TypeError, match="iterable of mappings or Documents, not dict"):
        asyncio.run(use())
