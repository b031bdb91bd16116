"""Reports add up; a refusal has the document, the error's class and the place in the source."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.copying import copy
from st_connectors.errors import Refused
from st_connectors.ingest import Document, DocumentError, IngestOptions, IngestReport, Place, Refusal, ingest
from st_connectors.ingest.seen import SeenIds
from st_connectors.ingest.sources import Format, Reading, read_path, read_stream
from st_connectors.schema import FilterKind
from st_connectors.store import Rejected
from st_connectors.vectorise import FieldEncoder

COUNTS = st.integers(0, 1000)
REFUSALS = st.lists(st.builds(Refusal, COUNTS, st.text(max_size=3), st.text(max_size=3)), max_size=3).map(tuple)
FILLED = st.dictionaries(st.sampled_from(["year", "tag"]), COUNTS)
SECONDS = st.integers(0, 100).map(float)
REPORTS = st.builds(
    IngestReport, COUNTS, COUNTS, COUNTS, REFUSALS, COUNTS, COUNTS, COUNTS, COUNTS, SECONDS, COUNTS, FILLED
)


@given(REPORTS, REPORTS, REPORTS)
def test_reports_add_up(first, second, third):
    """In any grouping; an empty report changes nothing, and the refusals stay in order."""
    assert (first + second) + third == first + (second + third) == sum((second, third), first)
    assert first + IngestReport() == IngestReport() + first == first
    total = first + second
    assert (total.read, total.seconds) == (first.read + second.read, first.seconds + second.seconds)
    assert total.refused == first.refused + second.refused
    with pytest.raises(TypeError):
        first + 1


def test_the_reports_of_two_ingests_are_that_of_one(memory, encoders):
    """Documents in two halves, refused ones among them; only seconds and positions are each ingest's own."""
    documents = [{"id": str(number), "text": "red"} if number % 3 else {"id": str(number)} for number in range(10)]
    whole = ingest(memory("dense", "sparse"), documents, encoders)

    halves = [ingest(memory("dense", "sparse"), half, encoders) for half in (documents[:5], documents[5:])]

    total = halves[0] + halves[1]
    for name in ("read", "confirmed", "records", "refused_total", "cut", "split", "skipped", "replaced", "filled"):
        assert getattr(total, name) == getattr(whole, name)
    assert [refusal.id for refusal in total.refused] == [refusal.id for refusal in whole.refused]


def test_a_document_the_store_rejects_is_reported_whole(memory, encoders):
    """With its text and payload, the error's class, and where its source has it."""
    too_long = Refused("too long", store="fake", operation="upsert", status=413)
    store = memory("dense", "sparse")
    store_upsert = store.upsert
    store.upsert = lambda records: [*store_upsert(records[1:]), Rejected(0, records[0].id, too_long)]
    lines = io.BytesIO(b'{"id": "a", "text": "red", "year": 3}\n{"id": "b", "text": "sea"}\n')

    report = ingest(store, read_stream(lines, Format.JSONL, Reading(), "in.jsonl"), encoders)

    [refusal] = report.refused
    assert refusal == Refusal(0, "a", "too long", Refused, Place("in.jsonl", 1, "line"))
    assert refusal.document == Document("a", "red", {"text": "red", "year": 3})
    assert str(refusal) == "record 1 'a': in.jsonl line 1: too long"
    assert refusal.to_json() == {
        "position": 0,
        "id": "a",
        "reason": "too long",
        "error": "Refused",
        "place": {"source": "in.jsonl", "position": 1, "unit": "line"},
        "stage": "write",
        "attempts": 1,
        "status": 413,
    }
    assert pickle.loads(pickle.dumps(report)) == report


def test_a_document_an_encoder_refuses_is_reported_whole(memory, encoders):
    """The class is that of the encoder's error."""

    class Fussy:
        encode_query = encode_document = staticmethod(lambda texts: (_ for _ in ()).throw(ValueError("no")))

    report = ingest(memory("dense"), [{"id": "a", "text": "red"}], [FieldEncoder("dense", encoders[0].kind, Fussy())])

    [refusal] = report.refused
    assert (refusal.error, refusal.document, refusal.place) == (ValueError, Document("a", "red", {"text": "red"}), None)


