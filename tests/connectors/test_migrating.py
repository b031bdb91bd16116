"""Migrations to another model: they end equal to a collection encoded anew, whatever was written meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unavailable, Unsupported
from st_connectors.filters import Eq
from st_connectors.index import Index, Split
from st_connectors.ingest import FileInUseError, IngestFailed, IngestInterrupted
from st_connectors.layers.passing import Passing
from st_connectors.layers.requests import RequestChecks
from st_connectors.memory import MemoryStore
from st_connectors.migrating import AlreadyMigratedError, Migrator, drop_old, pointer
from st_connectors.registry import collections, describe_collection, open_store, stored_schema
from st_connectors.schema import Migration
from st_connectors.store import Near, Record, SearchRequest
from st_core.vectors import SparseVector


class ReversedLetters:
    """Dense: how often each of the letters p to i occurs, so [n, 8]; another model than ``letters``."""

    name = "reversed"

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        return np.array([[1 + text.count(letter) for letter in "ponmlkji"] for text in inputs], dtype=np.float32)

    encode_query = encode_document


NEW = ReversedLetters()
TEXTS = {"a": "apple pie", "b": "a boat on the sea", "c": "plum jam", "d": "an old ship"}


def vectors_of(store) -> dict[str, dict[str, list[float]]]:
    """What a store contains, by id: vectors as lists."""
    return {
        record.id: {
            name: vector.to_mapping() if isinstance(vector, SparseVector) else vector.tolist()
            for name, vector in record.vectors.items()
        }
        for record in store.scan()
    }


def encoded_anew(url: str, documents, **models) -> dict[str, dict[str, list[float]]]:
    """What a collection contains into which documents were ingested by some models."""
    with Index.create(url, collection="anew", **models) as index:
        index.ingest(documents)
        index.store.refresh()
        content = vectors_of(index.store)
        index.drop()
    return content


def documents_of(store) -> list[dict[str, object]]:
    return [{"id": record.id, **record.payload} for record in store.scan()]


EMBEDDED = {
    "memory": None,
    "qdrant+memory": "qdrant_client",
    "qdrant+edge": "qdrant_edge",
    "milvus+lite": "milvus_lite",
}


@pytest.fixture(params=EMBEDDED)
def url(request, tmp_path) -> str:
    """Return the address of each store that runs in this process."""
    if EMBEDDED[request.param]:
        pytest.importorskip(EMBEDDED[request.param])
    return f"{request.param}:{tmp_path / 'shelf'}" if "memory" not in request.param else f"{request.param}:{tmp_path}"


@pytest.fixture
def index(url, letters, words) -> Iterator[Index]:
    """Return four documents with dense and sparse vectors."""
    with Index.create(url, collection="books", dense=letters, sparse=words, filterable={"n": "int"}) as made:
        made.ingest({"id": key, "text": text, "n": at} for at, (key, text) in enumerate(TEXTS.items()))
        made.store.refresh()
        yield made
        wipe(url)


def wipe(url: str) -> None:
    """Drop every collection; the first one of a name drops the others."""
    for name in collections(url):
        with suppress(NotFound), closing(open_store(url, name)) as store:
            store.drop()


def migrated(index: Index, **changes) -> None:
    """Migrate to another dense model in one go."""
    with Migrator.start(index, **({"dense": NEW} | changes)) as migrator:
        migrator.fill(batch=2)
        migrator.switch()


def test_the_new_collection_is_that_of_an_ingest_by_the_new_model(url, index, words):
    """New dense vectors, copied sparse ones, equal payloads; the old collection is unchanged."""
    before = vectors_of(index.store)
    expected = encoded_anew(url, documents_of(index.store), dense=NEW, sparse=words)

    migrated(index)

    with opened(url, dense=NEW, sparse=words) as now:
        assert vectors_of(now.store) == expected
        assert documents_of(now.store) == documents_of(index.store)
        assert now.schema.models["dense"].name == "reversed"
        assert (now.collection, now.schema.collection) == ("books", "books~2")
        assert now.search("kiln", mode="dense", limit=1).hits[0].id == index_of_nearest(now, "kiln")
    assert vectors_of(index.store) == before


def opened(url: str, **models) -> Index:
    """Open the collection by its name; objects have no fingerprint by which to compare them."""
    return Index.open(url, collection="books", trust_model=True, **models)


def index_of_nearest(index: Index, query: str) -> str:
    """Return the id with the greatest cosine by the new model, computed here."""
    [near] = NEW.encode_query([query])
    rows = {record.id: NEW.encode_document([record.payload["text"]])[0] for record in index.store.scan()}
    cosines = {key: float(row @ near / np.linalg.norm(row) / np.linalg.norm(near)) for key, row in rows.items()}
    return max(sorted(cosines), key=lambda key: cosines[key])


def test_a_searcher_that_stays_open_stays_with_its_model(url, index, words):
    """Before, during and after a switch its hits are those of the old model; one that opens later has the new one."""
    before = [(hit.id, hit.score) for hit in index.search("boat", mode="dense").hits]
    with Migrator.start(index, dense=NEW) as migrator:
        migrator.fill()
        assert [(hit.id, hit.score) for hit in index.search("boat", mode="dense").hits] == before
        migrator.switch()

    assert [(hit.id, hit.score) for hit in index.search("boat", mode="dense").hits] == before
    with opened(url, dense=NEW, sparse=words) as now:
        assert [(hit.id, hit.score) for hit in now.search("boat", mode="dense").hits] != before


def test_writes_during_a_migration_reach_both(url, index, words):
    """What was added, replaced and deleted between two passes is in the new collection after the switch."""
    with Migrator.start(index, dense=NEW) as migrator:
        migrator.fill()
        index.ingest([{"id": "e", "text": "kiln", "n": 9}, {"id": "a", "text": "apple mash", "n": 1}])
        index.delete(["b"])
        migrator.switch()

    with opened(url, dense=NEW, sparse=words) as now:
        now.store.refresh()
        contents = {record.id: record.payload["text"] for record in now.store.scan()}
        assert contents == {"a": "apple mash", "c": TEXTS["c"], "d": TEXTS["d"], "e": "kiln"}
        assert vectors_of(now.store) == encoded_anew(url, documents_of(index.store), dense=NEW, sparse=words)


def test_a_write_that_the_switch_may_lack_is_not_reported_as_done(url, index):
    """An index that stays open raises an error, for documents and deletions, and names what to do."""
    migrated(index)

    with pytest.raises(SchemaMismatch, match=r"migrated from 'books' to 'books~2'.*open the collection again"):
        index.ingest([{"id": "e", "text": "kiln"}])
    with pytest.raises(SchemaMismatch, match="open the collection again"):
        index.delete(["a"])
    assert index.count() == 4


def test_a_switch_during_an_ingest_fails_it_at_its_end(url, index):
    """The report says what was stored, and the error that it must be repeated."""

    def documents():
        yield {"id": "e", "text": "kiln"}
        migrated(index)

    with pytest.raises(IngestFailed, match="open the collection again and repeat it") as caught:
        index.ingest(documents())
    assert caught.value.report.confirmed == 1


def test_writes_wait_for_a_switch(url, index, monkeypatch):
    """While the last pass runs, an ingest that ends raises a temporary error."""
    failures = []
    complete = Migrator._check_complete

    def check(self):
        with pytest.raises(Unavailable, match="repeat it in a moment"):
            index.delete(["nothing"])
        failures.append(1)
        complete(self)

    monkeypatch.setattr(Migrator, "_check_complete", check)
    migrated(index)
    assert failures == [1]


def test_back_returns_with_what_was_written_since(url, index, letters, words):
    """The old collection gets the changes, encoded by its model; the same migration again leads forward."""
    migrated(index)
    with opened(url, dense=NEW, sparse=words) as now:
        now.ingest([{"id": "e", "text": "kiln", "n": 4}])
        now.delete(["a"])
        with Migrator.back(now, dense=letters, sparse=words) as migrator:
            migrator.fill()
            migrator.switch()

    with opened(url, dense=letters, sparse=words) as again:
        assert again.schema.collection == "books"
        assert vectors_of(again.store) == encoded_anew(url, documents_of(again.store), dense=letters, sparse=words)
        assert sorted(vectors_of(again.store)) == ["b", "c", "d", "e"]
        assert again.schema.migration == Migration("books", "books", "books~2")
        with pytest.raises(ValueError, match="is undone already; run the same migration again to return to 'books~2'"):
            Migrator.back(again)
        with pytest.raises(SchemaMismatch, match="of an unfinished migration"):
            Migrator.start(again, metric="dot")
        with Migrator.start(again, dense=NEW) as migrator:
            assert migrator.fill().confirmed == 0
            migrator.switch()
    with opened(url, dense=NEW, sparse=words) as forward:
        assert forward.schema.migration is not None
        with pytest.raises(AlreadyMigratedError, match="'books' has these models and settings already"):
            Migrator.start(forward, dense=NEW)
        with Migrator.back(forward, dense=letters, sparse=words) as migrator:
            migrator.switch()
    with opened(url, dense=letters, sparse=words) as again:
        assert drop_old(again) == "books~2"
        assert collections(url) == ["books"]


def test_drop_old_leaves_the_name(url, index, words):
    """The first collection becomes empty, and its name opens the new one; a second migration drops it for good."""
    migrated(index)
    with opened(url, dense=NEW, sparse=words) as now:
        assert drop_old(now) == "books"
        assert index.count() == 0
        with pytest.raises(ValueError, match="no previous collection to drop"):
            drop_old(now)
        with pytest.raises(ValueError, match="no previous collection to go back to"):
            Migrator.back(now)
        migrated(now, dense=NEW, metric="dot")
    with opened(url, dense=NEW, sparse=words) as third:
        assert (third.schema.collection, third.count()) == ("books~3", 4)
        assert drop_old(third) == "books~2"
        assert collections(url) == ["books", "books~3"]
        assert describe_collection(url, "books").name == "books~3"


def test_dropping_a_migrated_name_drops_all_of_it(url, index, words):
    """No collection is left, and the name can be created again; a collection alone is not dropped under its name."""
    migrated(index)
    with closing(open_store(url, "books~2")) as store, pytest.raises(Refused, match="drop 'books'"):
        store.drop()
    with opened(url, dense=NEW, sparse=words) as now:
        now.drop()
    assert collections(url) == []
    with pytest.raises(NotFound):
        opened(url, dense=NEW)


def test_creating_a_migrated_name_opens_it(url, index, letters, words):
    """With the schema of the new collection; the old schema is refused, and nothing is written to the old one."""
    migrated(index)
    options = {"collection": "books", "sparse": words, "filterable": {"n": "int"}}
    with Index.create(url, dense=NEW, **options) as now:
        assert (now.schema.collection, now.count()) == ("books~2", 4)
    with pytest.raises(SchemaMismatch):
        Index.create(url, dense=letters, **options)


def test_an_interrupted_fill_continues(url, index, monkeypatch):
    """Records that were written are compared and not encoded again."""
    encoded = []

    class Counting(ReversedLetters):
        def encode_document(self, inputs, /):
            encoded.extend(inputs)
            if len(encoded) == 4 + 1:  # one text was encoded to learn the dimension
                raise KeyboardInterrupt
            return super().encode_document(inputs)

    with Migrator.start(index, dense=Counting()) as migrator:
        encoded.clear()
        encoded.append("")
        with pytest.raises(IngestInterrupted):
            migrator.fill(batch=2)
    with Migrator.start(index, dense=NEW) as migrator:
        assert migrator.target.count() == 2
        report = migrator.fill()
    assert (report.confirmed, report.skipped) == (2, 2 + 4)


def test_other_settings_copy_the_vectors(url, index, letters, words):
    """Filterable fields alone need no encoder; the vectors are equal to the bit."""
    before = vectors_of(index.store)
    with Migrator.start(index, filterable={"tag": "keyword"}) as migrator:
        assert migrator._encoders() == []
        migrator.fill()
        migrator.switch()
    with opened(url, dense=letters, sparse=words) as now:
        assert vectors_of(now.store) == before
        now.ingest([{"id": "t", "text": "tea", "tag": "hot"}])
        assert now.count(Eq("tag", "hot")) == 1


@pytest.fixture
def shelf(request, letters, words) -> Iterator[Index]:
    """Return the same four documents in memory."""
    url = f"memory:{request.node.name}"
    with Index.create(url, collection="books", dense=letters, sparse=words) as made:
        made.ingest({"id": key, "text": text} for key, text in TEXTS.items())
        yield made
        wipe(url)


def test_a_new_field_can_be_added(request, letters, words):
    """A collection with dense vectors gets sparse ones too."""
    url = f"memory:{request.node.name}"
    with Index.create(url, collection="books", dense=letters) as made:
        made.ingest({"id": key, "text": text} for key, text in TEXTS.items())
        with Migrator.start(made, sparse=words) as migrator:
            migrator.fill()
            migrator.switch()
    with opened(url, dense=letters, sparse=words) as now:
        assert vectors_of(now.store) == encoded_anew(url, documents_of(now.store), dense=letters, sparse=words)
        now.drop()


def test_windows_stay_windows(request, letters):
    """A split document is encoded window by window, each from its own text; deleting it deletes all of them."""
    from st_core import SentenceTransformer, builtin

    model = SentenceTransformer(builtin.DENSE)
    url = f"memory:{request.node.name}"
    with Index.create(url, collection="books", dense=model) as made:
        made.ingest([{"id": "a", "text": "apple boat " * 200}, {"id": "b", "text": "sea"}], split=Split(50, 5))
        payloads = documents_of(made.store)
        with Migrator.start(made, dense=NEW) as migrator:
            migrator.fill()
            migrator.switch()
    with opened(url, dense=NEW) as now:
        assert documents_of(now.store) == payloads
        for record in now.store.scan():
            [row] = NEW.encode_document([record.payload["text"]])
            np.testing.assert_allclose(record.vectors["dense"], row / np.linalg.norm(row), rtol=1e-6)
        now.delete(["a"])
        assert now.count() == 1
        now.drop()


LONG = {"a": "apple boat. " * 40, "b": "plum", "c": "sea plum apple? " * 25 + "\n"}


@pytest.fixture
def split_index(url) -> Iterator[Index]:
    """Return documents in windows of up to 20 tokens."""
    with Index.create(url, collection="books", dense="builtin:dense", sparse="builtin:sparse") as made:
        made.ingest(({"id": key, "text": text, "n": [key]} for key, text in LONG.items()), split=Split(20, 4))
        made.store.refresh()
        yield made
        wipe(url)


def ingested_anew(url: str, documents, split: Split | None, **models) -> dict[str, tuple]:
    """What a collection contains into which documents were ingested with some windows."""
    with Index.create(url, collection="anew", **models) as index:
        index.ingest(documents, split=split)
        index.store.refresh()
        content = content_of(index)
        index.drop()
    return content


def content_of(index: Index) -> dict[str, tuple]:
    vectors = vectors_of(index.store)
    return {record.id: (record.payload, vectors[record.id]) for record in index.store.scan()}


BUILTIN = {"dense": "builtin:dense", "sparse": "builtin:sparse"}


def assert_same(content: dict[str, tuple], expected: dict[str, tuple]) -> None:
    """Compare payloads, and vectors but for the noise of the composition of batches."""
    assert {key: payload for key, (payload, _) in content.items()} == {
        key: payload for key, (payload, _) in expected.items()
    }
    for key, (_, vectors) in expected.items():
        np.testing.assert_allclose(content[key][1]["dense"], vectors["dense"], rtol=1e-5, atol=1e-7)
        assert content[key][1]["sparse"] == pytest.approx(vectors["sparse"], rel=1e-5)


@pytest.mark.parametrize("split", [Split(40, 0), Split(10, 5), True, False], ids=["wider", "finer", "default", "none"])
def test_other_windows_are_those_of_an_ingest(url, split_index, split):
    """The documents are joined and split anew, also those written meanwhile; --back leaves the old windows alone."""
    before = content_of(split_index)
    texts = {**LONG, "c": "only sea", "d": "a late boat. " * 30}
    with Migrator.start(split_index, split=split) as migrator:
        migrator.fill(batch=3)
        split_index.ingest([{"id": key, "text": texts[key], "n": [key]} for key in "cd"], split=Split(20, 4))
        split_index.delete(["b"])
        assert migrator.compare().overlap > 0.5
        migrator.switch(batch=3)
    documents = [{"id": key, "text": text, "n": [key]} for key, text in texts.items() if key != "b"]
    new = None if split is False else Split() if split is True else split
    with Index.open(url, collection="books") as now:
        now.store.refresh()
        assert_same(content_of(now), ingested_anew(url, documents, new, **BUILTIN))
        now.delete(["c"])
        with Migrator.back(now) as migrator:
            migrator.fill(batch=3)
            migrator.switch(batch=3)
    with Index.open(url, collection="books") as again:
        again.store.refresh()
        left = content_of(again)
        assert_same(*({key: value for key, value in each.items() if key.startswith("a")} for each in (left, before)))
        remaining = [each for each in documents if each["id"] != "c"]
        assert_same(left, ingested_anew(url, remaining, Split(20, 4), **BUILTIN))


def test_a_sync_after_a_migration_encodes_nothing(url):
    """The hashes of the old model are left out, and --back finds the documents unchanged with their hashes."""
    documents = [{"id": key, "text": text} for key, text in LONG.items()]
    with Index.create(url, collection="books", dense="builtin:dense") as index:
        index.sync(documents, split=Split(20, 4))
        migrated(index, dense=None, sparse="builtin:sparse")
    with Index.open(url, collection="books") as now:
        assert now.sync(documents, split=Split(20, 4)).unchanged == len(LONG)
        assert now.sync([*documents, {"id": "d", "text": "tea"}], split=Split(20, 4)).unchanged == len(LONG)
        with Migrator.back(now) as migrator:
            assert migrator.fill().confirmed == 1
            migrator.switch()
    with Index.open(url, collection="books") as again:
        assert again.sync(documents, delete_missing=True, split=Split(20, 4)).deleted == 1
        again.drop()


def without_texts(index: Index) -> None:
    """Remove the texts from the payloads of all records."""
    records = list(index.store.scan())
    index.store.upsert(
        [replace(each, payload={k: v for k, v in each.payload.items() if k != "text"}) for each in records]
    )
    index.store.refresh()


@pytest.mark.parametrize("split", [None, Split(10, 0)], ids=["same", "other"])
def test_texts_come_from_a_source(url, split_index, split):
    """Payloads stay without texts, vectors are those of the windows; a text in a payload wins over the source."""
    source = [{"id": key, "text": text} for key, text in LONG.items()]
    without_texts(split_index)
    split_index.ingest([{"id": "b", "text": "newer", "n": ["b"]}])
    with pytest.raises(IngestFailed, match="has no complete text"), Migrator.start(split_index, dense=NEW) as migrator:
        migrator.fill()
    with Migrator.start(split_index, dense=NEW) as migrator:
        migrator.target.drop()
    changes = {"dense": "builtin:dense", "metric": "dot", "split": split, "documents": [*source, "no document"]}
    with Migrator.start(split_index, **changes) as migrator:
        assert migrator.estimate().tokens > 0
        report = migrator.fill(batch=2)
        assert report.confirmed > 3
        assert migrator.compare().queries > 0
        migrator.switch()
    source[1]["text"] = "newer"
    documents = [{**each, "n": [each["id"]]} for each in source]
    expected = ingested_anew(url, documents, split or Split(20, 4), **BUILTIN)
    for key, (payload, _) in expected.items():
        if key != "b":
            del payload["text"]
    with Index.open(url, collection="books") as now:
        assert now.schema.fields["dense"].metric == "dot"
        content = content_of(now)
        assert content["b"][0]["text"] == "newer"
        for _, vectors in content.values():
            vectors["dense"] = (np.array(vectors["dense"]) / np.linalg.norm(vectors["dense"])).tolist()
        assert_same(content, expected)


def test_a_source_of_other_texts_is_refused(shelf):
    """A document that the source lacks is named; an iterator cannot be read twice."""
    without_texts(shelf)
    lacking = [{"id": key, "text": text} for key, text in TEXTS.items() if key != "c"]
    with Migrator.start(shelf, dense=NEW, documents=lacking) as migrator:
        with pytest.raises(IngestFailed, match="record 'c' has no complete text under 'text'"):
            migrator.fill()
        assert migrator.target.count() == 3
    with pytest.raises(TypeError, match="iterated several times: pass a list"):
        Migrator.start(shelf, dense=NEW, documents=iter(lacking))
    with pytest.raises(TypeError, match="documents must be an iterable"):
        Migrator.start(shelf, dense=NEW, documents="books.jsonl")


def test_a_document_without_all_windows_is_refused(split_index):
    """Its text is not known; a record that lacks its first window belongs to no document."""
    split_index.store.delete(["a#window-1"])
    with Migrator.start(split_index, split=True) as migrator, pytest.raises(IngestFailed, match="record 'a' has no"):
        migrator.fill()
    split_index.store.delete(["a"])
    with Migrator.start(split_index, split=True) as migrator:
        migrator.fill()
        migrator.switch()
        assert sorted(record.id for record in migrator.target.scan()) == ["b", "c"]


def test_the_estimate_is_that_of_the_sample(shelf):
    """Counts of the whole collection; the bytes are those of the vectors and payloads."""
    from st_core import SentenceTransformer, builtin

    with Migrator.start(shelf, dense=NEW) as migrator:
        estimate = migrator.estimate(sample=2)
    sparse = 8 * sum(len(set(text.split()) & {"apple", "boat", "sea"}) for text in list(TEXTS.values())[:2])
    payloads = sum(len(f'{{"text": "{text}"}}') for text in list(TEXTS.values())[:2])
    assert (estimate.records, estimate.tokens, estimate.tokens_per_second) == (4, None, None)
    assert estimate.bytes == 2 * (2 * 8 * 4 + sparse + payloads)
    model = SentenceTransformer(builtin.DENSE)
    with Migrator.start(shelf, dense=model) as migrator:
        counted = migrator.estimate()
    assert collections(shelf.address) == ["books"]
    assert counted.tokens == sum(len(each.ids) for each in model.tokenizer.encode_batch(list(TEXTS.values())))


def test_a_record_without_text_is_refused_in_one_line(shelf):
    """Before anything is switched, with its id and what to do."""
    shelf.store.upsert([Record("z", {}, {"title": "no text"})])
    with Migrator.start(shelf, dense=NEW) as migrator:
        with pytest.raises(IngestFailed, match=r"record 'z' has no complete text under 'text'.*pass the source"):
            migrator.fill()
        with pytest.raises(Refused, match="record 'z'"):
            migrator.switch()
    assert stored_schema(shelf.address, "books").migration == Migration("books", "books")


def test_a_switch_is_refused_if_the_counts_differ(shelf, monkeypatch):
    """Another program that writes to the store itself is not seen by the last pass; writes go on afterwards."""
    with Migrator.start(shelf, dense=NEW) as migrator:
        migrator.fill()

        class Losing(Passing):
            def count(self, where=None):
                return super().count(where) - 1

        monkeypatch.setattr(migrator, "_target", Losing(migrator._target))
        with pytest.raises(Refused, match="has 3 records, and 4 were to be there"):
            migrator.switch()
    shelf.delete(["a"])
    with opened(shelf.address, dense=shelf.models["dense"].load(), sparse=shelf.models["sparse"].load()) as now:
        assert now.schema.collection == "books"


def test_refusals(shelf, letters, words):
    """Nothing to change, an unfinished migration to another model, a name in the way, and a collection of another."""
    with pytest.raises(ValueError, match="nothing to migrate"):
        Migrator.start(shelf)
    with pytest.raises(ValueError, match="unknown metric 'hamming'; expected one of cosine"):
        Migrator.start(shelf, metric="hamming")
    with pytest.raises(ValueError, match="no previous collection to go back to"):
        Migrator.back(shelf)
    with Migrator.start(shelf, dense=NEW) as migrator:
        migrator.fill()
    with pytest.raises(SchemaMismatch, match=r"'books~2' is of an unfinished migration.*drop --in memory:"):
        Migrator.start(shelf, metric="dot")
    with opened(shelf.address, dense=letters, sparse=words) as same:
        migrated(same)
    with pytest.raises(SchemaMismatch, match="was migrated to 'books~2' in the meantime"):
        Migrator.start(shelf, metric="dot")
    with opened(shelf.address, dense=NEW, sparse=words) as now, pytest.raises(Refused, match="is still there"):
        Migrator.start(now, metric="dot")
    with (
        Index.open(shelf.address, collection="books~2", dense=NEW, sparse=words, trust_model=True) as direct,
        pytest.raises(Refused, match="is a collection of 'books'"),
    ):
        Migrator.start(direct, metric="dot")


def test_a_collection_of_the_users_is_not_touched(shelf, letters):
    """A collection that has the next name already is refused."""
    with Index.create(shelf.address, collection="books~2", dense=letters) as other:
        other.ingest([{"id": "mine", "text": "mine"}])
        with pytest.raises(Refused, match="'books~2' is in the way"):
            Migrator.start(shelf, dense=NEW)
        assert other.count() == 1


def test_of_two_migrations_the_second_changes_nothing(url, index, words):
    """Once the name is switched, the other one neither writes to the collection that it opens, nor switches it."""
    with Migrator.start(index, dense=NEW) as first, Migrator.start(index, dense=NEW) as second:
        second.fill()
        first.fill()
        first.switch()
        with opened(url, dense=NEW, sparse=words) as now:
            now.ingest([{"id": "late", "text": "kiln"}])
            with pytest.raises(SchemaMismatch, match="by another program in the meantime: open it again"):
                second.switch()
            with pytest.raises(IngestFailed, match="by another program in the meantime: open it again"):
                second.fill()
            assert now.count() == len(TEXTS) + 1
            now.delete(["late"])


def test_a_migration_in_another_process_is_refused(url, index, monkeypatch):
    """By the name of the collection; a store in memory belongs to one process."""
    with Migrator.start(index, dense=NEW) as first, Migrator.start(index, dense=NEW) as second:

        def fill_too(*_):
            with pytest.raises(FileInUseError, match="'books' is being migrated by another process"):
                second.fill()
            with pytest.raises(FileInUseError):
                second.switch()

        assert first.fill(progress=fill_too).confirmed == len(TEXTS)


def test_a_store_that_cannot_record_it_refuses(shelf):
    """A store that cannot alter its metadata cannot switch; the message names what it cannot change."""
    checks = RequestChecks("memory", shelf.schema, replace(shelf.store.capabilities, alterable=frozenset()))
    with pytest.raises(Unsupported, match="cannot change the migration"):
        checks.check_alteration(replace(shelf.schema, migration=Migration("books", "books~2")))


def test_an_adapter_that_cannot_read_schemas_is_connected_again(shelf, letters, words, monkeypatch):
    """Adapters of others, written before, are checked too, and a dropped collection is not."""
    monkeypatch.delattr(MemoryStore, "stored_schema")
    with opened(shelf.address, dense=letters, sparse=words) as index:
        index.ingest([{"id": "e", "text": "kiln"}])
        migrated(index)
        with pytest.raises(SchemaMismatch, match="open the collection again"):
            index.delete(["a"])
    with opened(shelf.address, dense=NEW, sparse=words) as now:
        assert now.delete(["a"]) == 1
        now.drop()
        with pytest.raises(NotFound):
            now.delete(["b"])


OPERATION = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcdefgh"), st.text("ponmabc ", min_size=1, max_size=8)),
    st.tuples(st.just("delete"), st.sampled_from("abcdefgh"), st.just("")),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATION, max_size=12), st.lists(OPERATION, max_size=6), st.integers(1, 3))
def test_any_interleaving_ends_equal_to_an_ingest_of_the_final_texts(request, letters, words, during, last, batch):
    """Each batch that is encoded is followed by a write; the reader never fails and never sees a missing record."""
    url = f"memory:{request.node.name}"
    index = Index.create(url, collection="books", dense=letters, sparse=words)
    index.ingest({"id": key, "text": text} for key, text in TEXTS.items())
    waiting = list(during)

    class Writing(ReversedLetters):
        def encode_document(self, inputs, /):
            if waiting:
                apply(index, waiting.pop(0))
            with Index.open(url, collection="books", dense=letters, sparse=words, trust_model=True) as reader:
                assert len(reader.search("apple", limit=20).hits) <= reader.count()
                assert reader.schema.collection == "books"
            return super().encode_document(inputs)

    with Migrator.start(index, dense=Writing()) as migrator:
        migrator.fill(batch=batch)
        for operation in last:
            apply(index, operation)
        waiting.clear()
        migrator.switch(batch=batch)
    with opened(url, dense=NEW, sparse=words) as now:
        assert vectors_of(now.store) == encoded_anew(url, documents_of(index.store), dense=NEW, sparse=words)
        now.drop()


def apply(index: Index, operation: tuple[str, str, str]) -> None:
    what, key, text = operation
    if what == "put":
        index.ingest([{"id": key, "text": text}])
    else:
        index.delete([key])


class Killed(BaseException):
    """The process ended: nothing that was to happen afterwards happens."""


class Mortal(Passing):
    """A store that stops at a number of changes, shared by all stores of a process."""

    def __init__(self, store, left: list[int]) -> None:
        super().__init__(store)
        self._left = left

    def _live(self) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise Killed

    def create(self):
        self._live()
        super().create()

    def upsert(self, records):
        self._live()
        return super().upsert(records)

    def delete(self, ids):
        self._live()
        super().delete(ids)

    def alter(self, schema):
        self._live()
        super().alter(schema)

    def drop(self):
        self._live()
        super().drop()


@pytest.mark.parametrize("at", range(10))
def test_a_migration_that_is_killed_is_completed_by_another(shelf, words, monkeypatch, at):
    """At each change: the name opens a complete collection, and the same migration again ends as if nothing was."""
    expected = encoded_anew(shelf.address, documents_of(shelf.store), dense=NEW, sparse=words)
    left = [at]
    real = open_store
    monkeypatch.setattr(pointer, "open_store", lambda *args, **options: Mortal(real(*args, **options), left))
    try:
        with Migrator.start(shelf, dense=NEW) as migrator:
            migrator.fill(batch=2)
            migrator.switch()
        killed = False
    except Killed:
        killed = True
    assert killed == (at < 5)  # create, two batches, the mark and the switch
    monkeypatch.undo()

    own = open_store(shelf.address, "books")
    assert own.count() == 4
    if own.schema.collection == "books":
        migrated(shelf)
    with opened(shelf.address, dense=NEW, sparse=words) as now:
        assert vectors_of(now.store) == expected
        assert now.store.search([SearchRequest(Near("dense", NEW.encode_query(["x"])[0]))])[0]


def test_a_mark_that_a_killed_migration_left_is_cleared_by_back(shelf, letters, words, monkeypatch):
    """Until then, writes raise the error that says so."""
    left = [4]
    real = open_store
    monkeypatch.setattr(pointer, "open_store", lambda *args, **options: Mortal(real(*args, **options), left))
    with Migrator.start(shelf, dense=NEW) as migrator:
        migrator.fill(batch=2)
        with pytest.raises(Killed):
            migrator.switch()
    monkeypatch.undo()

    with pytest.raises(Unavailable, match="migrate --back"):
        shelf.delete(["a"])
    with pytest.raises(ValueError, match="no previous collection"):
        Migrator.back(shelf)
    assert shelf.delete(["a"]) == 1


def test_such_a_mark_is_cleared_after_a_migration_that_was_undone_too(shelf, letters, words, monkeypatch):
    """The collection is current already, and writes go on."""
    migrated(shelf)
    with opened(shelf.address, dense=NEW, sparse=words) as now, Migrator.back(now, dense=letters, sparse=words) as back:
        back.switch()
    with opened(shelf.address, dense=letters, sparse=words) as again:
        with Migrator.start(again, dense=NEW) as migrator:
            monkeypatch.setattr(migrator, "_check_complete", Mortal(again.store, [0])._live)
            monkeypatch.setattr("st_connectors.migrating.migrator.suppress", unreachable)
            with pytest.raises(Killed):
                migrator.switch()
        monkeypatch.undo()
        with pytest.raises(Unavailable, match="migrate --back"):
            again.delete(["a"])
        with pytest.raises(ValueError, match="is undone already"):
            Migrator.back(again)
        assert again.delete(["a"]) == 1


def unreachable(*_):
    """Stand for what a process that is killed does not reach."""
    raise Killed


def test_other_errors_of_the_store_are_raised_as_they_are(shelf, monkeypatch):
    """A store that is down fails the migration, and another call continues it."""
    with Migrator.start(shelf, dense=NEW) as migrator:

        class Down(Passing):
            def upsert(self, records):
                raise Unavailable("down", store="memory", operation="upsert")

        monkeypatch.setattr(migrator, "_target", Down(migrator._target))
        with pytest.raises(IngestFailed) as caught:
            migrator.fill()
    assert isinstance(caught.value.__cause__, StoreError)
    migrated(shelf)