@pytest.mark.parametrize("value", [{"id": "x"}, Document("", "text"), 7])
def test_a_value_that_is_no_document_is_reported_as_it_came(memory, encoders, value):
    """So that it can be mended and ingested again."""
    [refusal] = ingest(memory("dense", "sparse"), [value], encoders).refused

    assert (refusal.error, refusal.document) == (DocumentError, value)


def test_a_window_id_is_reported_with_its_document(memory, encoders):
    """The document that cannot be split under this id."""
    options = IngestOptions(spans=lambda text: [(0, len(text))])

    [refusal] = ingest(
        memory("dense", "sparse"), [{"id": "a#window-1", "text": "x"}], encoders, options=options
    ).refused

    assert (refusal.error, refusal.document.text) == (DocumentError, "x")


def test_a_record_that_a_copy_refuses_is_reported_whole(memory):
    """The class is the target's, the document the source's record."""
    source, target = memory("dense"), memory("dense", name="other")
    ingest(source, [{"id": "a", "text": "red"}], [])
    target.upsert = lambda records: [Rejected(0, "a", Refused("no", store="fake", operation="upsert"))]

    [refusal] = copy(source, target).refused

    assert (refusal.error, refusal.document.payload) == (Refused, {"text": "red"})


def test_sources_say_where_each_document_is(tmp_path: Path):
    """By the path, and the line or row counted from 1; a text file is a place of its own."""
    jsonl, table, text = tmp_path / "a.jsonl", tmp_path / "b.csv", tmp_path / "c.txt"
    jsonl.write_text('\n{"id": "1", "text": "x"}\nnonsense\n')
    table.write_text('id,text\n1,"two\nlines"\n2,x\n3\n')
    text.write_text("x")

    places = {
        path.name: [item.place for item in read_path(path, form, Reading())]
        for path, form in ((jsonl, Format.JSONL), (table, Format.CSV), (text, Format.TEXT))
    }

    assert places == {
        "a.jsonl": [Place(str(jsonl), 2, "line"), Place(str(jsonl), 3, "line")],
        "b.csv": [Place(str(table), line, "line") for line in (3, 4, 5)],
        "c.txt": [Place(str(text))],
    }
    assert [str(place) for place in (places["a.jsonl"][0], places["c.txt"][0])] == [f"{jsonl} line 2", str(text)]


def test_rows_of_parquet_say_where_they_are(tmp_path: Path):
    """Counted from 1."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.Table.from_pylist([{"id": 1, "text": "x"}, {"id": 2, "text": None}]), path)

    assert [item.place for item in read_path(path, Format.PARQUET, Reading())] == [
        Place(str(path), 1, "row"),
        Place(str(path), 2, "row"),
    ]


@pytest.mark.parametrize(
    ("line", "value"), [(b"nonsense\n", b"nonsense\n"), (b"[1]\n", [1]), (b'{"id": 1}\n', {"id": 1})]
)
def test_a_line_that_is_no_document_is_reported_as_far_as_it_was_read(memory, encoders, line, value):
    """Its bytes, its JSON or its row."""
    source = read_stream(io.BytesIO(line), Format.JSONL, Reading(), "in")

    [refusal] = ingest(memory("dense", "sparse"), source, encoders).refused

    assert (refusal.place, refusal.document) == (Place("in", 1, "line"), value)


@pytest.mark.parametrize("batch", [1, 7, 512])
def test_an_ingest_by_a_column_with_few_values_counts_the_replaced_documents(memory, encoders, batch):
    """Of 100 confirmed documents with 5 ids, 95 were replaced by a later one, in one batch or across batches."""
    store = memory("dense", "sparse")
    documents = [{"id": f"genre-{number % 5}", "text": "red"} for number in range(100)]

    report = ingest(store, documents, encoders, options=IngestOptions(batch=batch))

    assert (report.confirmed, report.replaced, store.count()) == (100, 95, 5)
    assert "100 of 100 documents confirmed" in str(report)
    assert "95 replaced by a later one with the same id" in str(report)


def test_a_refused_document_replaces_nothing(memory, encoders):
    """Neither a document without text nor one that was in the collection before the ingest counts as replaced."""
    store = memory("dense", "sparse")
    ingest(store, [{"id": "a", "text": "red"}], encoders)

    report = ingest(store, [{"id": "a", "text": "sea"}, {"id": "a"}, {"id": "b", "text": "red"}], encoders)

    assert (report.confirmed, report.refused_total, report.replaced) == (2, 1, 0)
    assert "replaced" not in str(report)


@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=9), max_size=30))
def test_seen_ids_count_repetitions_as_a_set_does(batches):
    """For any batches, and the arrays shrink by at least half from one to the next."""
    seen, known = SeenIds(), set()
    for batch in batches:
        expected = len(batch) - len(set(batch) - known)
        known |= set(batch)

        assert seen.add(batch) == expected
        lengths = [len(array) for array in seen._arrays]
        assert sum(lengths) == len(known)
        assert all(long >= 2 * short for long, short in itertools.pairwise(lengths))


def test_seen_ids_take_eight_bytes_each():
    """20,000 ids, in batches of 500, of which the last ten batches repeat the first."""
    seen = SeenIds()
    batches = [[f"document {batch * 500 + number}" for number in range(500)] for batch in range(40)]

    assert [seen.add(batch) for batch in batches + batches[:10]] == [0] * 40 + [500] * 10
    assert sum(array.nbytes for array in seen._arrays) == 20_000 * 8


def test_a_filterable_field_that_no_document_has_is_named(memory, encoders):
    """A misspelled one, and one whose values are all null or empty lists; refused documents do not count."""
    kinds = {
        "year": FilterKind.INT,
        "sectoin": FilterKind.KEYWORD,
        "tags": FilterKind.KEYWORD,
        "by": FilterKind.KEYWORD,
    }
    documents = [
        {"id": "1", "text": "red", "year": 0, "section": "a", "tags": [], "by": None},
        {"id": "2", "text": "red", "section": "b", "tags": None},
        {"id": "3", "by": "nobody, since it has no text"},
    ]

    report = ingest(memory("dense", "sparse", filterable=kinds), documents, encoders, options=IngestOptions(batch=1))

    assert report.filled == {"year": 1, "sectoin": 0, "tags": 0, "by": 0}
    assert report.unfilled == ("sectoin", "tags", "by")
    assert report.to_json()["unfilled"] == ["sectoin", "tags", "by"]


def test_no_filterable_field_is_named_if_nothing_was_confirmed(memory, encoders):
    """Without documents, or with refused ones only."""
    store = memory("dense", "sparse", filterable={"year": FilterKind.INT})

    for documents in ([], [{"id": "1"}]):
        assert ingest(store, documents, encoders).unfilled == ()


def test_a_field_of_one_of_two_ingests_is_filled(memory, encoders):
    """Reports add up: only what neither ingest filled is named."""
    kinds = {"year": FilterKind.INT, "tag": FilterKind.KEYWORD, "by": FilterKind.KEYWORD}
    store = memory("dense", "sparse", filterable=kinds)

    first = ingest(store, [{"id": "1", "text": "red", "year": 1}], encoders)
    second = ingest(store, [{"id": "2", "text": "red", "tag": "a"}], encoders)

    assert (first.unfilled, second.unfilled) == (("tag", "by"), ("year", "by"))
    assert (first + second + IngestReport()).unfilled == ("by",)


def test_every_refusal_is_passed_on_at_once_and_in_order(memory, encoders):
    """Also those beyond the number that the report lists, with each batch."""
    seen: list[tuple[int, Refusal]] = []
    store = memory("dense", "sparse")
    documents = [{"id": str(number), "text": "red"} if number % 2 else {"id": str(number)} for number in range(20)]
    options = IngestOptions(batch=5, max_refused=3, on_refused=lambda refusal: seen.append((store.count(), refusal)))

    report = ingest(store, documents, encoders, options=options)

    assert [refusal.position for _, refusal in seen] == list(range(0, 20, 2))
    assert [count for count, _ in seen] == [2, 2, 2, 5, 5, 7, 7, 7, 10, 10]
    assert (report.refused_total, len(report.refused)) == (10, 3)
    assert [refusal for _, refusal in seen[:3]] == list(report.refused)
